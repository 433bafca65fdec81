"""Starts what is due: scheduled runs, retries of failed runs, the periodic cleanup.

Any number of processes may call `run_due` at once. What keeps a run from starting twice:

1.  A policy is claimed by locking its row with SKIP LOCKED, so two planners never work on one policy at the
    same time, and an edit of a policy makes the planner pass it by until the next tick instead of waiting.
2.  Under that lock the due schedules are read again; their next moments, the backup records and the jobs are
    written in one transaction. It happens entirely or not at all.
3.  (policy, slot) is unique in the database, whatever else goes wrong.

An idle tick is one statement over partial indexes, whatever the number of policies.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog
from django.db import DataError, IntegrityError, connection, transaction
from django.utils import timezone

from cpm.lib.errors import DomainError
from cpm.lib.names import SERVER_DATA
from cpm.lib.states import BACKUP_RUNNING
from cpm.models import Actor, Backup, Policy, ServerSettings, Target
from cpm.scheduler.slots import Due, Timetable
from cpm.services import backups, cleanup

log = structlog.get_logger(__name__)

BATCH = 500
BUDGET_SECONDS = 20.0
# A policy whose run cannot even be recorded is tried again by this process after so long; it must not hold up
# all others. Its slot stays due meanwhile.
SETBACK_SECONDS = 300.0

_SPOILED = (DomainError, IntegrityError, DataError)
_set_back_until: dict[int, float] = {}

# The minimum is read off an index whatever the statistics say; EXISTS would scan the table after a storm.
ANYTHING_DUE = """
SELECT coalesce((SELECT min(next_run_at) FROM cpm_policyschedule) <= %(now)s, false),
       coalesce((SELECT min(retry_at) FROM cpm_backup) <= %(now)s, false),
       (SELECT cleanup_interval > 0 AND (last_cleanup_time IS NULL
               OR last_cleanup_time <= %(now)s - make_interval(hours => cleanup_interval))
        FROM cpm_serversettings WHERE id = 1)
"""
# Only the policy is locked here: a schedule row that we locked while its policy belongs to another planner would be
# passed by there, and the policy's two schedules would be judged apart.
_CLAIM_POLICIES = """
SELECT p.id FROM cpm_policyschedule s JOIN cpm_policy p ON p.id = s.policy_id
WHERE s.next_run_at <= %(now)s AND NOT p.id = ANY(%(passed_by)s)
ORDER BY s.next_run_at LIMIT %(limit)s FOR NO KEY UPDATE OF p SKIP LOCKED
"""
# A statement of its own, since it must see what another planner committed before it gave up the policy.
_CLAIM_SCHEDULES = """
SELECT id, policy_id, schedule_id, next_run_at FROM cpm_policyschedule
WHERE policy_id = ANY(%(policies)s) AND next_run_at <= %(now)s FOR NO KEY UPDATE SKIP LOCKED
"""
_SET_NEXT = """
UPDATE cpm_policyschedule s SET next_run_at = v.next_run_at
FROM unnest(%s::bigint[], %s::timestamptz[]) AS v(id, next_run_at) WHERE s.id = v.id
"""
_ADD_MISSED = """
UPDATE cpm_policy p SET missed_runs = p.missed_runs + v.missed
FROM unnest(%s::bigint[], %s::int[]) AS v(id, missed) WHERE p.id = v.id
"""
# The retry of a deleted policy's backup is nobody's business any more.
_CLAIM_RETRIES = """
WITH orphans AS (
    UPDATE cpm_backup SET retry_at = NULL, retry_scheduled = false
    WHERE retry_at <= %(now)s AND policy_id IS NULL
)
SELECT b.id, b.policy_id FROM cpm_backup b JOIN cpm_policy p ON p.id = b.policy_id
WHERE b.retry_at <= %(now)s AND NOT p.id = ANY(%(passed_by)s)
ORDER BY b.retry_at LIMIT %(limit)s FOR NO KEY UPDATE OF b, p SKIP LOCKED
"""
_CLEAR_RETRIES = """
UPDATE cpm_backup SET retry_at = NULL, retry_scheduled = false
WHERE id = ANY(%s) AND retry_at <= %s RETURNING id
"""
# A run with a higher id is a later one: scheduled, manual, or a retry that somebody else has started.
_SUPERSEDED = """
SELECT b.id FROM cpm_backup b WHERE b.id = ANY(%s)
AND EXISTS (SELECT FROM cpm_backup later WHERE later.policy_id = b.policy_id AND later.id > b.id
            AND later.start_time >= b.start_time)
"""
_CLAIM_CLEANUP = """
UPDATE cpm_serversettings SET last_cleanup_time = %(now)s
WHERE id = 1 AND cleanup_interval > 0 AND (last_cleanup_time IS NULL
      OR last_cleanup_time <= %(now)s - make_interval(hours => cleanup_interval))
