"""What all recoveries share: whose calls are made, how steps refer to what others made, waiting, and tags.

A step that makes something has a `name` in its payload; others find its token by that name. What a call without
an answer may have left in AWS is found again by the tags of its step.
"""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from cpm.aws import gateway
from cpm.aws.gateway import AwsClient
from cpm.aws.identity import Identity, Keys
from cpm.flows import polling, tags
from cpm.flows.identities import decrypt_secret, identity_of
from cpm.jobs.context import NotYet, StepContext
from cpm.jobs.kinds import Failed, Outcome, Wait
from cpm.lib.errors import PreconditionFailed
from cpm.models import Account, Recovery, ServerSettings, Step

KIND = "recovery"
SUBJECT = "recovery"
QUEUE = "recovery"
# Key words of tags that put a resource under a policy at the next tag scan.
BACKUP_TAGS = frozenset({"cpm backup", "cpm_backup"})


@dataclass(frozen=True, slots=True)
class Place:
    """An account (by id of its row) and a region."""

    account: int
    region: str


def recovery_of(context: StepContext) -> Recovery:
    return Recovery.objects.select_related("snapshot__account", "backup", "policy").get(pk=context.subject_id)


def refused(message: str) -> PreconditionFailed:
    """The recovery cannot be done as asked; nothing that was made stays."""
    return PreconditionFailed("not_recoverable", message)


def identity(context: StepContext, account_id: int) -> Identity:
    """Who calls are made as: the credentials given for this recovery in the account that it recovers to."""
    account = Account.objects.select_related("assume_from_account").get(pk=account_id)
    secret = context.job_secret()
    if secret:
        target = Recovery.objects.values_list("request__target_account", flat=True).get(pk=context.subject_id)
        given = json.loads(decrypt_secret(secret))
        if target == account_id and given.get("aws_access_key"):
            return Keys(
                given["aws_access_key"], given["aws_secret_key"], account_number=account.account_number or None
            )
    return identity_of(account, session=f"cpm-recovery-{context.subject_id}")


def aws(context: StepContext, place: Place, service: str = "ec2") -> AwsClient:
    return gateway.client(identity(context, place.account), service, place.region)


def place_of(payload: Mapping[str, Any]) -> Place:
    return Place(payload["account"], payload["region"])


def ec2(context: StepContext) -> AwsClient:
    """The EC2 client of the step's own account and region."""
    return aws(context, place_of(context.payload))


def account_number(context: StepContext, account_id: int) -> str:
    return gateway.account_number(identity(context, account_id))


def step_named(context: StepContext, name: str) -> Step | None:
    return Step.objects.filter(job_id=context.job_id, payload__name=name).first()


def made(context: StepContext, name: str) -> Any:
    """The token of the step of this job with that name; None if it has none."""
    step = step_named(context, name)
    return step.token if step else None


def resolve(context: StepContext, ref: Mapping[str, str]) -> str:
    """An AWS id that is known (`id`) or that another step has made by now (`step`)."""
    found = ref.get("id") or made(context, ref["step"])
    if not found:
        raise refused(f"The step {ref['step']} has made nothing.")
    return str(found)


def server_id() -> uuid.UUID:
    return ServerSettings.current().server_id


def marks(context: StepContext) -> dict[str, str]:
    """Our tags on what this step makes. No backup id: what a recovery makes is no backup."""
    return {
        tags.SERVER: str(server_id()),
        tags.RECOVERY: str(context.subject_id),
        tags.STEP: str(context.step_id),
    }


def marked(step_id: int) -> list[dict[str, Any]]:
    """EC2 filters for what a step of this server has made."""
    return [
        {"Name": f"tag:{tags.STEP}", "Values": [str(step_id)]},
        {"Name": f"tag:{tags.SERVER}", "Values": [str(server_id())]},
    ]


def client_token(context: StepContext) -> str:
    """The same at every run of this step, and different from every other step of every other server."""
    return str(uuid.uuid5(server_id(), f"step {context.step_id}"))


def token_once(context: StepContext, create: Callable[[str], Any]) -> Any:
    """Like `context.once` for calls that take a client token: an interrupted call is simply made again.

    That it was begun is remembered too, so that cleaning up knows when there may be something to find.
    """
    if context.token is None:
        if context.cursor is None:
            context.save_cursor({"began": context.now.isoformat()})
        context.remember(create(client_token(context)))
    return context.token


def began_at(context: StepContext) -> datetime:
    """When this step began to make what it makes."""
    if context.lease.intent_at is not None:
        return context.lease.intent_at
    cursor = context.cursor or {}
    return datetime.fromisoformat(cursor["began"]) if "began" in cursor else context.now


def lists_lag(context: StepContext, began: datetime) -> bool:
    return context.now < began + timedelta(seconds=settings.CPM_AWS_LIST_LAG_SECONDS)


def not_shown(context: StepContext, what: str) -> Outcome:
    """AWS does not show what this step has made: its lists lag, or somebody has deleted it."""
    if lists_lag(context, began_at(context)):
        return polling.again(context.now, message=f"Waiting for {what} to appear.")
    return Failed(f"{what} is gone: somebody else deleted it during the recovery.")


def poll_group(context: StepContext, what: str) -> str:
    """The steps of one account and region that wait for the same kind of thing; given credentials stay apart."""
    apart = f"-{context.subject_id}" if context.job_secret() else ""
    return polling.group(context.payload["account"], context.payload["region"], f"recover-{what}{apart}")


def until_listed(context: StepContext, step: Step) -> None:
    """Raise NotYet until AWS's lists surely show what an interrupted run of that step may have made."""
    cursor = step.cursor if isinstance(step.cursor, dict) else {}
    moments = [step.intent_at, datetime.fromisoformat(cursor["began"]) if "began" in cursor else None]
    # A step that has begun anew remembers what it made first, and when it began again.
    began = max((moment for moment in moments if moment is not None), default=None)
    if began is not None and lists_lag(context, began):
        seconds = (began + timedelta(seconds=settings.CPM_AWS_LIST_LAG_SECONDS) - context.now).total_seconds()
        raise NotYet(Wait(seconds, message="Looking for what an interrupted step may have made."))


def warn_of_backup_tag(context: StepContext, labels: Mapping[str, str], what: str) -> None:
    """Tags that come back may put the recovered resource under a policy."""
    found = sorted(key for key in labels if key.lower() in BACKUP_TAGS)
    if found:
        context.warn(f"{what} gets the tag “{found[0]}” back: the next tag scan will put it under a policy.")
