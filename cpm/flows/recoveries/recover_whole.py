"""Recovery of what AWS snapshots as a whole: plan -> [share] -> [copy] -> the stages of the type -> clean -> finish.

The plan looks again at what AWS has now and refuses what cannot work, before anything is made. A stage starts something
and is asked about until it is ready; those of one type, account and region are asked about together.
"""

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from cpm.aws.errors import AlreadyExists, InUse, InvalidState, LimitReached, NotFound
from cpm.aws.gateway import AwsClient
from cpm.flows import polling, tags, whole
from cpm.flows.dr import dr_keys
from cpm.flows.recoveries import recover_share
from cpm.flows.recoveries.recover_base import (
    QUEUE,
    SUBJECT,
    Place,
    account_number,
    aws,
    made,
    marks,
    not_shown,
    place_of,
    poll_group,
    recovery_of,
    refused,
    server_id,
    step_named,
    until_listed,
    warn_of_backup_tag,
)
from cpm.flows.recoveries.recover_finish import ends, plan_cancelled, plan_failed
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec
from cpm.lib.states import KeyDetection, RecoveryStatus, SnapshotStatus
from cpm.models import Account, Recovery, ServerSettings, Snapshot, Step
from cpm.resources import whole as types
from cpm.resources.registry import WHOLE_BY_KEY
from cpm.resources.whole import Growing, Making, Restoring, Sides, WholeResource

COPY = "copy"
# What was just made may be busy with itself for a while before the next stage can be done to it.
LONGEST_BUSY = timedelta(minutes=30)


def plan(context: StepContext) -> Outcome:
    """Look at what AWS has now, refuse what cannot work, and plan the steps. Nothing has been made so far."""
    recovery = recovery_of(context)
    row, request = recovery.snapshot, recovery.request
    if row is None or row.account_id is None:
        raise refused("The snapshot record or its account was deleted before the recovery began.")
    kind, source = whole.type_of(row), Place(row.account_id, row.region)
    target = Place(request["target_account"], request["target_region"])
    shown = kind.snapshots(aws(context, source, kind.snapshots_in), [whole.held(row)]).get(row.aws_id)
    if shown is None or shown.state is not SnapshotStatus.COMPLETED:
        raise refused(f"AWS has no complete snapshot {row.aws_id} of {row.source_id} any more.")
    place = _place(context, target, source)
    _alone(recovery, kind, place)
    problems = kind.preflight(lambda service: aws(context, target, service), whole.held(row), request, place)
    if problems:
        raise refused(" ".join(problems.values()))
    specs, snapshot = _reach(context, kind, row, source, target)
    labels = tags.without_ours(row.details.get("tags") or {}) if request.get("preserve_tags", True) else {}
    warn_of_backup_tag(context, labels, f"The recovered {kind.noun}")
    after = tuple(spec.key for spec in specs)
    for stage in kind.stages:
        payload = _payload(kind, row, target) | {"name": stage, "stage": stage, "snapshot": snapshot, "labels": labels}
        specs.append(StepSpec("recover.whole", payload, key=stage, after=after))
        after = (stage,)
    context.log(f"Recovering {row.source_id} from {row.aws_id} to {target.region}.")
    return Done(then=[*specs, *ends(specs)])


def _alone(recovery: Recovery, kind: WholeResource, place: types.Place) -> None:
    """Refuse a name that another recovery is about to use there: not every service tells whose such a resource is, so that
    each would take it for its own, and one that is aborted would remove the other's. The one with the lower id goes on,
    unless the other has its steps already."""
    names = [one.name for one in kind.recover_takes if one.required]
    accounts = Account.objects.filter(account_number=place.account_number).values_list("pk", flat=True)
    others = Recovery.objects.filter(
        status=RecoveryStatus.IN_PROGRESS,
        snapshot__resource_type=kind.key,
        request__target_account__in=[*accounts, recovery.request["target_account"]],
        request__target_region=place.region,
    ).exclude(pk=recovery.pk)
    for other in others.order_by("pk"):
        taken = [str(recovery.request.get(name) or "").lower() for name in names]
        used = {str(other.request.get(name) or "").lower() for name in names} & set(filter(None, taken))
        steps = Step.objects.filter(kind="recover.whole", job__subject_type=SUBJECT, job__subject_id=other.pk)
        if used and (other.pk < recovery.pk or steps.exists()):
            raise refused(f"The recovery {other.pk} is making {', '.join(sorted(used))} in {place.region}; choose another name.")


