"""Letting another account use snapshots and images for the time of a recovery.

What an account was allowed before stays allowed; a permission that several recoveries use is taken back by the last.
"""

from collections.abc import Mapping
from typing import Any

from cpm.aws.gateway import AwsClient
from cpm.flows.recoveries.recover_base import QUEUE, Place, account_number, aws, place_of
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind, StepSpec
from cpm.lib.states import JobState
from cpm.models import Snapshot, Step
from cpm.resources.registry import WHOLE_BY_KEY

OPEN = (JobState.QUEUED, JobState.RUNNING)


def step(context: StepContext, row: Snapshot, place: Place, target: Place, items: list[str]) -> StepSpec:
    """A step that lets the account of the target use these snapshots or images of a place."""
    payload = {
        "name": f"share-{row.pk}",
        "type": row.resource_type,
        "account": place.account,
        "region": place.region,
        "number": account_number(context, target.account),
        "items": items,
    }
    return StepSpec("recover.share", payload, key=f"share-{row.pk}")


def share(context: StepContext) -> Outcome:
    """Let the target's account use the source. What it was allowed before is remembered and stays."""
    client, payload = holder(context, context.payload), context.payload
    if context.cursor is None:
        had = [item for item in payload["items"] if payload["number"] in permitted(client, payload["type"], item)]
        if _shared_by_another(context):
            had = []  # the permission is another recovery's, which takes it back or leaves it to us
        context.save_cursor({"had": had})
    for item in payload["items"]:
        if item not in context.cursor["had"]:
            permit(client, payload["type"], item, payload["number"], "add")
    context.remember(True)
    context.log(f"{', '.join(payload['items'])} may be used by account {payload['number']} during the recovery.")
    return Done()


def share_overtaken(context: StepContext) -> None:
    """The permission may have been given after it was taken back; nobody else would look at it again."""
    step = Step.objects.get(pk=context.step_id)
    cleaning = Step.objects.filter(job_id=context.job_id, kind="recover.clean")
    if cleaning.filter(pending_after__gt=0).exists() or still_needed(context, step):
        return
    for item in step.payload["items"]:
        if item not in (step.cursor or {}).get("had", ()):
            permit(holder(context, step.payload), step.payload["type"], item, step.payload["number"], "remove")


def _shared_by_another(context: StepContext) -> bool:
    return (
        Step.objects.filter(kind="recover.share", job__state__in=OPEN, cursor__isnull=False)
        .filter(payload__items=context.payload["items"], payload__number=context.payload["number"])
        .exclude(job_id=context.job_id)
        .exclude(cursor__had=context.payload["items"])
        .exists()
    )


def still_needed(context: StepContext, step: Step) -> bool:
    """Whether another recovery works with the same permission; the last one takes it back.

    One that has not asked for it yet is no reason to leave it: it will give the permission itself.
    """
    others = (
        Step.objects.filter(kind="recover.share", job__state__in=OPEN, cursor__isnull=False)
        .filter(payload__items=step.payload["items"], payload__number=step.payload["number"])
        .exclude(job_id=context.job_id)
        .values("job_id")
    )
    return Step.objects.filter(kind="recover.clean", job_id__in=others, pending_after__gt=0).exists()


def holder(context: StepContext, payload: Mapping[str, Any]) -> AwsClient:
    """The client of the service that has what is shared, where it is."""
    kind = WHOLE_BY_KEY.get(payload["type"])
    return aws(context, place_of(payload), kind.snapshots_in if kind else "ec2")


def permitted(client: AwsClient, resource_type: str, item: str) -> set[str]:
    """The accounts that may use a snapshot or image."""
    if resource_type in WHOLE_BY_KEY:
        return WHOLE_BY_KEY[resource_type].shared_with(client, item)
    if item.startswith("ami-"):
        answer = client.call("DescribeImageAttribute", ImageId=item, Attribute="launchPermission")
        return {grant["UserId"] for grant in answer.get("LaunchPermissions", ()) if "UserId" in grant}
    answer = client.call("DescribeSnapshotAttribute", SnapshotId=item, Attribute="createVolumePermission")
    return {grant["UserId"] for grant in answer.get("CreateVolumePermissions", ()) if "UserId" in grant}


def permit(client: AwsClient, resource_type: str, item: str, number: str, operation: str) -> None:
    """Add or remove a permission; either is harmless twice."""
    if resource_type in WHOLE_BY_KEY:
        kind = WHOLE_BY_KEY[resource_type]
        (kind.share if operation == "add" else kind.unshare)(client, item, number)
        return
    common = {"OperationType": operation, "UserIds": [number]}
    if item.startswith("ami-"):
        client.call("ModifyImageAttribute", ImageId=item, Attribute="launchPermission", **common)
    else:
        client.call("ModifySnapshotAttribute", SnapshotId=item, Attribute="createVolumePermission", **common)


KINDS = (StepKind("recover.share", QUEUE, share, overtaken=share_overtaken),)
