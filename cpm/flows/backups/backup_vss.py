"""Snapshots of Windows instances that VSS has quiesced: AWS's document takes them on the instance itself.

AWSEC2-CreateVssSnapshot (EC2 User Guide, "Create VSS based EBS snapshots") freezes and takes every volume of
the instance; drives cannot be chosen. So a VSS run is one step that takes all volumes or fails without leaving
any, and a plain multi-volume CreateSnapshots after it that acts only if the first has failed. The failed step
stays visible: it makes the record partially successful, as a failed script does.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.conf import settings

from cpm.aws.errors import AwsError, NotFound
from cpm.aws.gateway import AwsClient
from cpm.flows import tags
from cpm.flows.backups import backup_snapshots, run_command, watching
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec
from cpm.lib.states import RunIf
from cpm.models import Backup, ScriptLog, Snapshot

QUEUE = "backup"
DOCUMENT = "AWSEC2-CreateVssSnapshot"
# The freeze lasts seconds; installing the VSS component, flushing and tagging may take minutes.
TIMEOUT = 600
SUFFIX = "| VSS snapshot"
# The document puts these on snapshots itself, and refuses to be given them.
RESERVED = frozenset({"Device", "AppConsistent", "AwsVssConfig"})


def steps(payload: Mapping[str, Any], *, key: str, server: str, refused: str) -> list[StepSpec]:
    """A VSS attempt, and with key `key` the plain snapshots that replace it if it fails.

    `payload` is that of `backup_snapshots.start_instance`; `refused` says why VSS cannot act here, if so.
    """
    more = {"server": server, "timeout": TIMEOUT, "refused": refused}
    return [
        StepSpec("backup.start_vss", {**payload, **more}, key=f"vss-{key}", run_if=RunIf.ENDED),
        StepSpec("backup.start_unless_vss", payload, key=key, after=(f"vss-{key}",), run_if=RunIf.ENDED),
    ]


def impossible(instance: str, server: str, refused: str) -> StepSpec:
    """A VSS attempt that fails at once, for a backup of an instance that cannot have VSS but asks for it."""
    payload = {"instance": instance, "server": server, "refused": refused, "snapshots": {}}
    return StepSpec("backup.start_vss", payload, key=f"vss-{instance}", run_if=RunIf.ENDED)


def start(context: StepContext) -> Outcome:
    """Run AWS's document on the instance."""
    payload = context.payload
    if payload["refused"]:
        return Failed(f"No VSS for {payload['instance']}: {payload['refused']}")
    if context.token is None and _started(payload):
        return Failed("The snapshots of this run have been taken; VSS is not tried again.")
    parameters = {
        "ExcludeBootVolume": ["False"],
        "description": [_description(payload)],
        "tags": [_tags(context)],
        "executionTimeout": [str(payload["timeout"])],
    }
    run_command.send(context, DOCUMENT, parameters)
    return run_command.waiting(context)


def poll(contexts: Sequence[StepContext]) -> Mapping[int, Outcome | Exception]:
    """Ask for the VSS commands of one account and region."""
    answers = run_command.results(contexts)
    outcomes: dict[int, Outcome | Exception] = {}
    for context in contexts:
        try:
            outcomes[context.step_id] = _outcome(context, answers[context.step_id])
        except AwsError as error:
            outcomes[context.step_id] = error
    return outcomes


def cancel(context: StepContext) -> None:
    """Abort: stop the command and delete what it has taken."""
    if not context.payload["refused"] and run_command.cancel(context):
        _discard(context, backup_snapshots.ec2(context))


def start_unless_vss(context: StepContext) -> Outcome:
    """Plain snapshots of all chosen volumes at one point in time, unless VSS has taken them."""
    if context.token is None and _started(context.payload):
        return Done("VSS has taken the snapshots.")
    if context.lease.intent_at is None:
        context.warn(f"The snapshots of {context.payload['instance']} are taken without VSS.")
    return backup_snapshots.start_instance(context)


def _started(payload: Mapping[str, Any]) -> bool:
    rows = Snapshot.objects.filter(pk__in=payload["snapshots"].values())
    return rows.exclude(aws_id="").exists()


def _description(payload: Mapping[str, Any]) -> str:
    """Without characters that PowerShell, which the document consists of, gives a meaning."""
    words = re.sub(r"[\"'`$;{}<>&\r\n]", "_", payload["description"])
    return f"{words[: backup_snapshots.LONGEST_DESCRIPTION - len(SUFFIX)]}{SUFFIX}"


def _tags(context: StepContext) -> str:
    """Our ids in the document's own notation, which has no quoting; the other tags follow by CreateTags."""
    ours = {**context.payload["tags"], tags.STEP: str(context.step_id)}
    return ";".join(f"Key={key},Value={ours[key]}" for key in sorted(ours) if key != tags.POLICY)


