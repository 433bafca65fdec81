"""`cpm audit`: who changed what, and whether the log of it is as it was written."""

from datetime import datetime
from typing import Annotated

import typer
from django.utils import timezone

from cpm import permissions
from cpm.commands.terminal import AsUser, acting, console, failed, guarded, show_table
from cpm.models import AuditRecord
from cpm.services import audit_verification
from cpm.services.audit_chain import FIRST, ChainKeyMissing

app = typer.Typer()
audit = typer.Typer(no_args_is_help=True, help="Read the audit log, and check that nobody has altered it.")
app.add_typer(audit, name="audit")

TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"]


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@audit.command()
@guarded
def verify(
    head: Annotated[
        str, typer.Option(help="A head that an earlier check printed: the log must still contain it.")
    ] = "",
    user: AsUser = "",
) -> None:
    """Check the whole log; name the first record or seal that is not as it was written.

    Keep the head that is printed outside this server: it alone shows later that the end of the log was not cut off.
    Exit code 1 means damage.
    """
    permissions.require(acting(user), "audit.read")
    try:
        found = audit_verification.verify(head=head.strip().lower())
    except ChainKeyMissing as error:
        raise failed(str(error)) from error
    if found.damage:
        raise failed(f"The audit log was tampered with. {found.damage}")
    console.print(f"{found.records} records in {found.seals} seals are as they were written.", markup=False)
    if found.purged_seals:
        console.print(
            f"{found.purged_records} records in {found.purged_seals} older seals were removed by retention.",
            markup=False,
        )
    if found.unsealed:
        console.print(f"{found.unsealed} records are not sealed yet.", markup=False)
    if found.head != FIRST:
        typer.echo(f"Head: {found.head}")


@audit.command("list")
@guarded
def list_records(
    by: Annotated[str, typer.Option(help="Only what the user with this name did.")] = "",
    event: Annotated[str, typer.Option(help="Only events that begin so: policy, or policy.created.")] = "",
    search: Annotated[str, typer.Option(help="Only records whose text contains this.")] = "",
    since: Annotated[datetime | None, typer.Option(help="From this local time on.", formats=TIMES)] = None,
    until: Annotated[datetime | None, typer.Option(help="Before this local time.", formats=TIMES)] = None,
    limit: Annotated[int, typer.Option(help="How many to show.", min=1, max=10_000)] = 20,
    user: AsUser = "",
) -> None:
    """The latest records, newest first."""
    permissions.require(acting(user), "audit.read")
    rows = AuditRecord.objects.order_by("-event_time", "-id")
    rows = rows.filter(username=by) if by else rows
    rows = rows.filter(event_type__startswith=event) if event else rows
    rows = rows.filter(log__icontains=search) if search else rows
    rows = rows.filter(event_time__gte=timezone.make_aware(since)) if since else rows
    rows = rows.filter(event_time__lt=timezone.make_aware(until)) if until else rows
    show_table(
        "Audit log",
        ["Time", "User", "For", "From", "Event", "What"],
        [
            [r.event_time, r.username, r.original_username, r.source, r.event_type, r.log]
            for r in rows[:limit]
        ],
    )
