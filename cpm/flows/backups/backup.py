"""A backup run: prepare -> [before script] -> start snapshots -> [after script] and watch -> [complete script] -> finish.

`prepare` asks AWS what the targets look like now and plans the other steps. A target that cannot be backed up
gets a failed snapshot record that says why; the others go on.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from cpm.aws.errors import AwsError
from cpm.aws.gateway import client
from cpm.flows.backups import backup_finish, backup_plan, backup_scripts, backup_snapshots
from cpm.flows.identities import account_number_of, identity_of
from cpm.flows.messages import alerting
from cpm.flows.server import server_backup
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec
from cpm.jobs.queue import JobSpec
from cpm.lib.states import AutoRemove, BackupStatus, DrStatus, Severity
from cpm.models import Account, Backup, Policy, Target
from cpm.resources import ec2_capture

KIND = "backup"
SUBJECT = "backup"
QUEUE = "backup"


def job(backup: Backup) -> JobSpec:
    """The job of a new backup record."""
    return JobSpec(KIND, SUBJECT, backup.pk, [StepSpec("backup.prepare")], user_id=backup.user_id)


def prepare(context: StepContext) -> Outcome:
    """Describe the targets and plan the run. AWS errors that may pass raise, and the step is tried again."""
    backup = Backup.objects.select_related("policy", "account").get(pk=context.subject_id)
    policy = backup.policy
    if policy is None or backup.account is None:
        return _nothing(context, "The policy was deleted before the backup began.")
    targets = list(policy.targets.prefetch_related("volumes").order_by("id"))
    server = server_backup.is_for(policy)
    if not targets and not server:
        return _nothing(context, "The policy has no targets. Add at least one.")
    _learn_number(context, backup.account)
    described, unreachable = _describe(context, backup, targets)
    plan = backup_plan.Plan(context, backup, policy)
    if server:
        server_backup.add(plan)
    gone = []
    for target in targets:
        key = (target.aws_region, target.resource_type)
        if key in unreachable:
            plan.fail(target, unreachable[key])
        elif target.aws_resource_id not in described[target.aws_region]:
            gone.append(target)
        else:
            plan.add(target, described[target.aws_region])
    for target in gone:
        if policy.auto_remove_resource == AutoRemove.NO:
            plan.fail(target, f"{target.aws_resource_id} no longer exists in {target.aws_region}.")
    specs = plan.finish()

    def write() -> None:
        _remove(context, policy, gone)
        plan.save()
        count = policy.backups_started
        Policy.objects.filter(pk=policy.pk).update(backups_started=count + 1)
        Backup.objects.filter(pk=backup.pk).update(
            status=BackupStatus.IN_PROGRESS, dr_status=_dr_status(policy, count)
        )

    context.log(f"Policy {policy.name}: {len(targets) - len(gone)} of {len(targets)} targets found in AWS.")
    return Done(then=specs, write=write)


def _dr_status(policy: Policy, started_before: int) -> DrStatus:
    if not policy.dr_enabled:
        return DrStatus.NONE
    return DrStatus.PENDING if started_before % max(policy.dr_frequency, 1) == 0 else DrStatus.SKIPPED


def _learn_number(context: StepContext, account: Account) -> None:
    """Records show the account's number; an account given by keys alone is asked for it once."""
    try:
        account_number_of(account, session=f"cpm-job-{context.job_id}")
    except AwsError as error:
        if error.transient:
            raise
        context.warn(error.explain())


def _nothing(context: StepContext, why: str) -> Failed:
    def write() -> None:
        backup_finish.fail(context, why)

    return Failed(why, write=write)


def _describe(
    context: StepContext, backup: Backup, targets: Iterable[Target]
) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, str], str]]:
    """Per region the AWS descriptions by id, and per (region, type) why it could not be described."""
    assert backup.account is not None
    identity = identity_of(backup.account, session=f"cpm-backup-{backup.pk}")
    wanted: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for target in targets:
        wanted[target.aws_region][target.resource_type].append(target.aws_resource_id)
    described: dict[str, dict[str, Any]] = {}
    unreachable: dict[tuple[str, str], str] = {}
    for region, types in wanted.items():
        described[region] = {}
        try:
            ec2 = client(identity, "ec2", region)
            instances = ec2_capture.describe_instances(ec2, types.get("instances", []))
            attached = [v for instance in instances.values() for v in ec2_capture.ebs_volumes_of(instance)]
            ids = sorted({*types.get("volumes", []), *attached})
            described[region] = {**instances, **ec2_capture.describe_volumes(ec2, ids)}
            for instance_id, instance in instances.items():
                instance["cpm_attributes"] = ec2_capture.instance_attributes(ec2, instance_id)
        except AwsError as error:
            if error.transient:
                raise
            context.error(error.explain())
            unreachable |= {(region, kind): error.explain() for kind in types}
    return described, unreachable


def _remove(context: StepContext, policy: Policy, gone: list[Target]) -> None:
    """Targets that AWS definitely no longer has leave the policy, if the policy says so."""
    if policy.auto_remove_resource == AutoRemove.NO or not gone:
        return
    names = ", ".join(target.aws_resource_id for target in gone)
    Target.objects.filter(pk__in=[target.pk for target in gone]).delete()
    context.warn(f"No longer in AWS and removed from the policy: {names}.")
    if policy.auto_remove_resource == AutoRemove.ALERT:
        alerting.raise_alert(
            user=policy.user,
            policy=policy,
            category=alerting.TARGET_REMOVED,
            severity=Severity.WARNING,
            title=f"Targets were removed from policy {policy.name}",
            message=f"These resources no longer exist in AWS: {names}.",
            now=context.now,
        )


def prepare_failed(context: StepContext, message: str) -> None:
    """Nothing could be planned: the record must not stay in progress."""
    backup_finish.fail(context, message)


def prepare_cancelled(context: StepContext) -> None:
    backup_finish.fail(context, "Aborted before it began.")


KINDS: tuple[StepKind, ...] = (
    StepKind("backup.prepare", QUEUE, prepare, failed=prepare_failed, cancelled=prepare_cancelled),
    *backup_snapshots.KINDS,
    *server_backup.KINDS,
    *backup_scripts.KINDS,
    *backup_finish.KINDS,
)
