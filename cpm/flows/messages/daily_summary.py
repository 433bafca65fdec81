"""The facts of a daily summary, read from the records."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db.models import Case, CharField, Count, F, Q, QuerySet, When

from cpm.flows.dr import dr_copy
from cpm.lib.states import BackupStatus, DrStatus, RecoveryStatus, Role
from cpm.models import Alert, Backup, Job, Notification, Policy, Recovery, User
from cpm.notifications.messages import LISTED, Summary, Tally

DAY = timedelta(hours=24)
# What ended in the time of a summary began at most so much earlier: bounds the search to an index.
LONGEST = timedelta(days=8)

GOOD = {BackupStatus.SUCCESSFUL, BackupStatus.MOVED_TO_S3, BackupStatus.MOVED_TO_GLACIER}
PARTIAL = {BackupStatus.PARTIAL, BackupStatus.SOME_FAILED}
FAILED = {BackupStatus.FAILED}
# Deleting a backup hides how it had ended.
OUTCOME = Case(
    When(status=BackupStatus.DELETED, then=F("status_before_deletion")),
    default=F("status"),
    output_field=CharField(),
)


def covered(notification: Notification) -> list[int]:
    """Ids of the users about whom these settings tell: their user, and with `include_managed_user_alerts` the managed
    ones: all of them for root, the assigned ones for an independent user."""
    own = notification.user_id
    if not notification.include_managed_user_alerts:
        return [own]
    managed = User.objects.filter(role=Role.MANAGED)
    if notification.user.role != Role.ROOT:
        managed = managed.filter(managing_users=own)
    return [own, *managed.order_by("pk").values_list("pk", flat=True)]


def collect(notification: Notification, *, now: datetime) -> Summary:
    """What happened since the last summary, or in the last 24 hours if there was none."""
    users = covered(notification)
    since = notification.last_summary_at or now - DAY
    alerts = Alert.objects.filter(user__in=users).order_by("-alert_time", "-id")
    idle = _idle(users, now)
    return Summary(
        username=notification.user.username,
        since=since,
        until=now,
        backups=_backups(users, since, now),
        dr=_dr(users, since, now),
        recoveries=_recoveries(users, since, now),
        alerts=list(alerts.select_related("user")[:LISTED]),
        alert_count=alerts.count(),
        idle=list(idle.values_list("name", "last_success_at")[:LISTED]),
        idle_count=idle.count(),
    )


def _backups(users: Sequence[int], since: datetime, until: datetime) -> Tally:
    rows = Backup.objects.filter(
        user__in=users, start_time__gt=since - LONGEST, end_time__gt=since, end_time__lte=until
    )
    found = rows.annotate(ended=OUTCOME).aggregate(
        good=Count("id", filter=Q(ended__in=GOOD)),
        partial=Count("id", filter=Q(ended__in=PARTIAL)),
        failed=Count("id", filter=Q(ended__in=FAILED)),
    )
    return Tally(**found)


def _dr(users: Sequence[int], since: datetime, until: datetime) -> Tally:
    """A backup record does not say when its DR ended; the job does."""
    recent = Backup.objects.filter(user__in=users, start_time__gt=since - LONGEST)
    ended = Job.objects.filter(
        kind=dr_copy.KIND, subject_type="backup", subject_id__in=recent.values("pk"), finished_at__gt=since,
        finished_at__lte=until,
    )  # fmt: skip
    found = Backup.objects.filter(pk__in=ended.values("subject_id")).aggregate(
        good=Count("id", filter=Q(dr_status=DrStatus.COMPLETED)),
        failed=Count("id", filter=Q(dr_status=DrStatus.FAILED)),
    )
    return Tally(**found)


def _recoveries(users: Sequence[int], since: datetime, until: datetime) -> Tally:
    rows = Recovery.objects.filter(
        user__in=users, recovery_time__gt=since - LONGEST, end_time__gt=since, end_time__lte=until
    )
    found = rows.aggregate(
        good=Count("id", filter=Q(status=RecoveryStatus.SUCCESSFUL)),
        partial=Count("id", filter=Q(status=RecoveryStatus.PARTIAL)),
        failed=Count("id", filter=Q(status=RecoveryStatus.FAILED)),
    )
    return Tally(**found)


def _idle(users: Sequence[int], now: datetime) -> QuerySet[Policy]:
    """Policies that should run by themselves, are older than a day, and have had no success for one."""
    rows = Policy.objects.filter(
        user__in=users, enabled=True, schedules__isnull=False, created_at__lt=now - DAY
    )
    old = Q(last_success_at=None) | Q(last_success_at__lt=now - DAY)
    return rows.filter(old).distinct().order_by("name", "pk")
