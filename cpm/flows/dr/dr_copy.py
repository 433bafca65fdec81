"""DR: copies of a backup's snapshots and images in other regions and in another account.

plan -> [share] -> copy -> watch -> [unshare] -> finish. Sharing is needed only across accounts, and is taken
back when the copies are over, however they ended. CopySnapshot takes no client token and runs under the
once-only protocol; CopyImage takes one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from cpm.flows import polling, tags
from cpm.flows.cleanup import deletion, retention
from cpm.flows.dr import dr_copy_steps, dr_whole
from cpm.flows.messages import alerting
from cpm.flows.s3 import copy
from cpm.flows.server import catalogue_tags
from cpm.jobs import queue
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind, StepSpec
from cpm.lib.states import DrStatus, RunIf, SnapshotKind, SnapshotStatus, StepState
from cpm.models import Account, Backup, Job, Policy, Region, ServerSettings, Snapshot, Step
from cpm.models.base import new_ids
from cpm.resources.registry import WHOLE, WHOLE_BY_KEY

KIND = "dr_copy"
QUEUE = "dr"
COPY_KINDS: Mapping[str, str] = {
    SnapshotKind.VOLUME: SnapshotKind.DR_VOLUME,
    SnapshotKind.INITIAL_AMI: SnapshotKind.DR_INITIAL_AMI,
    SnapshotKind.ONLY_AMI: SnapshotKind.ONLY_DR_AMI,
    **{kind.kind: kind.dr_kind for kind in WHOLE if kind.dr_kind},
}
# Details of a snapshot that are not those of its copy, which AWS tells by itself.
OF_THE_ORIGINAL = frozenset(
    {"kms_key_id", "snapshot_ids", "block_devices", "snapshot_arn", "expire_time", "move_to_cold_storage_time"}
)
SOURCE_KINDS = frozenset(COPY_KINDS) | {kind.kind for kind in WHOLE}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a copy goes."""

    account: Account
    region: str


Pair = tuple[Snapshot, Destination]


def request(backup: Backup, *, now: datetime) -> Job:
    """Make the DR job of a backup. Call it in the transaction that ends the backup."""
    spec = queue.JobSpec(KIND, "backup", backup.pk, [StepSpec("dr.plan")], user_id=backup.user_id)
    return queue.create_jobs([spec], engine_queues=QUEUES)[0]


def plan(context: StepContext) -> Outcome:
    """Wait for another DR of the policy to end, then plan one copy for each snapshot and destination."""
    backup = Backup.objects.select_related("policy__dr_account", "account").get(pk=context.subject_id)
    policy = backup.policy
    if policy is None or backup.account is None:
        return Done("The policy is gone.", write=lambda: _skip(context, "The policy was deleted."))
    if not _begin(context, backup, policy):
        return polling.again(context.now, message="Another DR of the policy is running.")
    sources = [
        row for row in backup.snapshots.filter(succeeded=True) if row.kind in SOURCE_KINDS and row.aws_id
    ]
    sources = [row for row in sources if row.status == SnapshotStatus.COMPLETED]
    destinations = _destinations(backup.account, policy)
    wanted = [(row, place) for row in sources for place in destinations(row)]
    pairs, refused = _possible(wanted)
    for why in refused:
        context.warn(why)
    if not pairs:
        words = " ".join(refused) or "There is nothing to copy, or nowhere to copy it to."
        return Done(write=lambda: _skip(context, words))
    rows = _rows(backup, [(row, place) for row, place in pairs if not dr_whole.is_grant(row)])
    grants = [(row, place) for row, place in pairs if dr_whole.is_grant(row)]
    specs = _steps(backup, policy, rows, grants)

    def write() -> None:
        Snapshot.objects.bulk_create(rows)
        same = {row.region for row in rows if row.account_id == backup.account_id}
        other = {row.region for row in rows if row.account_id != backup.account_id}
        Backup.objects.filter(pk=backup.pk).update(
            dr_regions=", ".join(sorted(same)), dr_account_regions=", ".join(sorted(other))
        )

    context.log(f"DR: {len(rows)} copies of {len(sources)} snapshots, {len(grants)} shared for good.")
    return Done(then=specs, write=write)


def _begin(context: StepContext, backup: Backup, policy: Policy) -> bool:
    """Become the one running DR of the policy; the time limit starts now."""
    with context.fenced():
        Policy.objects.select_for_update().get(pk=policy.pk)
        others = Backup.objects.filter(policy=policy, dr_status=DrStatus.IN_PROGRESS).exclude(pk=backup.pk)
        if others.exists():
            return False
        deadline = context.now + timedelta(hours=policy.dr_timeout_hours)
        Backup.objects.filter(pk=backup.pk).update(dr_status=DrStatus.IN_PROGRESS)
        Job.objects.filter(pk=context.job_id, deadline=None).update(deadline=deadline)
        return True


