"""`cpm policy`: what is protected, where copies go, and running it now."""

from typing import Annotated, Any

import typer
from django.db.models import Count, Min
from django.utils import timezone

from cpm import permissions
from cpm.commands import pictures, policy_s3
from cpm.commands.terminal import AsUser, Watch, acting, console, failed, guarded, show_table, watch
from cpm.lib.states import ArchiveClass, StorageClass
from cpm.models import Actor, Policy
from cpm.services import backups, s3_operations
from cpm.services import policy_s3 as services

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
        ["ID", "Name", "User", "Account", "Enabled", "S3", "Targets", "Next run", "Last success", "Failures", "Missed"],
        [
            [
                row.pk, row.name, row.user.username, row.account.name, "yes" if row.enabled else "no",
                "yes" if row.s3_enabled else "no", row.n_targets, row.next_run, row.last_success_at, row.consecutive_failures, row.missed_runs,
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
    _show_s3(row)
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
        ["ID", "Started", "Ended", "Status", "DR", "S3", "Archive"],
        [
            [
                b.pk, b.start_time, b.end_time, b.get_status_display(), b.get_dr_status_display(), *pictures.s3_words(b)
            ]
            for b in row.backups.order_by("-start_time", "-id")[:10]
        ],
    )  # fmt: skip


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


@policy.command("set-s3")
@guarded
def set_s3(
    name: Name,
    copies: Annotated[bool | None, typer.Option("--on/--off", help="Copy backups, or stop it.")] = None,
    repository: Annotated[str | None, typer.Option(help="Its name or id, or none.")] = None,
    interval: Annotated[int | None, typer.Option(help="Every how many backups one is copied.")] = None,
    generations: Annotated[str | None, typer.Option(help="How many copies to keep, or none.")] = None,
    keep: Annotated[str | None, typer.Option(help="How long to keep copies, as 6 months, or none.")] = None,
    storage_class: Annotated[str | None, typer.Option(help=", ".join(StorageClass))] = None,
    delete_snapshots: Annotated[bool | None, typer.Option(help="Delete snapshots once copied.")] = None,
    archive: Annotated[bool | None, typer.Option(help="Archive copies whose time in S3 is over.")] = None,
    archive_class: Annotated[str | None, typer.Option(help=", ".join(ArchiveClass))] = None,
    archive_every: Annotated[str | None, typer.Option(help="At most one backup in this time.")] = None,
    archive_keep: Annotated[str | None, typer.Option(help="How long, counted from the backup.")] = None,
    user: AsUser = "",
) -> None:
    """Change how backups are copied to S3 and archived. Without options: show it."""
    actor = acting(user)
    row = _find(actor, name)
    plain = {
        "s3_enabled": copies, "s3_copy_interval": interval, "s3_delete_originals": delete_snapshots,
        "archive_enabled": archive,
    }  # fmt: skip
    given: dict[str, Any] = {option: value for option, value in plain.items() if value is not None}
    given |= policy_s3.kept(generations, keep) | policy_s3.archive(archive_every, archive_keep)
    given |= policy_s3.chosen(storage_class, list(StorageClass), "s3_storage_class")
    given |= policy_s3.chosen(archive_class, list(ArchiveClass), "archive_storage_class")
    if repository is not None:
        given["s3_repository"] = policy_s3.repository(actor, row, repository)
    if given:
        row = services.set_copy_to_s3(actor=actor, policy=row, **given)
    _show_s3(row)


@policy.command("abort-s3")
@guarded
def abort_s3(name: Name, user: AsUser = "") -> None:
    """Stop the copy, archiving or cleanup that runs for the policy in S3."""
    actor = acting(user)
    row = _find(actor, name)
    stopped = s3_operations.abort_running(actor=actor, policy=row)
    console.print(f"The {stopped.name} of {row.name} was asked to stop.", markup=False)


def _show_s3(row: Policy) -> None:
    for option, words in policy_s3.describe(row):
        console.print(f"{option}: {words}", markup=False, highlight=False)
    for hint in services.hints(row):
        console.print(hint, style="yellow", markup=False, highlight=False)


def _every(schedule: object) -> str:
    return f"{schedule.every_how_many} {schedule.get_every_unit_display().lower()}"  # type: ignore[attr-defined]


def _find(actor: Actor, name: str) -> Policy:
    rows = permissions.visible(actor.user, Policy.objects.all(), "policies.read").select_related(
        "account", "user", "s3_repository", "s3_job"
    )
    found = list(rows.filter(name=name)[:2])
    if not found and name.isdecimal():
        found = list(rows.filter(pk=int(name)))
    if len(found) > 1:
        raise failed(f"Several users have a policy {name}; give its id, or --user.")
    if not found:
        raise failed(f"There is no policy {name}.")
    return found[0]