"""


class Start(Protocol):
    """Records runs and queues their jobs in the caller's transaction; a slot that is taken is left out."""

    def __call__(self, *, runs: Sequence[backups.Run], now: datetime) -> Sequence[Backup]: ...


class Clean(Protocol):
    """Queues the jobs of a cleanup in the caller's transaction; without an actor the server itself asks."""

    def __call__(self, *, actor: Actor | None, now: datetime) -> object: ...


@dataclass(slots=True)
class PlannerResult:
    """What one tick did, in numbers of runs. `missed` counts slots that passed without a backup."""

    started: int = 0
    retries: int = 0
    dropped: int = 0
    skipped: int = 0
    missed: int = 0
    failed: int = 0
    cleanup: bool = False


def run_due(
    *,
    now: datetime | None = None,
    limit: int = BATCH,
    budget: float = BUDGET_SECONDS,
    start: Start | None = None,
    clean: Clean | None = None,
) -> PlannerResult:
    """One tick. Works in transactions of `limit` policies until nothing is due or `budget` seconds are over.

    After downtime a policy runs once, for its newest due slot; older ones are counted as missed. A policy
    that still backs up drops the run. Retries give way to any later run of their policy.
    """
    moment = now or timezone.now()
    result = PlannerResult()
    with connection.cursor() as cursor:
        cursor.execute(ANYTHING_DUE, {"now": moment})
        runs_due, retries_due, cleanup_due = cursor.fetchone()
    ends = time.monotonic() + budget
    tick = _Tick(moment, limit, start or backups.start_many, result, Timetable(moment))
    # Runs go first: a retry must find the scheduled run that replaces it.
    if runs_due:
        _repeat(_start_scheduled, tick, ends)
    if retries_due:
        _repeat(_start_retries, tick, ends)
    if cleanup_due or cleanup_due is None:
        result.cleanup = _clean_up(moment, clean or cleanup.run)
    return result


@dataclass(frozen=True, slots=True)
class _Tick:
    now: datetime
    limit: int
    start: Start
    result: PlannerResult
    timetable: Timetable


# Claims and starts up to so many policies, passing by those given; answers whom it has claimed.
Claimant = Callable[[_Tick, int, set[int]], list[int]]


def _repeat(claimant: Claimant, tick: _Tick, ends: float) -> None:
    """Claim batch after batch; a batch with a spoiled policy in it is done again one policy at a time."""
    passed_by = _set_back(time.monotonic())
    one_by_one = 0
    while True:
        size = 1 if one_by_one else tick.limit
        claimed: list[int] = []
        try:
            with transaction.atomic():
                claimed = claimant(tick, size, passed_by)
        except _Spoiled as spoiled:
            if size > 1 and len(spoiled.policies) > 1:
                one_by_one = len(spoiled.policies)
                continue
            log.exception("run could not be started", policies=spoiled.policies)
            tick.result.failed += 1
            passed_by.update(spoiled.policies)
            until = time.monotonic() + SETBACK_SECONDS
            _set_back_until.update(dict.fromkeys(spoiled.policies, until))
        else:
            if not claimed:
                return
        one_by_one = max(0, one_by_one - 1)
        if time.monotonic() > ends:
            log.warning("planner stopped at its time budget", started=tick.result.started)
            return


def _set_back(clock: float) -> set[int]:
    for policy_id in [key for key, until in _set_back_until.items() if until <= clock]:
        del _set_back_until[policy_id]
    return set(_set_back_until)


class _Spoiled(Exception):
    """Starting the runs of `policies` was refused; carries the ids out of the rolled-back transaction."""

    def __init__(self, policies: list[int]) -> None:
        self.policies = policies
        super().__init__(policies)


def _start_scheduled(tick: _Tick, limit: int, passed_by: set[int]) -> list[int]:
    now, result = tick.now, tick.result
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM_POLICIES, {"now": now, "limit": limit, "passed_by": list(passed_by)})
        claimed = sorted({row[0] for row in cursor.fetchall()})
        if not claimed:
            return []
        cursor.execute(_CLAIM_SCHEDULES, {"now": now, "policies": claimed})
        rows = [Due(*row) for row in cursor.fetchall()]
    # Another planner was faster, or somebody edits the schedules: the next tick will see.
    passed_by.update(set(claimed) - {row.policy_id for row in rows})
    if not rows:
        return claimed
    tick.timetable.refresh(rows)
    plan = _Plan(rows, tick.timetable)
    policies = _policies(plan.slots)
    unfit = _unfit(policies)
    busy = _busy(plan.slots)
    runs = [
        backups.Run(policy=policies[policy_id], slot=slot)
        for policy_id, slot in plan.slots.items()
        if policy_id not in unfit and policy_id not in busy
    ]
    started = _launch(tick, runs, claimed)
    dropped = busy - unfit
    missed = {key: plan.older[key] + (key in dropped) for key in plan.slots if key not in unfit}
    _record(rows, tick.timetable, missed)
    for key in sorted(dropped):
        log.warning("run dropped, the policy is still backing up", policy=key, slot=plan.slots[key])
    result.started += started
    result.dropped += len(dropped)
    result.skipped += len(unfit)
    result.missed += sum(missed.values())
    return claimed


