"""Jobs as their owners see them: stopping one, and giving a failed one another try."""

from django.db import transaction
from django.db.models import Q, QuerySet

from cpm import permissions
from cpm.jobs import queue
from cpm.lib.errors import NotFound, PreconditionFailed
from cpm.lib.states import Role
from cpm.models import Actor, Job, User
from cpm.services import audit

RIGHT = "backups.change"


def visible(user: User) -> QuerySet[Job]:
    """The jobs of everybody whose backups this user sees; jobs of the server itself are root's."""
    mine = Q(user__in=permissions.owners(user))
    return Job.objects.filter(mine | Q(user=None) if user.environment.role == Role.ROOT else mine)


@transaction.atomic
def abort(*, actor: Actor, job: Job) -> None:
    """Ask a job to stop at its next boundary; what it has made is removed. Raises PreconditionFailed if it is over."""
    _require(actor, job)
    if not queue.request_abort(job.pk):
        raise PreconditionFailed("not_running", f"Job {job.pk} is over, or has been asked to stop before.")
    audit.record(actor, "job.aborted", job, text=f"Job {job.pk} ({job.kind}) asked to stop.")


@transaction.atomic
def retry(*, actor: Actor, job: Job) -> int:
    """Run the failed steps of a failed job again; returns how many. Raises PreconditionFailed for any other job."""
    _require(actor, job)
    steps = queue.retry_failed(job.pk)
    if not steps:
        raise PreconditionFailed(
            "not_failed", f"Job {job.pk} has not failed; only a failed job can be tried again."
        )
    text = f"Job {job.pk} ({job.kind}) tried again: {steps} steps."
    audit.record(actor, "job.retried", job, text=text)
    return steps


def _require(actor: Actor, job: Job) -> None:
    permissions.require(actor, RIGHT)
    if not visible(actor.user).filter(pk=job.pk).exists():
        raise NotFound("job", job.pk)
