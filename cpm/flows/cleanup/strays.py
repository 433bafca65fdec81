"""Removing strays: snapshots and images that a worker made late and then died, so that a successor's count instead.

One step looks through one region of one account. What it removes is proven (`stray_rules`) and named by no record; an
id that stands anywhere in a snapshot, a recovery or a step at work is left alone. Snapshots inside images go with their
image only. Volumes, instances and network interfaces that recoveries make are not looked at, nor what AWS's VSS
document takes, and what recoveries copy only where the account has snapshot records too.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from django.conf import settings
from django.db.models import Model, QuerySet, TextField
from django.db.models.functions import Cast

from cpm.aws.errors import AwsError, NotFound
from cpm.aws.gateway import AwsClient, client
from cpm.flows import tags
from cpm.flows.cleanup import stray_rules
from cpm.flows.cleanup.deletion import IMAGES
from cpm.flows.cleanup.stray_rules import Thing, Verdict
from cpm.flows.identities import identity_of
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec, Wait
from cpm.jobs.queue import JobSpec
from cpm.models import Account, Recovery, ServerSettings, Snapshot, Step

KIND = "strays"
STEP = "strays.remove"
# The log of cleanups shows each user the lines about that user.
SUBJECT = "cleanup"
QUEUE = "control"
# So many things are judged by one set of queries.
BATCH = 200


def steps(account: Account, regions: Sequence[str], *, not_before: datetime) -> list[StepSpec]:
    """Steps that look through these regions of an account, each for itself."""
    return [StepSpec(STEP, {"account": account.pk, "region": region}, not_before=not_before) for region in regions]


def job(account: Account, specs: Sequence[StepSpec]) -> JobSpec:
    """The job of an account, with its steps."""
    return JobSpec(KIND, SUBJECT, account.user_id, list(specs), user_id=account.user_id)


def remove(context: StepContext) -> Outcome:
    """Look through the region and remove the proven duplicates. Fails with AWS's words if it may not look or delete."""
    account = Account.objects.filter(pk=context.payload["account"]).first()
    if account is None:
        return Done("The account is gone.")
    identity = identity_of(account, session=f"cpm-job-{context.job_id}")
    ec2 = client(identity, "ec2", context.payload["region"])
    # What an earlier run had decided on; its images may be gone, so that their snapshots would not be found again.
    left: list[str] = (context.cursor or {}).get("removing", [])
    named = _named(left) if left else set()
    problems = _carry_out(context, ec2, account, [one for one in left if one not in named])
    things = listed(ec2, account)
    while batch := list(islice(things, BATCH)):
        if context.refresh_aborted():
            return Wait(0.0, message="Stopping.")
        context.progress(0, f"Looked at {batch[-1].aws_id}.")
        for thing, step in unneeded(context, [one for one in batch if one.aws_id not in left]):
            problems += _remove(context, ec2, account, thing, step)
    if problems:
        return Failed(f"{len(problems)} duplicates could not be removed. " + " ".join(problems[:5]))
    return Done()