class _Plan:
    """The newest due slot of each policy, and how many older ones passed by."""

    def __init__(self, rows: Sequence[Due], timetable: Timetable) -> None:
        moments: dict[int, set[datetime]] = defaultdict(set)
        for row in rows:
            moments[row.policy_id].update(timetable.passed(row))
        self.slots = {policy_id: max(found) for policy_id, found in moments.items() if found}
        self.older = {policy_id: len(moments[policy_id]) - 1 for policy_id in self.slots}


def _policies(ids: Collection[int]) -> dict[int, Policy]:
    """With accounts and users, of which there are few: prefetching makes one object of each, a join one per row."""
    rows = Policy.objects.only("user", "account", "name", "enabled", "number_of_retries")
    return rows.prefetch_related("account", "user").in_bulk(ids)


def _unfit(policies: Mapping[int, Policy]) -> set[int]:
    """Policies that do not run on schedule: switched off, or nothing to protect."""
    targets = Target.objects.filter(policy_id__in=list(policies)).values_list("policy_id", flat=True)
    protecting = set(targets.distinct())
    # The server's own data needs no targets.
    protecting |= {key for key, policy in policies.items() if policy.name == SERVER_DATA}
    return {key for key, policy in policies.items() if not policy.enabled or key not in protecting}


def _busy(policies: Collection[int]) -> set[int]:
    running = Backup.objects.filter(policy_id__in=list(policies), status__in=list(BACKUP_RUNNING))
    return set(running.values_list("policy_id", flat=True))


def _launch(tick: _Tick, runs: Sequence[backups.Run], policies: list[int]) -> int:
    if not runs:
        return 0
    try:
        return len(tick.start(runs=runs, now=tick.now))
    except _SPOILED as error:
        raise _Spoiled(policies) from error


def _record(rows: Sequence[Due], timetable: Timetable, missed: Mapping[int, int]) -> None:
    counted = {key: number for key, number in missed.items() if number}
    with connection.cursor() as cursor:
        cursor.execute(_SET_NEXT, [[row.id for row in rows], [timetable.following(row) for row in rows]])
        if counted:
            cursor.execute(_ADD_MISSED, [list(counted), list(counted.values())])


def _start_retries(tick: _Tick, limit: int, passed_by: set[int]) -> list[int]:
    now, result = tick.now, tick.result
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM_RETRIES, {"now": now, "limit": limit, "passed_by": list(passed_by)})
        rows = cursor.fetchall()
        if not rows:
            return []
        claimed = sorted({row[1] for row in rows})
        # A retry waits until the policy is idle; that run then decides whether it is still needed.
        busy = _busy(claimed)
        passed_by.update(busy)
        ids = [row[0] for row in rows if row[1] not in busy]
        cursor.execute(_SUPERSEDED, [ids])
        superseded = {row[0] for row in cursor.fetchall()}
        cursor.execute(_CLEAR_RETRIES, [ids, now])
        cleared = {row[0] for row in cursor.fetchall()}
    runs = _retry_runs(cleared - superseded, claimed)
    result.retries += _launch(tick, runs, claimed)
    result.skipped += len(cleared) - len(runs)
    return claimed


def _retry_runs(ids: Collection[int], policy_ids: Collection[int]) -> list[backups.Run]:
    policies = _policies(policy_ids)
    unfit = _unfit(policies)
    runs: dict[int, backups.Run] = {}
    for backup in Backup.objects.filter(id__in=ids).order_by("id"):
        policy = policies.get(backup.policy_id or 0)
        if policy is not None and policy.pk not in unfit and backup.attempt < policy.number_of_retries:
            runs[policy.pk] = backups.Run(policy=policy, slot=None, retry_of=backup)
    return list(runs.values())


def _clean_up(now: datetime, clean: Clean) -> bool:
    """Start the periodic cleanup unless another planner has; its jobs and the time are written together."""
    with transaction.atomic():
        # The settings are made on first use, and the first use may be this one.
        ServerSettings.objects.bulk_create([ServerSettings(id=1)], ignore_conflicts=True)
        with connection.cursor() as cursor:
            cursor.execute(_CLAIM_CLEANUP, {"now": now})
            if not cursor.rowcount:
                return False
        clean(actor=None, now=now)
    return True
