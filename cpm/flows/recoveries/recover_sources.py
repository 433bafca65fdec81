"""Where a recovery reads from: the native snapshot or one of its DR copies, shared and copied on the way if need be.

Of all records of one snapshot the nearest to the target that AWS still has is taken, so a recovery works when
the original account, its snapshots or its whole region are gone. A permission that was missing is given for the
time of the recovery; copies on the way are temporary.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cpm.aws import known_errors
from cpm.aws.errors import AwsError, LimitReached
from cpm.aws.gateway import AwsClient
from cpm.flows import polling, tags
from cpm.flows.dr import dr_keys
from cpm.flows.recoveries import recover_share
from cpm.flows.recoveries.recover_base import (
    QUEUE,
    Place,
    aws,
    ec2,
    lists_lag,
    marked,
    marks,
    not_shown,
    poll_group,
    refused,
    resolve,
)
from cpm.jobs.context import NotYet, StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec
from cpm.lib.states import KeyDetection, SnapshotStatus
from cpm.models import ServerSettings, Snapshot
from cpm.resources.ec2_capture import chunks, describe_snapshots


@dataclass(frozen=True, slots=True)
class Source:
    """A snapshot or image that AWS has now. `encryption` are the parameters of what is made from it elsewhere."""

    row: Snapshot
    place: Place
    described: Mapping[str, Any]
    encryption: Mapping[str, Any] = field(default_factory=dict)

    @property
    def aws_id(self) -> str:
        return self.row.aws_id


@dataclass(frozen=True, slots=True)
class Ready:
    """Steps that make a source usable at the target; `ref` is how later steps find it."""

    ref: dict[str, str]
    specs: tuple[StepSpec, ...] = ()

    @property
    def after(self) -> tuple[str, ...]:
        return tuple(spec.key for spec in self.specs)


def choose(
    context: StepContext, rows: Sequence[Snapshot], target: Place, *, from_account: int | None = None
) -> dict[int, Source]:
    """For each record the nearest of itself and its copies that AWS has, by the record's id.

    Raises PreconditionFailed when one has none; AwsError only for trouble that may pass.
    """
    open_rows = {row.pk: _ranked(row, target, from_account) for row in rows}
    reasons: list[str] = []
    found: dict[int, Source] = {}
    while open_rows:
        by_place: dict[Place, list[tuple[int, Snapshot]]] = defaultdict(list)
        for pk, candidates in open_rows.items():
            if not candidates:
                row = next(row for row in rows if row.pk == pk)
                raise refused(_nothing_left(row, from_account, reasons))
            candidate = candidates.pop(0)
            assert candidate.account_id is not None
            by_place[Place(candidate.account_id, candidate.region)].append((pk, candidate))
        for place, wanted in by_place.items():
            shown = _described(context, place, [row.aws_id for _, row in wanted], reasons)
            for pk, row in wanted:
                if row.aws_id in shown:
                    found[pk] = Source(row, place, shown[row.aws_id])
                    del open_rows[pk]
                elif row.end_time is not None and lists_lag(context, row.end_time):
                    wait = polling.again(context.now, message=f"Waiting for {row.aws_id} to appear.")
                    raise NotYet(wait)
    return {pk: _with_key(context, source, target) for pk, source in found.items()}


def candidates_of(row: Snapshot) -> list[Snapshot]:
    """A record, its original and all copies of that, as far as complete and in accounts that CPM knows."""
    original = row.original or row
    everything = [row, *(one for one in (original, *original.copies.all()) if one.pk != row.pk)]
    return [
        one
        for one in everything
        if one.status == SnapshotStatus.COMPLETED and one.succeeded and one.aws_id and one.account_id is not None
    ]


def _ranked(row: Snapshot, target: Place, from_account: int | None) -> list[Snapshot]:
    usable = [one for one in candidates_of(row) if from_account in (None, one.account_id)]

    def distance(one: Snapshot) -> tuple[bool, bool, bool, int]:
        return one.region != target.region, one.account_id != target.account, one.pk != row.pk, one.pk

    ranked = sorted(usable, key=distance)
    if row.original_id is not None:
        # A DR copy was asked for by name: the others only stand in for it.
        ranked.sort(key=lambda one: one.pk != row.pk)
    return ranked


def _nothing_left(row: Snapshot, from_account: int | None, reasons: Iterable[str]) -> str:
    where = " in the account to recover from" if from_account else ""
    return f"No snapshot of {row.source_id} can be used{where}. " + " ".join(dict.fromkeys(reasons))


def _described(
    context: StepContext, place: Place, ids: Sequence[str], reasons: list[str]
) -> dict[str, Mapping[str, Any]]:
    """What AWS has of these and is usable. An account that cannot be reached is passed over, with its reason."""
    try:
        client = aws(context, place)
        snapshots = describe_snapshots(client, [i for i in ids if i.startswith("snap-")])
        images = describe_images(client, [i for i in ids if i.startswith("ami-")])
    except AwsError as error:
        if error.transient:
            raise
        context.warn(error.explain())
        reasons.append(error.explain())
        return {}
    reasons += [f"{i} no longer exists in {place.region}." for i in ids if i not in {*snapshots, *images}]
    usable: dict[str, Mapping[str, Any]] = {}
    for aws_id, one in {**snapshots, **images}.items():
        if one["State"] in {"completed", "available"}:
            usable[aws_id] = one
        else:
            reasons.append(f"{aws_id} is in state {one['State']}.")
    return usable


def describe_images(client: AwsClient, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The images that exist and that the caller may see."""
    found: dict[str, Mapping[str, Any]] = {}
    for part in chunks(ids):
        filters = [{"Name": "image-id", "Values": part}]
        found |= {image["ImageId"]: image for image in client.paginate("DescribeImages", "Images", Filters=filters)}
    return found


