"""`cpm jobs`: what is going on, and stopping it."""

from typing import Annotated

import typer
from django.db.models import Count

from cpm.commands import pictures
from cpm.commands.terminal import AsUser, acting, console, failed, guarded, show_table, watch
from cpm.lib.states import JobState
from cpm.models import Actor, Job, LogLine
from cpm.services import jobs as service

app = typer.Typer()
jobs = typer.Typer(invoke_without_command=True)
app.add_typer(jobs, name="jobs")

JobId = Annotated[int, typer.Argument(help="Id of the job.")]
LOG_LINES = 200


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@jobs.callback()
@guarded
def list_jobs(
    context: typer.Context,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    follow: Annotated[int | None, typer.Option(help="Show this job's progress until it is over.")] = None,
    limit: Annotated[int, typer.Option(help="How many to show.", min=1, max=10_000)] = 20,
    user: AsUser = "",
) -> None:
    """The latest jobs; also show, abort and retry one."""
    if context.invoked_subcommand:
        return
    actor = acting(user)
    if follow is not None:
        job = _find(actor, follow)
        watch(lambda: pictures.of_job(job.pk))
        return
    rows = service.visible(actor.user).annotate(n_steps=Count("steps")).select_related("user")
    rows = rows.filter(state=state) if state else rows
    show_table(
        "Jobs",
        ["ID", "Kind", "Of", "User", "State", "Steps open", "Created", "Finished"],
        [
            [
                row.pk, row.kind, f"{row.subject_type} {row.subject_id or ''}", row.user.username if row.user else "",
                row.state, f"{row.open_steps} of {row.n_steps}", row.created_at, row.finished_at,
            ]
            for row in rows.order_by("-id")[:limit]
        ],
    )  # fmt: skip


@jobs.command()
@guarded
def show(job_id: JobId, user: AsUser = "") -> None:
    """The steps and the log of a job."""
    job = _find(acting(user), job_id)
    console.print(
        f"Job {job.pk}: {job.kind} of {job.subject_type} {job.subject_id}, {job.state}", markup=False
    )
    show_table(
        "Steps",
        ["ID", "Kind", "Queue", "State", "%", "Attempts", "Owner", "Message"],
        [
            [s.pk, s.kind, s.queue, s.state, s.progress, s.attempts, s.lease_owner, s.message]
            for s in job.steps.order_by("id")
        ],
    )
    lines = LogLine.objects.filter(subject_type=job.subject_type, subject_id=job.subject_id)
    newest = list(lines.order_by("-id")[:LOG_LINES])
    show_table("Log", ["Time", "Level", "Message"], [[x.time, x.level, x.message] for x in reversed(newest)])


@jobs.command()
@guarded
def abort(job_id: JobId, user: AsUser = "") -> None:
    """Ask a job to stop; what it has made is removed."""
    actor = acting(user)
    service.abort(actor=actor, job=_find(actor, job_id))
    console.print(f"Job {job_id} has been asked to stop.")


@jobs.command()
@guarded
def retry(job_id: JobId, user: AsUser = "") -> None:
    """Run the failed steps of a failed job again."""
    actor = acting(user)
    steps = service.retry(actor=actor, job=_find(actor, job_id))
    console.print(f"{steps} steps of job {job_id} run again.")


def _find(actor: Actor, job_id: int) -> Job:
    job = service.visible(actor.user).filter(pk=job_id).first()
    if job is None:
        raise failed(f"There is no job {job_id}.")
    return job
