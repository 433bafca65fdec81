"""Which key a DR copy gets: as `dr_keys` chooses, by the server's settings, with its warning and alert."""

from cpm.aws.gateway import AwsClient
from cpm.flows.dr import dr_keys
from cpm.flows.messages import alerting
from cpm.jobs.context import StepContext
from cpm.lib.states import KeyDetection, Severity
from cpm.models import Backup, ServerSettings


def choose_key(
    context: StepContext, *, source_kms: AwsClient, target_kms: AwsClient, key_id: str, default_alias: str
) -> dr_keys.Choice:
    """The key for the copy that this step makes of what is encrypted with `key_id`; raises NoKey, or AwsError.

    `default_alias` is the AWS managed key of the service, which other accounts cannot use.
    """
    server = ServerSettings.current()
    choice = dr_keys.choose(
        source_kms=source_kms,
        target_kms=target_kms,
        key_id=key_id,
        default_alias=default_alias,
        cross_account=context.payload["account"] != context.payload["source_account"],
        detection=KeyDetection(server.encryption_key_detection),
    )
    if choice.fallback:
        context.warn(f"No matching key in {context.payload['region']}: the default key is used for the copy.")
        if server.encryption_key_detection == KeyDetection.DEFAULT_KEY_ALERT:
            _alert_default_key(context)
    return choice


def _alert_default_key(context: StepContext) -> None:
    backup = Backup.objects.select_related("user", "policy").get(pk=context.subject_id)
    with context.fenced():
        alerting.raise_alert(
            user=backup.user,
            policy=backup.policy,
            category=alerting.DEFAULT_KEY_USED,
            severity=Severity.WARNING,
            title=f"DR of policy {backup.policy_name} used a default key",
            message=f"No KMS key in {context.payload['region']} matches the key of the source.",
            now=context.now,
        )