def _reach(
    context: StepContext, kind: WholeResource, row: Snapshot, source: Place, target: Place
) -> tuple[list[StepSpec], dict[str, str]]:
    """Steps that make the snapshot usable at the target, and where its id will be found."""
    if source == target:
        return [], {"id": row.aws_id}
    held = whole.held(row)
    share = recover_share.step(context, row, source, target, [row.aws_id])
    if not kind.needs_copy(held, _place(context, target, source)):
        return [share], {"id": kind.shared_id(held)}
    payload = _payload(kind, row, target) | {
        "name": COPY,
        "source": {"account": source.account, "region": source.region},
        "key": _key(context, kind, row, source, target),
    }
    return [share, StepSpec("recover.whole_copy", payload, key=COPY, after=(share.key,))], {"step": COPY}


def _payload(kind: WholeResource, row: Snapshot, target: Place) -> dict[str, Any]:
    return {"type": kind.key, "account": target.account, "region": target.region, "original": row.source_id}


def _place(context: StepContext, target: Place, source: Place) -> types.Place:
    return types.Place(
        account_number(context, target.account), target.region, same_account=target.account == source.account
    )


def _key(context: StepContext, kind: WholeResource, row: Snapshot, source: Place, target: Place) -> str:
    """The KMS key of the temporary copy; empty for what is not encrypted."""
    if not row.encrypted or not row.details.get("kms_key_id"):
        return ""
    try:
        choice = dr_keys.choose(
            source_kms=aws(context, source, "kms"),
            target_kms=aws(context, target, "kms"),
            key_id=row.details["kms_key_id"],
            default_alias=kind.default_key_alias,
            cross_account=source.account != target.account,
            detection=KeyDetection(ServerSettings.current().encryption_key_detection),
        )
    except dr_keys.NoKey as error:
        raise refused(f"{row.aws_id} of {row.source_id}: {error}") from None
    if choice.fallback:
        context.warn(f"No key in {target.region} matches that of {row.aws_id}: the default key is used.")
    return choice.key_id or kind.default_key_alias


def copy(context: StepContext) -> Outcome:
    """Copy the shared snapshot into the account to recover to, and wait until the copy is complete."""
    kind, row = _kind(context.payload), _row(context)
    place = _place(context, place_of(context.payload), place_of(context.payload["source"]))
    sides = _sides(context, context.payload)
    making = _making(context, row, place, context.step_id, context.lease.started_at)

    def create() -> str:
        try:
            return kind.copy(sides, whole.held(row), making, place, context.payload["key"])
        except AlreadyExists:
            found = kind.find_copies(sides, whole.held(row), making)
            if not found:
                raise
            return found[0]

    try:
        copied = context.once(create=create, find=lambda: kind.find_copies(sides, whole.held(row), making))
    except LimitReached as error:
        if not error.transient:
            raise
        context.forget_intent()
        return polling.again(context.now, message="Waiting: AWS is copying as many snapshots as it allows.")
    shown = kind.copies(sides, [dataclasses.replace(whole.held(row), aws_id=copied)]).get(copied)
    if shown is None:
        return not_shown(context, copied)
    if shown.state is SnapshotStatus.ERROR:
        return Failed(f"The copy {copied} of {row.aws_id} failed: {shown.reason or 'AWS gives no reason'}.")
    if shown.state is SnapshotStatus.PENDING:
        return polling.again(context.now, progress=shown.progress, message=f"Copying {row.aws_id}.")
    return Done()


def restore(context: StepContext) -> Outcome:
    """Start what this stage makes, and wait until it can be used."""
    kind, stage = _kind(context.payload), context.payload["stage"]
    client = aws(context, place_of(context.payload), kind.service_of(stage))
    restoring = _restoring(context, context.payload, context.step_id, context.lease.started_at)

    def find() -> list[str]:
        return kind.find_restored(client, restoring, stage)

    def create() -> str:
        try:
            return kind.restore(client, restoring, stage)
        except (AlreadyExists, InUse):
            found = find()
            if not found:
                raise
            return found[0]

    try:
        id = context.once(create=create, find=find)
    except InvalidState as error:
        if not restoring.earlier or context.now - context.lease.started_at > LONGEST_BUSY:
            raise
        context.forget_intent()
        return polling.again(context.now, message=f"Waiting for AWS: {error.message}")
    return _state(context, kind.restored(client, [id], stage).get(id, Growing(absent=True)))


def poll(contexts: Sequence[StepContext]) -> Mapping[int, Outcome | Exception]:
    """Ask about all that is being restored of one type and stage in one account and region together."""
    kind, stage = _kind(contexts[0].payload), contexts[0].payload["stage"]
    client = aws(contexts[0], place_of(contexts[0].payload), kind.service_of(stage))
    shown = kind.restored(client, [context.token for context in contexts], stage)
    absent = Growing(absent=True)
    return {context.step_id: _state(context, shown.get(context.token, absent)) for context in contexts}