def _with_key(context: StepContext, source: Source, target: Place) -> Source:
    """The source with the KMS key of its copy; refuses a key that AWS lets nobody else use."""
    key = source.described.get("KmsKeyId") or source.row.details.get("kms_key_id")
    if source.place == target or not key or not (source.described.get("Encrypted") or source.row.encrypted):
        return source
    server = ServerSettings.current()
    try:
        choice = dr_keys.choose(
            source_kms=aws(context, source.place, "kms"),
            target_kms=aws(context, target, "kms"),
            key_id=key,
            default_alias=dr_keys.EBS_ALIAS,
            cross_account=source.place.account != target.account,
            detection=KeyDetection(server.encryption_key_detection),
        )
    except dr_keys.NoKey as error:
        raise refused(f"{source.aws_id} of {source.row.source_id}: {error}") from None
    if choice.fallback:
        context.warn(f"No key in {target.region} matches that of {source.aws_id}: the default key is used.")
    encryption = {"Encrypted": True} | ({"KmsKeyId": choice.key_id} if choice.key_id else {})
    return Source(source.row, source.place, source.described, encryption)


def prepare(context: StepContext, source: Source, target: Place, *, owned: bool) -> Ready:
    """The steps until the target can use the snapshot. `owned`: it must belong to the target's account."""
    foreign = source.place.account != target.account
    specs: list[StepSpec] = []
    if foreign:
        specs.append(recover_share.step(context, source.row, source.place, target, [source.aws_id]))
    if source.place.region == target.region and not (foreign and owned):
        return Ready({"id": source.aws_id}, tuple(specs))
    name = f"copy-{source.row.pk}"
    payload = {
        "name": name,
        "account": target.account,
        "region": target.region,
        "source": source.aws_id,
        "source_region": source.place.region,
        "original": source.row.source_id,
        "encryption": dict(source.encryption),
    }
    after = tuple(spec.key for spec in specs)
    return Ready({"step": name}, (*specs, StepSpec("recover.copy", payload, key=name, after=after)))


def mapping(context: StepContext, device: Mapping[str, Any]) -> dict[str, Any]:
    """A block device mapping whose `snapshot` may be one that an earlier step has made."""
    shown = {key: value for key, value in device.items() if key != "snapshot"}
    if "snapshot" in device:
        shown["Ebs"] = {**shown["Ebs"], "SnapshotId": resolve(context, device["snapshot"])}
    return shown


def copy(context: StepContext) -> Outcome:
    """CopySnapshot to where the recovery needs it, and wait until it is complete."""
    client, payload = ec2(context), context.payload

    def create() -> str:
        answer = client.call(
            "CopySnapshot",
            SourceRegion=payload["source_region"],
            SourceSnapshotId=payload["source"],
            Description=f"CPM recovery {context.subject_id}: temporary copy of {payload['source']}",
            TagSpecifications=[tags.specification("snapshot", marks(context))],
            **payload["encryption"],
        )
        return str(answer["SnapshotId"])

    try:
        copied = context.once(
            create=create,
            find=lambda: find_snapshots(client, context.step_id),
            discard=lambda extra: _delete(client, extra),
        )
    except LimitReached as error:
        if not error.transient:
            raise
        context.forget_intent()
        return polling.again(context.now, message="Waiting: AWS is copying as many snapshots as it allows.")
    return _copy_state(context, describe_snapshots(client, [copied]).get(copied))


def poll_copies(contexts: Sequence[StepContext]) -> Mapping[int, Outcome | Exception]:
    """Ask about all copies to one account and region together."""
    shown = describe_snapshots(ec2(contexts[0]), [context.token for context in contexts])
    return {context.step_id: _copy_state(context, shown.get(context.token)) for context in contexts}


def _copy_state(context: StepContext, shown: Mapping[str, Any] | None) -> Outcome:
    payload, copied = context.payload, context.token
    if shown is None:
        return not_shown(context, copied)
    if shown["State"] == "error":
        reason = known_errors.explain_state(shown.get("StateMessage") or "no reason given")
        return Failed(f"The copy {copied} of {payload['source']} failed: {reason}.")
    if shown["State"] != "completed":
        percent = int(shown.get("Progress", "0%").rstrip("%") or 0)
        words = f"Copying {payload['source']} to {payload['region']}."
        return polling.again(context.now, group=poll_group(context, "copies"), progress=percent, message=words)
    context.log(f"Copied {payload['source']} from {payload['source_region']} to {payload['region']} as {copied}.")
    return Done()


def _delete(client: AwsClient, snapshot: str) -> None:
    client.call("DeleteSnapshot", SnapshotId=snapshot)


def find_snapshots(client: AwsClient, step_id: int) -> list[str]:
    found = list(client.paginate("DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=marked(step_id)))
    found.sort(key=lambda one: (str(one["StartTime"]), one["SnapshotId"]))
    return [one["SnapshotId"] for one in found]


KINDS = (
    StepKind("recover.copy", QUEUE, copy, poll=poll_copies),
)
