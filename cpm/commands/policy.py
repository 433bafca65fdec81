"""`cpm policy`: what is protected, and running it now."""

from typing import Annotated

import typer
from django.db.models import Count, Min
from django.utils import timezone

from cpm import permissions
from cpm.commands import pictures
from cpm.commands.terminal import AsUser, Watch, acting, console, failed, guarded, show_table, watch
from cpm.models import Actor, Policy
from cpm.services import backups

app = typer.Typer()
policy = typer.Typer(no_args_is_help=True, help="List, show and run policies.")
app.add_typer(policy, name="policy")

Name = Annotated[str, typer.Argument(help="Name of the policy, or its id.")]


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@policy.command("list")
@guarded
def list_policies(user: AsUser = "") -> None:
    """All policies with their state."""
    rows = permissions.visible(acting(user).user, Policy.objects.all(), "policies.read").select_related(
        "account", "user"
    )
    rows = rows.annotate(
        n_targets=Count("targets", distinct=True), next_run=Min("policy_schedules__next_run_at")
    )
    show_table(
        "Policies",
        ["ID", "Name", "User", "Account", "Enabled", "Targets", "Next run", "Last success", "Failures", "Missed"],
        [
            [
                row.pk, row.name, row.user.username, row.account.name, "yes" if row.enabled else "no",
                row.n_targets, row.next_run, row.last_success_at, row.consecutive_failures, row.missed_runs,
            ]
            for row in rows.order_by("name", "id")
        ],
    )  # fmt: skip


@policy.command()
@guarded
def show(name: Name, user: AsUser = "") -> None:
    """One policy with its targets, schedules and latest backups."""
    row = _find(acting(user), name)
    console.print(
        f"Policy {row.pk} {row.name}: account {row.account.name}, {row.generations} generations", markup=False
    )
    show_table(
        "Targets",
        ["ID", "Type", "Resource", "Name", "Region"],
        [
            [t.pk, t.resource_type, t.aws_resource_id, t.name, t.aws_region]
            for t in row.targets.order_by("id")
        ],
    )
    show_table(
        "Schedules",
        ["ID", "Name", "Every", "Next run"],
        [
            [link.schedule_id, link.schedule.name, _every(link.schedule), link.next_run_at]
            for link in row.policy_schedules.select_related("schedule").order_by("id")
        ],
    )
    show_table(
        "Latest backups",
        ["ID", "Started", "Ended", "Status", "DR"],
        [
            [b.pk, b.start_time, b.end_time, b.get_status_display(), b.get_dr_status_display()]
            for b in row.backups.order_by("-start_time", "-id")[:10]
        ],
    )


@policy.command()
@guarded
def run(name: Name, watch_it: Watch = False, user: AsUser = "") -> None:
    """Start a backup of the policy now."""
    actor = acting(user)
    row = _find(actor, name)
    backup = backups.start(actor=actor, policy=row, now=timezone.now())
    console.print(f"Backup {backup.pk} of {row.name} has started.", markup=False)
    if watch_it:
        watch(lambda: pictures.of_backup(backup.pk))


def _every(schedule: object) -> str:
    return f"{schedule.every_how_many} {schedule.get_every_unit_display().lower()}"  # type: ignore[attr-defined]


def _find(actor: Actor, name: str) -> Policy:
    rows = permissions.visible(actor.user, Policy.objects.all(), "policies.read").select_related(
        "account", "user"
    )
    found = list(rows.filter(name=name)[:2])
    if not found and name.isdecimal():
        found = list(rows.filter(pk=int(name)))
    if len(found) > 1:
        raise failed(f"Several users have a policy {name}; give its id, or --user.")
    if not found:
        raise failed(f"There is no policy {name}.")
    return found[0]