def _state(context: StepContext, growing: Growing) -> Outcome:
    id, original, stage = context.token, context.payload["original"], context.payload["stage"]
    if growing.absent:
        return not_shown(context, id)
    if growing.id and (context.cursor or {}).get("id") != growing.id:
        context.save_cursor({**(context.cursor or {}), "id": growing.id})
    if growing.failed:
        return Failed(f"AWS could not make the {stage} {id} from the snapshot of {original}: {growing.failed}")
    if not growing.done:
        group = poll_group(context, f"{context.payload['type']}-{stage}")
        return polling.again(context.now, group=group, progress=growing.progress, message=f"{id} is being made.")
    context.log(f"The {stage} {growing.id or id} is ready, made from the snapshot of {original}.")
    return Done()


def remove_made(context: StepContext, step: Step) -> bool:
    """Remove what a stage has made; False while AWS is not ready for that. Raises NotYet until AWS surely shows it."""
    kind, stage, place = _kind(step.payload), step.payload["stage"], place_of(step.payload)
    request = recovery_of(context).request
    ids = [(step.cursor or {}).get("id") or step.token] if step.token is not None else []
    if not ids and step.intent_at is not None:
        until_listed(context, step)
        client = aws(context, place, kind.service_of(stage))
        ids = kind.find_restored(client, _restoring(context, step.payload, step.pk, step.started_at), stage)
    staying = {str(id): kind.stays(str(id), stage, request) for id in ids}
    for words in filter(None, staying.values()):
        context.warn(words)
    unwanted = [id for id, words in staying.items() if not words]
    gone = [kind.undo(lambda service: aws(context, place, service), id, stage, request) for id in unwanted]
    if unwanted and all(gone):
        context.log(f"Removed the {stage} {', '.join(unwanted)}: the recovery did not succeed.")
    return all(gone)


def remove_copy(context: StepContext, step: Step) -> bool:
    """Delete the temporary copy of a snapshot; False while AWS is not ready for that. Raises NotYet until AWS surely shows
    one whose making was interrupted."""
    kind, row, sides = _kind(step.payload), _row(context), _sides(context, step.payload)
    ids = [str(step.token)] if step.token is not None else []
    if not ids and step.intent_at is not None:
        until_listed(context, step)
        place = _place(context, place_of(step.payload), place_of(step.payload["source"]))
        ids = kind.find_copies(sides, whole.held(row), _making(context, row, place, step.pk, step.started_at))
    for id in ids:
        try:
            kind.cancel_copy(sides, dataclasses.replace(whole.held(row), aws_id=id))
        except NotFound:
            continue
        except (InvalidState, InUse):
            return False
        context.log(f"Deleted the temporary copy {id}.")
    return True


def _restoring(
    context: StepContext, payload: Mapping[str, Any], step_id: int, since: datetime | None
) -> Restoring:
    kind, recovery, row = _kind(payload), recovery_of(context), _row(context)
    assert row.account_id is not None
    snapshot = payload["snapshot"].get("id") or made(context, payload["snapshot"]["step"])
    earlier = {stage: _came_of(context, stage) for stage in kind.stages[: kind.stages.index(payload["stage"])]}
    return Restoring(
        snapshot=str(snapshot),
        held=whole.held(row),
        request=recovery.request,
        place=_place(context, place_of(payload), Place(row.account_id, row.region)),
        tags=tags.with_source({**marks(context), tags.STEP: str(step_id)}, payload["labels"]),
        token=str(uuid.uuid5(server_id(), f"step {step_id}")),
        earlier=earlier,
        since=since,
    )


def _came_of(context: StepContext, stage: str) -> Any:
    """The id of what a stage has made, which its restoring call may not have known yet."""
    step = step_named(context, stage)
    return ((step.cursor or {}).get("id") or step.token) if step else None


def _making(
    context: StepContext, row: Snapshot, place: types.Place, step_id: int, since: datetime | None
) -> Making:
    return Making(
        resource_id=row.source_id,
        name=f"cpm-{server_id().hex[:8]}-recovery-{context.subject_id}-{step_id}",
        token=str(uuid.uuid5(server_id(), f"step {step_id}")),
        tags={**marks(context), tags.STEP: str(step_id)},
        since=since or context.now,
        place=place,
        details=row.details,
    )


def _kind(payload: Mapping[str, Any]) -> WholeResource:
    return WHOLE_BY_KEY[payload["type"]]


def _row(context: StepContext) -> Snapshot:
    row = recovery_of(context).snapshot
    if row is None:
        raise refused("The snapshot record was deleted during the recovery.")
    return row


def _sides(context: StepContext, payload: Mapping[str, Any]) -> Sides:
    kind = _kind(payload)

    def client(side: Mapping[str, Any]) -> AwsClient:
        return aws(context, place_of(side), kind.snapshots_in)

    return Sides(client(payload["source"]), client(payload))


KINDS = (
    StepKind("recover.plan_whole", QUEUE, plan, failed=plan_failed, cancelled=plan_cancelled),
    StepKind("recover.whole_copy", QUEUE, copy),
    StepKind("recover.whole", QUEUE, restore, poll=poll),
)
