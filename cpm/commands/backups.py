"""`cpm backups`: the latest backups."""

from typing import Annotated

import typer

from cpm import permissions
from cpm.commands import pictures
from cpm.commands.terminal import AsUser, acting, guarded, show_table
from cpm.lib.states import BackupStatus
from cpm.models import Backup

app = typer.Typer()


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@app.command()
@guarded
def backups(
    policy: Annotated[str, typer.Option(help="Only those of the policy with this name.")] = "",
    status: Annotated[str, typer.Option(help="Only those with this status: a letter or its name.")] = "",
    limit: Annotated[int, typer.Option(help="How many to show.", min=1, max=10_000)] = 20,
    user: AsUser = "",
) -> None:
    """The latest backups, newest first."""
    wanted = _status(status) if status else None
    rows = permissions.visible(acting(user).user, Backup.objects.all(), "backups.read")
    if policy:
        rows = rows.filter(policy_name=policy)
    if wanted:
        rows = rows.filter(status=wanted)
    show_table(
        "Backups",
        ["ID", "Policy", "Account", "Started", "Took", "Status", "DR", "S3", "Archive", "Outcome"],
        [
            [
                row.pk, row.policy_name, row.account_name, row.start_time,
                row.end_time - row.start_time if row.end_time else None,
                row.get_status_display(), row.get_dr_status_display(), *pictures.s3_words(row), row.outcome,
            ]
            for row in rows.order_by("-start_time", "-id")[:limit]
        ],
    )  # fmt: skip


def _status(text: str) -> BackupStatus:
    for status in BackupStatus:
        if text.upper() == status.value or text.lower().replace("-", "_") in {
            status.name.lower(),
            status.label.lower(),
        }:
            return status
    known = ", ".join(f"{status.value} ({status.name.lower()})" for status in BackupStatus)
    raise typer.BadParameter(f"{text!r} is not a status; use one of {known}.", param_hint="--status")
