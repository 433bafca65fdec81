"""Cleanup on demand and at its interval: of snapshots, and of copies in S3."""

from datetime import datetime

from django.db import transaction
from django.db.models import Q

from cpm.flows.cleanup import remains, retention
from cpm.flows.s3 import cleanup as s3_cleanup
from cpm.flows.s3 import deletion, pruning
from cpm.flows.table import QUEUES
from cpm.jobs import queue
from cpm.lib.states import CleanupType
from cpm.models import Actor, Backup, Job, Policy, S3Copy, S3Repository, ServerSettings, Step
from cpm.permissions import require
from cpm.services import audit


def run_chosen(*, actor: Actor, now: datetime) -> None:
    """Start the cleanup that the settings name, of snapshots or of copies in S3."""
    if ServerSettings.current().cleanup_type == CleanupType.S3:
        run_s3(actor=actor, now=now)
    else:
        run(actor=actor, now=now)


def run(*, actor: Actor | None, now: datetime) -> Job:
    """Start a cleanup of all policies. `actor` None is the server itself, at the interval."""
    if actor is not None:
        require(actor, "settings.change")
    with transaction.atomic():
        job = retention.request(now=now)
        if actor is not None:
            audit.record(actor, "cleanup.started", job, text="Cleanup of all policies started.")
        return job


def run_s3(*, actor: Actor | None, now: datetime) -> list[Job]:
    """Start the cleanup in S3 of all policies that have copies there, and of what has no policy; repositories that nothing
    is deleted from are pruned at once, and locks extended. `actor` None is the server itself, at midnight."""
    if actor is not None:
        require(actor, "settings.change")
    with transaction.atomic():
        ServerSettings.current()
        ServerSettings.objects.filter(pk=1).update(last_s3_cleanup_time=now)
        living = S3Copy.objects.filter(status__in=remains.LIVING)
        policies = Policy.objects.filter(pk__in=living.values("backup__policy"))
        jobs = s3_cleanup.request(policies.order_by("pk"))
        jobs += _without_policy()
        for row in S3Repository.objects.select_related("account").order_by("pk"):
            upkeep = (pruning.request(row, now=now), pruning.request_locks(row))
            jobs += [job for job in upkeep if job is not None]
        if actor is not None:
            text = f"Cleanup of copies in S3 started: {len(jobs)} jobs."
            audit.record(actor, "s3_cleanup.started", ServerSettings.current(), text=text)
        return jobs


def run_s3_daily(*, now: datetime) -> bool:
    """Start the cleanup in S3 once on every date by the server's clock, whoever asks and however often; whether it was
    due."""
    due = Q(last_s3_cleanup_time=None) | Q(last_s3_cleanup_time__lt=pruning.local_midnight(now))
    with transaction.atomic():
        ServerSettings.current()
        if not ServerSettings.objects.filter(due, pk=1).update(last_s3_cleanup_time=now):
            return False
        run_s3(actor=None, now=now)
    return True


def _without_policy() -> list[Job]:
    """Deletions that are asked for and could not be done yet, of backups whose policy is gone."""
    going = deletion.going().filter(backup__policy=None).values("backup")
    open_steps = Step.objects.filter(kind=deletion.STEP, finished_at=None).values_list(
        "payload__backup", flat=True
    )
    backups = Backup.objects.filter(pk__in=going).exclude(pk__in=list(open_steps)).order_by("pk")
    return queue.create_jobs([deletion.job(backup) for backup in backups], engine_queues=QUEUES)