def _outcome(context: StepContext, answer: run_command.Answer) -> Outcome:
    if answer is None:
        return run_command.waiting(context)
    ec2 = backup_snapshots.ec2(context)
    if isinstance(answer, AwsError):
        if answer.transient:
            raise answer
        run_command.give_up(context)
        _discard(context, ec2)
        return Failed(answer.explain())
    if not answer.succeeded:
        return _failed(context, ec2, answer, f"VSS on {context.payload['instance']} failed: {answer.detail}.")
    return _adopt(context, ec2, answer)


def _adopt(context: StepContext, ec2: AwsClient, answer: run_command.Result) -> Outcome:
    """The command has succeeded: its snapshots become those of the run, if the set is whole."""
    rows: dict[str, int] = context.payload["snapshots"]
    found, taken = _taken(ec2, context), dict[str, str]()
    for snapshot in filter(_consistent, found):
        taken.setdefault(snapshot["VolumeId"], snapshot["SnapshotId"])
    missing = sorted(set(rows) - set(taken))
    if missing:
        # DescribeSnapshots may be behind the document; the cursor remembers since when it has been.
        since = context.cursor or context.now.timestamp()
        if context.now.timestamp() - since <= settings.CPM_AWS_LIST_LAG_SECONDS:
            context.save_cursor(since)
            return run_command.waiting(context)
        return _failed(context, ec2, answer, f"VSS took no consistent snapshot of {', '.join(missing)}.")
    # A volume that was attached after the run was planned is taken too, and has no record.
    ours = {taken[volume] for volume in rows}
    _delete(context, ec2, [snapshot for snapshot in found if snapshot["SnapshotId"] not in ours])
    _complete_tags(context, ec2, taken)

    def write() -> None:
        for volume, row in rows.items():
            Snapshot.objects.filter(pk=row).update(aws_id=taken[volume], start_time=context.now)
        Backup.objects.filter(pk=context.subject_id).update(performed_quiesce=True)

    context.log(f"VSS started {', '.join(sorted(ours))}.")
    return Done(write=write)


def _failed(context: StepContext, ec2: AwsClient, answer: run_command.Result, why: str) -> Failed:
    """The end of an attempt: nothing that it took is left, because plain snapshots replace it."""
    _discard(context, ec2)
    output = run_command.outputs(context).replace("\0", "")

    def write() -> None:
        ScriptLog.objects.create(
            backup_id=context.subject_id,
            title=f"VSS on {context.payload['instance']}",
            log=output,
            exit_code=answer.exit_code,
        )

    return Failed(why, write=write)


def _taken(ec2: AwsClient, context: StepContext) -> list[dict[str, Any]]:
    """What this step has taken, oldest first."""
    filters = [
        {"Name": f"tag:{tags.STEP}", "Values": [str(context.step_id)]},
        {"Name": f"tag:{tags.SERVER}", "Values": [context.payload["server"]]},
    ]
    found = ec2.paginate("DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=filters)
    return sorted(found, key=lambda snapshot: str(snapshot["StartTime"]))


def _consistent(snapshot: Mapping[str, Any]) -> bool:
    """The document tags a snapshot AppConsistent when VSS really held the volume still."""
    return tags.as_dict(snapshot.get("Tags")).get("AppConsistent", "").lower() == "true"


def _discard(context: StepContext, ec2: AwsClient) -> None:
    _delete(context, ec2, _taken(ec2, context))


def _delete(context: StepContext, ec2: AwsClient, snapshots: Iterable[Mapping[str, Any]]) -> None:
    for snapshot in snapshots:
        try:
            ec2.call("DeleteSnapshot", SnapshotId=snapshot["SnapshotId"])
        except NotFound:
            continue
        context.log(f"Removed {snapshot['SnapshotId']} of {snapshot['VolumeId']}.")


def _complete_tags(context: StepContext, ec2: AwsClient, taken: Mapping[str, str]) -> None:
    """The tags that CreateSnapshots would have put on: the policy's name, and those of each volume."""
    policy = {tags.POLICY: context.payload["tags"][tags.POLICY]}
    rows = Snapshot.objects.in_bulk(context.payload["snapshots"].values())
    for volume, row in context.payload["snapshots"].items():
        source = rows[row].details.get("tags", {}) if row in rows else {}
        kept = {key: value for key, value in source.items() if key not in RESERVED | tags.OURS}
        # Room is left for what the document has put on: no more than our ids, its own three and Name.
        wanted = dict(list(tags.with_source(policy, kept).items())[: tags.MOST_TAGS - 12])
        ec2.call("CreateTags", Resources=[taken[volume]], Tags=tags.as_list(wanted))


KINDS = (
    StepKind("backup.start_vss", QUEUE, start, poll=poll, cancel=cancel),
    StepKind(
        "backup.start_unless_vss",
        QUEUE,
        start_unless_vss,
        cancel=backup_snapshots.cancel_started,
        failed=watching.mark_failed,
    ),
)
