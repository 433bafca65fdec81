"""Backup records: starting and stopping runs. Deleting and freezing them is in `backup_deletion` and `freezer`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from cpm.flows.backups import backup as backup_flow
from cpm.flows.dr import dr_copy
from cpm.flows.table import QUEUES
from cpm.jobs import queue
from cpm.jobs.states import FINAL_JOB_STATES
from cpm.lib.errors import PreconditionFailed
from cpm.lib.states import BACKUP_RUNNING
from cpm.models import Actor, Backup, Job, Policy, bulk
from cpm.models.base import new_ids
from cpm.permissions import require
from cpm.services import audit


@dataclass(frozen=True, slots=True)
class Run:
    """A run to be started. `slot` is the scheduled moment (None: asked for by somebody)."""

    policy: Policy
    slot: datetime | None = None
    retry_of: Backup | None = None


def start(*, actor: Actor, policy: Policy, now: datetime) -> Backup:
    """Run a policy now; the record's `tracker_id` finds it again.

    Raises PreconditionFailed for a disabled policy and while a run of it is going on.
    """
    require(actor, "policies.run")
    if not policy.enabled:
        raise PreconditionFailed("policy_disabled", f"Policy {policy.name} is disabled. Enable it first.")
    with transaction.atomic():
        # The planner passes by a locked policy until its next tick, so the two cannot start a run each.
        Policy.objects.select_for_update(no_key=True).get(pk=policy.pk)
        if Backup.objects.filter(policy=policy, status__in=BACKUP_RUNNING).exists():
            raise PreconditionFailed(
                "backup_running", f"A backup of policy {policy.name} is running. Wait for it, or abort it."
            )
        backup = start_many(runs=[Run(policy)], now=now)[0]
        audit.record(actor, "backup.started", backup, text=f"Backup {backup.pk} of policy “{policy.name}” started.")
        return backup


def start_many(*, runs: Sequence[Run], now: datetime) -> list[Backup]:
    """Create the records and jobs of these runs in a few statements; policies need their account and user loaded.

    A slot that has been started already is left alone: its run is not in the answer.
    """
    ids = new_ids(Backup, len(runs))
    records = [_record(pk, run, now) for pk, run in zip(ids, runs, strict=True)]
    with transaction.atomic():
        made = bulk.insert(records, ignore_conflicts=True)
        started = [record for record in records if record.pk in made]
        queue.create_jobs([backup_flow.job(record) for record in started], engine_queues=QUEUES)
    return started


def _record(pk: int, run: Run, now: datetime) -> Backup:
    policy = run.policy
    return Backup(
        pk=pk,
        user_id=policy.user_id,
        account_id=policy.account_id,
        policy_id=policy.pk,
        policy_name=policy.name,
        account_name=policy.account.name,
        tracker_id=pk,
        slot=run.slot,
        start_time=now,
        is_retry=run.retry_of is not None,
        retry_of=run.retry_of,
        attempt=run.retry_of.attempt + 1 if run.retry_of else 0,
    )


def abort(*, actor: Actor, backup: Backup) -> None:
    """Stop a running backup or its DR; snapshots that are not complete are removed.

    Raises PreconditionFailed if nothing of it is running.
    """
    require(actor, "backups.change")
    jobs = Job.objects.filter(
        subject_type=backup_flow.SUBJECT, subject_id=backup.pk, kind__in=[backup_flow.KIND, dr_copy.KIND]
    ).exclude(state__in=FINAL_JOB_STATES)
    with transaction.atomic():
        stopped = [queue.request_abort(job.pk) for job in jobs]
        if not any(stopped):
            raise PreconditionFailed("not_running", "Nothing of this backup is running.")
        text = f"Backup {backup.pk} of policy “{backup.policy_name}” asked to stop."
        audit.record(actor, "backup.aborted", backup, text=text)
