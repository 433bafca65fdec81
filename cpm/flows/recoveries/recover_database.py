"""Recovery of a database from its copy in S3: plan -> [retrieve] -> its files into a bucket, or an empty database -> its rows.

Nothing is ever put over what is there: the database is a new one, and the place for files has to be empty.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cpm.aws.errors import AlreadyExists
from cpm.flows import polling, tags, whole
from cpm.flows.recoveries import database_password
from cpm.flows.recoveries.recover_base import (
    QUEUE,
    Place,
    account_number,
    aws,
    marks,
    not_shown,
    place_of,
    poll_group,
    recovery_of,
    refused,
    until_listed,
    warn_of_backup_tag,
)
from cpm.flows.recoveries.recover_finish import ends, plan_cancelled, plan_failed
from cpm.flows.s3 import restore_plan
from cpm.flows.s3.restore_plan import FILES, LOAD, copies_of
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec
from cpm.lib import places
from cpm.lib.states import Tier
from cpm.models import Recovery, Snapshot, Step
from cpm.resources import whole as types
from cpm.resources.rds_database import RdsDatabase
from cpm.resources.registry import WHOLE_BY_KEY
from cpm.resources.whole import Growing, Restoring

PLAN, INSTANCE = "recover.plan_s3_database", "recover.s3_database"
NAME = "database"


def plan(context: StepContext) -> Outcome:
    """Take the policy, look for the copy and for what AWS has now, and plan the steps."""
    recovery = recovery_of(context)
    if wait := restore_plan.turn(context, recovery):
        return wait
    row, request = recovery.snapshot, recovery.request
    found = copies_of(row) if row is not None else []
    if row is None or not found:
        raise refused("No copy of this database in S3 can be read.")
    target = Place(request["target_account"], request["target_region"])
    payload = {
        "copy": found[0].pk, "original": row.source_id, "index": 0, "account": target.account, "region": target.region,
    }  # fmt: skip
    make = _files if request.get("export_bucket") else _database
    specs = make(context, recovery, row, payload)
    if found[0].tier == Tier.ARCHIVE:
        specs = [*specs[:-1], *restore_plan.retrieved_first(recovery, specs[-1], 0)]
    context.log(f"Recovering {row.source_id} from S3 to {target.region}.")
    return Done(then=[*specs, *ends(specs)], write=lambda: restore_plan.shown(recovery, [found[0]]))


def _files(
    context: StepContext, recovery: Recovery, row: Snapshot, payload: dict[str, Any]
) -> list[StepSpec]:
    bucket, prefix = recovery.request["export_bucket"], recovery.request.get("export_prefix") or ""
    s3 = aws(context, place_of(payload), "s3")
    if s3.call("ListObjectsV2", Bucket=bucket, Prefix=prefix, MaxKeys=1).get("Contents"):
        raise refused(f"There are objects below s3://{bucket}/{prefix} already: choose another export_prefix.")
    step = {**payload, "name": "files", "bucket": bucket, "prefix": prefix}
    return [StepSpec(FILES, step, key="files", place=_place_of(context, payload))]


def _database(
    context: StepContext, recovery: Recovery, row: Snapshot, payload: dict[str, Any]
) -> list[StepSpec]:
    target, kind = place_of(payload), _kind()
    place = _place(context, target, row)
    problems = kind.preflight(
        lambda service: aws(context, target, service), whole.held(row), recovery.request, place
    )
    if problems:
        raise refused(" ".join(problems.values()))
    labels = tags.without_ours(row.details.get("tags") or {}) if recovery.request.get("preserve_tags", True) else {}
    warn_of_backup_tag(context, labels, f"The recovered {kind.noun}")
    where = {"account": target.account, "region": target.region, "original": row.source_id}
    return [
        StepSpec(INSTANCE, {**where, "name": NAME, "labels": labels}, key=NAME),
        StepSpec(LOAD, {**payload, "name": "rows"}, key="rows", after=(NAME,), place=_place_of(context, payload)),
    ]


def _place_of(context: StepContext, payload: Mapping[str, Any]) -> str:
    target = place_of(payload)
    return places.at(account_number(context, target.account), target.region)


def _place(context: StepContext, target: Place, row: Snapshot) -> types.Place:
    return types.Place(
        account_number(context, target.account), target.region, same_account=target.account == row.account_id
    )


def _kind() -> RdsDatabase:
    kind = WHOLE_BY_KEY[RdsDatabase.key]
    assert isinstance(kind, RdsDatabase)
    return kind


# -- an empty database ------------------------------------------------------------------------------------


def make(context: StepContext) -> Outcome:
    """Start the new database, and wait until it can be used."""
    kind = _kind()
    rds, restoring = aws(context, place_of(context.payload), "rds"), _restoring(context, context.payload, context.step_id)

    def find() -> list[str]:
        return kind.find_restored(rds, restoring, NAME)

    def create() -> str:
        try:
            return kind.make_empty(rds, restoring, database_password.given(context))
        except AlreadyExists:
            found = find()
            if not found:
                raise
            return found[0]

    id = context.once(create=create, find=find)
    return _state(context, kind.restored(rds, [id], NAME).get(id, Growing(absent=True)))


def poll(contexts: Sequence[StepContext]) -> Mapping[int, Outcome | Exception]:
    """Ask about all databases of one account and region together."""
    rds = aws(contexts[0], place_of(contexts[0].payload), "rds")
    shown = _kind().restored(rds, [context.token for context in contexts], NAME)
    absent = Growing(absent=True)
    return {context.step_id: _state(context, shown.get(context.token, absent)) for context in contexts}


def _state(context: StepContext, growing: Growing) -> Outcome:
    id, original = context.token, context.payload["original"]
    if growing.absent:
        return not_shown(context, id)
    if growing.failed:
        return Failed(f"AWS could not make the database {id} for the rows of {original}: {growing.failed}")
    if not growing.done:
        return polling.again(
            context.now, group=poll_group(context, "s3-databases"), progress=growing.progress,
            message=f"{id} is being made.",
        )  # fmt: skip
    context.log(f"The database {id} is ready for the rows of {original}.")
    return Done()


def _restoring(context: StepContext, payload: Mapping[str, Any], step_id: int) -> Restoring:
    recovery = recovery_of(context)
    row = recovery.snapshot
    if row is None:
        raise refused("The snapshot record was deleted during the recovery.")
    return Restoring(
        snapshot="",
        held=whole.held(row),
        request=recovery.request,
        place=_place(context, place_of(payload), row),
        tags=tags.with_source({**marks(context), tags.STEP: str(step_id)}, payload["labels"]),
        token="",
    )


def remove_made(context: StepContext, step: Step) -> bool:
    """Remove the database that a step has made; False while AWS is not ready for that."""
    kind, place = _kind(), place_of(step.payload)
    ids = [str(step.token)] if step.token is not None else []
    if not ids and step.intent_at is not None:
        until_listed(context, step)
        ids = kind.find_restored(aws(context, place, "rds"), _restoring(context, step.payload, step.pk), NAME)
    gone = [kind.undo(lambda service: aws(context, place, service), id, NAME, {}) for id in ids]
    if ids and all(gone):
        context.log(f"Removed the database {', '.join(ids)}: the recovery did not succeed.")
    return all(gone)


KINDS: tuple[StepKind, ...] = (
    StepKind(PLAN, QUEUE, plan, failed=plan_failed, cancelled=plan_cancelled),
    StepKind(INSTANCE, QUEUE, make, poll=poll),
)