def _destinations(account: Account, policy: Policy) -> Any:
    names = dict(Region.objects.values_list("id", "aws_region"))
    own = [names[pk] for pk in policy.dr_regions if pk in names]
    foreign = [names[pk] for pk in policy.dr_account_regions if pk in names]

    def places(row: Snapshot) -> Iterable[Destination]:
        yield from (Destination(account, region) for region in own if region != row.region)
        if policy.dr_account is not None:
            regions = [*foreign, *([row.region] if policy.copy_to_snapshot_original_region else [])]
            yield from (Destination(policy.dr_account, region) for region in dict.fromkeys(regions))

    return places


def _possible(wanted: Sequence[Pair]) -> tuple[list[Pair], list[str]]:
    """What AWS can do of it, and why the rest is left out, said once for each reason."""
    pairs: list[Pair] = []
    refused: dict[str, list[str]] = {}
    for row, place in wanted:
        why = dr_whole.refusal(row, place.account, place.region) if row.resource_type in WHOLE_BY_KEY else ""
        if why:
            refused.setdefault(f"{place.region}: {why}", []).append(row.source_id)
        else:
            pairs.append((row, place))
    return pairs, [f"DR of {', '.join(dict.fromkeys(ids))} to {why}" for why, ids in refused.items()]


def _rows(backup: Backup, pairs: Sequence[Pair]) -> list[Snapshot]:
    rows = []
    for pk, (source, place) in zip(new_ids(Snapshot, len(pairs)), pairs, strict=True):
        rows.append(
            Snapshot(
                id=pk,
                backup=backup,
                target_id=source.target_id,
                parent_id=source.parent_id,
                original=source,
                kind=COPY_KINDS[source.kind],
                resource_type=source.resource_type,
                account=place.account,
                account_name=place.account.name,
                aws_account_number=place.account.account_number,
                region=place.region,
                source_id=source.source_id,
                source_name=source.source_name,
                instance_id=source.instance_id,
                instance_name=source.instance_name,
                capacity=source.capacity,
                device=source.device,
                encrypted=source.encrypted,
                details={
                    **{
                        k: v
                        for k, v in source.details.items()
                        if k not in OF_THE_ORIGINAL
                    },
                    "original_snap": source.aws_id,
                    "original_aws_image_id": source.aws_id if source.kind in deletion.IMAGES else "",
                    "dr_account": place.account.name if place.account.pk != backup.account_id else "",
                },
            )
        )
    return rows


def _steps(
    backup: Backup, policy: Policy, rows: Sequence[Snapshot], grants: Sequence[Pair]
) -> list[StepSpec]:
    """Share, copy, watch and unshare for each copy; one share serves all copies of a source."""
    marks = _marks(backup, policy)
    specs: list[StepSpec] = []
    ends: dict[str, list[str]] = {}
    for row in rows:
        source = row.original
        assert source is not None and row.account is not None
        verbs = _verbs(source)
        payload = _payload(source, Destination(row.account, row.region), marks) | {"snapshot": row.pk}
        payload["tags"][tags.KIND] = row.kind
        if source.resource_type in WHOLE_BY_KEY:
            payload["tags"] |= catalogue_tags.of_whole(source)
        after: tuple[str, ...] = ()
        share = f"share-{source.pk}"
        if row.account_id != source.account_id and dr_whole.is_shared(source):
            if share not in ends:
                specs.append(StepSpec(verbs.share, payload, key=share))
                ends[share] = []
            after = (share,)
        copied, watch = f"copy-{row.pk}", f"watch-{row.pk}"
        specs.append(StepSpec(verbs.copy, payload, key=copied, after=after))
        watched = {key: payload[key] for key in ("type", "account", "region", "source_account", "source_region")}
        watched |= {"rows": [row.pk], "what": verbs.what}
        specs.append(StepSpec(verbs.watch, watched, key=watch, after=(copied,)))
        if after:
            ends[share].append(watch)
    payloads = {spec.key: spec.payload for spec in specs}
    for source, place in grants:
        payload = _payload(source, place, marks)
        specs.append(StepSpec("dr.grant_whole", payload, key=f"grant-{source.pk}-{place.account.pk}"))
    for share, watches in ends.items():
        unshare = payloads[share], f"un{share}", tuple(watches)
        kind = "dr.unshare_whole" if payloads[share]["type"] in WHOLE_BY_KEY else "dr.unshare"
        specs.append(StepSpec(kind, *unshare, run_if=RunIf.ALWAYS))
    everything = tuple(spec.key for spec in specs)
    return [*specs, StepSpec("dr.finish", key="finish", after=everything, run_if=RunIf.ALWAYS)]


@dataclass(frozen=True, slots=True)
class Verbs:
    """The step kinds that share, copy and watch a source, and whom its watching steps are polled together with."""

    share: str
    copy: str
    watch: str
    what: str


def _verbs(source: Snapshot) -> Verbs:
    if source.resource_type in WHOLE_BY_KEY:
        # Copies are asked about from both of their ends, so the source's place is a part of the group.
        what = f"{source.resource_type}-from-{source.account_id}-{source.region}"
        return Verbs("dr.share_whole", "dr.copy_whole", "dr.watch_whole", what)
    if source.kind in deletion.IMAGES:
        return Verbs("dr.share", "dr.copy_image", "dr.watch_images", "images")
    return Verbs("dr.share", "dr.copy_snapshot", "dr.watch_snapshots", "snapshots")