def listed(ec2: AwsClient, account: Account) -> Iterator[Thing]:
    """All images and snapshots of the region that steps of this server have made. Raises AwsError."""
    server = str(ServerSettings.current().server_id)
    filters = [{"Name": f"tag:{tags.SERVER}", "Values": [server]}, {"Name": "tag-key", "Values": [tags.STEP]}]
    for one in ec2.paginate("DescribeImages", "Images", Owners=["self"], Filters=filters):
        labels = tags.as_dict(one.get("Tags"))
        # The snapshots of a pending image are not all known yet.
        if one["State"] != "pending" and tags.OUTDATED not in labels:
            made = datetime.fromisoformat(one["CreationDate"])
            made = made if made.tzinfo else made.replace(tzinfo=UTC)
            parts = [m["Ebs"].get("SnapshotId") for m in one.get("BlockDeviceMappings", ()) if "Ebs" in m]
            yield Thing(
                one["ImageId"], account.pk, ec2.region, made, one.get("Name", ""), labels,
                snapshots=tuple(filter(None, parts)),
            )  # fmt: skip
    for one in ec2.paginate("DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=filters):
        labels = tags.as_dict(one.get("Tags"))
        if labels.get(tags.KIND) not in IMAGES and tags.OUTDATED not in labels:
            yield Thing(
                one["SnapshotId"], account.pk, ec2.region, one["StartTime"], one.get("Description", ""), labels,
                volume=one.get("VolumeId", ""),
            )  # fmt: skip


def unneeded(context: StepContext, things: Sequence[Thing]) -> list[tuple[Thing, Step]]:
    """The proven duplicates among the things, with their steps. What is not proven, but odd, goes to the log."""
    steps = Step.objects.in_bulk({thing.step for thing in things})
    suspects: list[tuple[Thing, Step, Verdict]] = []
    for thing in things:
        step = steps.get(thing.step)
        settled = timedelta(seconds=settings.CPM_STRAY_SETTLED_SECONDS)
        verdict = stray_rules.judge(thing, step, now=context.now, settled=settled)
        if step is not None and verdict is not Verdict.KEEP:
            suspects.append((thing, step, verdict))
    if not suspects:
        return []
    named = _named([aws_id for thing, _, _ in suspects for aws_id in (thing.aws_id, *thing.snapshots)])
    free = [(t, s, v) for t, s, v in suspects if not named & {t.aws_id, *_own_parts(t, s)}]
    for thing, step, verdict in free:
        if verdict is Verdict.UNSURE:
            context.warn(
                f"{thing.aws_id} in {thing.region} is named by no record. Step {step.pk} ({step.kind}, {step.state}) made"
                " it but remembers nothing in its place, so it stays; delete it if you do not need it."
            )
    return [(thing, step) for thing, step, verdict in free if verdict is Verdict.STRAY]


def _own_parts(thing: Thing, step: Step) -> tuple[str, ...]:
    """The snapshots that came into being with an image; one that was registered consists of others' snapshots."""
    return () if step.kind == "recover.image" else thing.snapshots


def _named(ids: Sequence[str]) -> set[str]:
    """Which of the ids stand in the record of a snapshot or recovery, or in a step that is at work."""
    pattern = "|".join(map(re.escape, ids))
    found = set(Snapshot.objects.filter(aws_id__in=ids).values_list("aws_id", flat=True))
    working = Step.objects.filter(finished_at=None).exclude(kind=STEP)
    places: list[tuple[QuerySet[Any], tuple[str, ...]]] = [
        (Snapshot.objects.all(), ("details",)),
        (Recovery.objects.all(), ("request", "recovered_resource_ids", "outcome")),
        (working, ("payload", "token", "cursor")),
    ]
    for rows, columns in places:
        for column in columns:
            found.update(_ids_in(rows, column, pattern))
    return found


def _ids_in(rows: QuerySet[Model], column: str, pattern: str) -> Iterator[str]:
    texts = rows.annotate(as_text=Cast(column, TextField())).filter(as_text__regex=pattern)
    for text in texts.values_list("as_text", flat=True):
        yield from re.findall(pattern, text)


def _remove(context: StepContext, ec2: AwsClient, account: Account, thing: Thing, step: Step) -> list[str]:
    """Write down what goes and why, and remove it; returns what went wrong."""
    ids = [thing.aws_id]
    if thing.snapshots:
        server = thing.labels[tags.SERVER]
        ours = ec2.paginate(
            "DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=tags.made_by(step.pk, server)
        )
        ids += [one["SnapshotId"] for one in ours if one["SnapshotId"] in thing.snapshots]
    context.log(
        f"Removing {', '.join(ids)} in {thing.region} of account {account.name}: an interrupted attempt of step {step.pk}"
        f" ({step.kind}) made it beside {stray_rules.counted(step, thing)}, and no record names it."
    )
    context.save_cursor({"removing": [*(context.cursor or {}).get("removing", []), *ids]})
    return _carry_out(context, ec2, account, ids)


def _carry_out(context: StepContext, ec2: AwsClient, account: Account, ids: Sequence[str]) -> list[str]:
    """Remove these, images before their snapshots. Absent is as good as removed. What fails stays in the cursor."""
    problems: list[str] = []
    gone: set[str] = set()
    for aws_id in ids:
        try:
            with suppress(NotFound):
                if account.is_dr_account and not account.allow_deleting_snapshots:
                    ec2.call("CreateTags", Resources=[aws_id], Tags=[{"Key": tags.OUTDATED, "Value": "true"}])
                elif aws_id.startswith("ami-"):
                    ec2.call("DeregisterImage", ImageId=aws_id)
                else:
                    ec2.call("DeleteSnapshot", SnapshotId=aws_id)
            gone.add(aws_id)
        except AwsError as error:
            if error.transient:
                raise
            problems.append(f"{aws_id}: {error.explain()}")
    if gone:
        context.save_cursor({"removing": [one for one in context.cursor["removing"] if one not in gone]})
    return problems


KINDS = (StepKind(STEP, QUEUE, remove),)
