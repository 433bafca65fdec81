"""`cpm cleanup`: deletes now what has outlived its policy, without waiting for the interval or for midnight."""

from typing import Annotated

import typer
from django.utils import timezone

from cpm.commands.terminal import AsUser, acting, console, guarded
from cpm.services import cleanup as services

app = typer.Typer()


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@app.command()
@guarded
def cleanup(
    s3: Annotated[bool, typer.Option("--s3", help="Clean up copies in S3 instead of snapshots.")] = False,
    user: AsUser = "",
) -> None:
    """Delete snapshots or, with --s3, copies that have outlived their policies."""
    now, actor = timezone.now(), acting(user)
    jobs = services.run_s3(actor=actor, now=now) if s3 else [services.run(actor=actor, now=now)]
    if not jobs:
        console.print("There is nothing in S3 to clean up.")
    for job in jobs:
        subject = f" of {job.subject_type} {job.subject_id}" if job.subject_id is not None else ""
        console.print(f"Job {job.pk}: {job.kind}{subject}", markup=False)