def _payload(source: Snapshot, place: Destination, marks: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": source.resource_type,
        "account": place.account.pk,
        "region": place.region,
        "source_account": source.account_id,
        "source_region": source.region,
        "source": source.pk,
        "tags": {**marks, tags.SOURCE: source.source_id},
    }


def _marks(backup: Backup, policy: Policy) -> dict[str, str]:
    marks = {
        tags.SERVER: str(ServerSettings.current().server_id),
        tags.POLICY: policy.name,
        tags.POLICY_ID: str(policy.pk),
        tags.BACKUP: str(backup.pk),
        tags.COUNT: str(backup.snapshots.filter(original=None, children=None).exclude(kind=SnapshotKind.S3_SYNC).count()),
    }
    if backup.account is not None:
        marks[tags.ACCOUNT] = backup.account.account_number
    return marks


def finish(context: StepContext) -> Outcome:
    """Give the record its DR status. Only complete copies let the originals go, if the policy says so."""
    backup = Backup.objects.select_related("policy", "user", "account").get(pk=context.subject_id)

    def write() -> None:
        copies = Snapshot.objects.filter(backup=backup, kind__in=COPY_KINDS.values())
        copies.filter(succeeded=None).update(
            status=SnapshotStatus.ERROR, succeeded=False, end_time=context.now, error="The copy was not made."
        )
        worked, failed = copies.filter(succeeded=True).count(), copies.exclude(succeeded=True).count()
        grants = Step.objects.filter(job_id=context.job_id, kind="dr.grant_whole")
        granted = grants.filter(state=StepState.SUCCEEDED).count()
        failed += grants.exclude(state=StepState.SUCCEEDED).count()
        words = f"{worked} DR copies made"
        words += f", {granted} snapshots shared with the DR account" if granted else ""
        words += f", {failed} failed." if failed else "."
        status = DrStatus.FAILED if failed else DrStatus.COMPLETED
        context.log(words, "Warning" if failed else "Info")
        Backup.objects.filter(pk=backup.pk).update(dr_status=status, dr_outcome=words)
        if backup.policy is not None:
            _alert(backup, backup.policy, bool(failed), words, context)
            if not failed:
                _drop_originals(backup, backup.policy)
            copy.request(context, backup.pk, aborted=context.aborted)
            if backup.slot is None and not backup.is_retry:
                retention.request(now=context.now, policy_id=backup.policy.pk)

    return Done(write=write)


def _alert(backup: Backup, policy: Policy, failed: bool, words: str, context: StepContext) -> None:
    if not failed:
        alerting.clear_alert(user=backup.user, policy=policy, category=alerting.DR_FAILED)
        return
    errors = Snapshot.objects.filter(backup=backup, kind__in=COPY_KINDS.values(), succeeded=False)
    first = errors.exclude(error="").values_list("error", flat=True).first() or ""
    alerting.raise_alert(
        user=backup.user,
        policy=policy,
        category=alerting.DR_FAILED,
        title=f"DR of policy {policy.name} failed",
        message=f"{words} {first}",
        now=context.now,
    )


def _drop_originals(backup: Backup, policy: Policy) -> None:
    """Delete the originals whose cross-account copies are complete, when only those are to be kept."""
    if policy.dr_account_id is None or policy.dr_keep_original_snapshots:
        return
    # It may have been frozen while it was copied.
    if Backup.objects.filter(pk=backup.pk, is_freezer_item=True).exists():
        return
    copied = Snapshot.objects.filter(
        backup=backup, account_id=policy.dr_account_id, succeeded=True, original__isnull=False
    ).values_list("original_id", flat=True)
    rows = list(
        backup.snapshots.filter(pk__in=copied, kind__in=COPY_KINDS)
        .filter(~Q(status=SnapshotStatus.DELETED))
        .values_list("pk", flat=True)
    )
    if rows:
        queue.create_jobs(
            [deletion.job(backup, rows)], engine_queues={k.name: k.queue for k in deletion.KINDS}
        )


def _skip(context: StepContext, why: str) -> None:
    context.log(f"DR skipped: {why}")
    Backup.objects.filter(pk=context.subject_id).update(dr_status=DrStatus.SKIPPED, dr_outcome=why)
    copy.request(context, context.subject_id)


def plan_failed(context: StepContext, message: str) -> None:
    """DR could not even be planned."""
    backup = Backup.objects.select_related("policy", "user").get(pk=context.subject_id)
    Backup.objects.filter(pk=backup.pk).update(dr_status=DrStatus.FAILED, dr_outcome=message)
    if backup.policy is not None:
        _alert(backup, backup.policy, True, message, context)
    copy.request(context, backup.pk, aborted=context.aborted)


KINDS: tuple[StepKind, ...] = (
    StepKind(
        "dr.plan",
        QUEUE,
        plan,
        failed=plan_failed,
        cancelled=lambda context: plan_failed(context, "Aborted before it began."),
    ),
    StepKind("dr.finish", QUEUE, finish),
    *dr_copy_steps.KINDS,
    *dr_whole.KINDS,
)
QUEUES = {kind.name: kind.queue for kind in KINDS}
