"""The first page: is everything protected, did the last day go well, is work piling up, what is wrong."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, Min, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from cpm import permissions
from cpm.lib.states import BackupStatus, DrStatus, Role, Severity, StepState
from cpm.models import Alert, Backup, Policy, Step, User

DAY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Tile:
    """A number with a word about it and the page that explains it."""

    title: str
    value: str
    text: str
    address: str
    bad: bool = False


def context(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the start page shows beyond the list of nouns; every number is the user's own."""
    user = request.user
    if not isinstance(user, User):
        return context
    now = timezone.now()
    context["tiles"] = [_protected(user, now), *_outcomes(user, now), _alerts(user)]
    context["backlog"] = _backlog(now) if user.environment.role == Role.ROOT else []
    return context


def _list(noun: str) -> str:
    return reverse(f"admin:cpm_{noun}_changelist")


def _protected(user: User, now: Any) -> Tile:
    rows = permissions.visible(user, Policy.objects.all(), "policies.read")
    enabled = Q(enabled=True)
    found = rows.aggregate(
        switched_on=Count("pk", filter=enabled),
        fresh=Count("pk", filter=enabled & Q(last_success_at__gte=now - DAY)),
        failing=Count("pk", filter=Q(consecutive_failures__gt=0)),
    )
    text = f"of {found['switched_on']} enabled policies had a successful backup in 24 hours; {found['failing']} are failing"
    return Tile(
        "Policies protected",
        str(found["fresh"]),
        text,
        _list("policy"),
        found["fresh"] < found["switched_on"],
    )


def _outcomes(user: User, now: Any) -> list[Tile]:
    rows = permissions.visible(user, Backup.objects.filter(start_time__gte=now - DAY), "backups.read")
    poor = [BackupStatus.PARTIAL, BackupStatus.SOME_FAILED]
    found = rows.aggregate(
        good=Count("pk", filter=Q(status=BackupStatus.SUCCESSFUL)),
        poor=Count("pk", filter=Q(status__in=poor)),
        bad=Count("pk", filter=Q(status=BackupStatus.FAILED)),
        dr_good=Count("pk", filter=Q(dr_status=DrStatus.COMPLETED)),
        dr_bad=Count("pk", filter=Q(dr_status=DrStatus.FAILED)),
    )
    backups = f"successful in 24 hours; {found['poor']} partial, {found['bad']} failed"
    copies = f"completed in 24 hours; {found['dr_bad']} failed"
    return [
        Tile("Backups", str(found["good"]), backups, _list("backup"), bool(found["bad"])),
        Tile("DR copies", str(found["dr_good"]), copies, _list("backup"), bool(found["dr_bad"])),
    ]


def _alerts(user: User) -> Tile:
    rows = permissions.visible(user, Alert.objects.all(), "alerts.read")
    serious = Q(severity__in=[Severity.ERROR, Severity.CRITICAL])
    found = rows.aggregate(n=Count("pk"), serious=Count("pk", filter=serious))
    return Tile(
        "Alerts",
        str(found["n"]),
        f"{found['serious']} of them serious",
        _list("alert"),
        bool(found["serious"]),
    )


def _backlog(now: Any) -> list[dict[str, Any]]:
    """Per queue: how much is open, and for how long the oldest due step has waited."""
    due = Q(state__in=[StepState.READY, StepState.WAITING], pending_after=0, not_before__lte=now)
    rows = (
        Step.objects.filter(state__in=[StepState.READY, StepState.WAITING, StepState.RUNNING])
        .values("queue")
        .annotate(
            running=Count("pk", filter=Q(state=StepState.RUNNING)),
            waiting=Count("pk", filter=Q(state=StepState.WAITING)),
            ready=Count("pk", filter=Q(state=StepState.READY)),
            oldest=Min("not_before", filter=due),
        )
        .order_by("queue")
    )
    return [
        {**row, "age": int((now - row["oldest"]).total_seconds()) if row["oldest"] else None} for row in rows
    ]
