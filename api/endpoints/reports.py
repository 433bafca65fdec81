"""Reports: JSON for programs, CSV for people and spreadsheets."""

from django.urls import path
from django.utils import timezone

from api.filters import Choices, Exactly, Flag, Ids, Since, Until, read_moment
from api.reports import ReportRecords, shown
from api.views import Operation, Rows
from cpm import permissions
from cpm.lib.states import BackupStatus, DrStatus
from cpm.permissions import Reach
from cpm.reports import usage as usage_reports
from cpm.reports.backups import BACKUPS
from cpm.reports.protected_resources import PROTECTED_RESOURCES
from cpm.reports.snapshots import SNAPSHOTS
from cpm.services import usage


class BackupsReport(ReportRecords):
    """Backup records, those of deleted backups too."""

    report, fields, default_ordering = BACKUPS, shown(BACKUPS), BACKUPS.order
    filters = {
        "account": Ids("account_id"),
        "account_name": Exactly("account_name"),
        "backup_id": Ids("id"),
        "dr_status": Choices("dr_status", DrStatus),
        "from_time": Since("start_time"),
        "is_retry": Flag("is_retry"),
        "marked_for_deletion": Flag("marked_for_deletion"),
        "policy_name": Exactly("policy_name"),
        "status": Choices("status", BackupStatus),
        "to_time": Until("start_time"),
        "user": Ids("user_id"),
        "username": Exactly("user__username"),
    }
    ordering = {
        "account_name": "account_name",
        "backup_id": "id",
        "dr_status": "dr_status",
        "end_time": "end_time",
        "is_retry": "is_retry",
        "marked_for_deletion": "marked_for_deletion",
        "policy_name": "policy_name",
        "start_time": "start_time",
        "status": "status",
        "username": "user__username",
    }
    operations = {
        "list": Operation("reports.backups", since="1.0.0", many=True, summary="Report on backups"),
    }


class ProtectedResourcesReport(ReportRecords):
    """Every resource under a policy, once in each account."""

    report, fields = PROTECTED_RESOURCES, shown(PROTECTED_RESOURCES)
    default_ordering = PROTECTED_RESOURCES.order
    filters = {
        "account": Ids("policy__account_id"),
        "account_name": Exactly("policy__account__name"),
        "user": Ids("policy__user_id"),
        "username": Exactly("policy__user__username"),
    }
    operations = {
        "list": Operation(
            "reports.protected_resources", since="1.0.0", many=True, summary="Report on protected resources"
        ),
    }


class SnapshotsReport(ReportRecords):
    """Snapshots, AMIs and copies of them, the latest first."""

    report, fields, default_ordering = SNAPSHOTS, shown(SNAPSHOTS), SNAPSHOTS.order
    filters = {
        "account": Ids("backup__account_id"),
        "from_time": Since("backup__start_time"),
        "to_time": Until("backup__start_time"),
    }
    operations = {
        "list": Operation("reports.snapshots", since="1.0.0", many=True, summary="Report on snapshots"),
    }


class UsageReport(ReportRecords):
    """What accounts protect: today, or on the days of a range. Today is counted when it is asked for."""

    report, fields = usage_reports.USAGE, shown(usage_reports.USAGE)
    default_ordering = usage_reports.USAGE.order
    filters = {
        "account_name": Exactly("account_name"),
        "username": Exactly("username"),
    }
    ordering = {"account_name": "account_name", "username": "username"}
    operations = {
        "list": Operation(
            "reports.usage", since="1.0.0", many=True, deprecated="1.3.0", summary="Report on usage"
        ),
    }

    def scoped(self, queryset: Rows) -> Rows:
        # Whoever reaches all users also sees what those protected who are gone.
        return queryset if self._reaches_all() else super().scoped(queryset)

    def reaches_one_user(self) -> bool:
        return super().reaches_one_user() and not (self._reaches_all() and self._has_range())

    def _reaches_all(self) -> bool:
        assert self.operation.right, "no usage report is public"
        return permissions.reach_of(self.actor.user, self.operation.right) == Reach.ALL

    def _has_range(self) -> bool:
        return not {"from_time", "to_time"}.isdisjoint(self.asked.filters)

    def selected(self, found: Rows) -> Rows:
        return found if self._has_range() else found.filter(day=usage.day_of(timezone.now()))

    def ready(self) -> None:
        now = timezone.now()
        until = self.asked.filters.get("to_time")
        if until is None or read_moment(until)[1] > now:
            usage.refresh(now=now, users=self.owners)


class AnonymizedUsageReport(UsageReport):
    """Usage of all accounts, without names."""

    report, fields = usage_reports.ANONYMIZED, shown(usage_reports.ANONYMIZED)
    user_column = ""
    filters, ordering = {}, {}
    operations = {
        "list": Operation(
            "reports.usage_anonymized", since="1.0.0", many=True, paged=False,
            summary="Report on usage without names",
        ),
    }  # fmt: skip


class DetailedUsageReport(UsageReport):
    """Usage by account."""

    report, fields = usage_reports.DETAILED, shown(usage_reports.DETAILED)
    filters = {
        "account_name": Exactly("account_shown"),
        "from_time": Since("report_time"),
        "to_time": Until("report_time"),
        "user": Ids("user_id"),
        "username": Exactly("user_shown"),
    }
    ordering = {"account_name": "account_shown", "username": "user_shown"}
    operations = {
        "list": Operation("reports.usage", since="1.3.0", many=True, summary="Report on usage by account"),
    }


class AnonymousDetailedUsageReport(DetailedUsageReport):
    """Usage by account, without names."""

    report = usage_reports.DETAILED_ANONYMOUS
    operations = {
        "list": Operation(
            "reports.usage", since="1.4.0", many=True, summary="Report on usage by account without names"
        ),
    }


class SummaryUsageReport(DetailedUsageReport):
    """Usage by user."""

    report, fields = usage_reports.SUMMARY, shown(usage_reports.SUMMARY)
    default_ordering = usage_reports.SUMMARY.order
    ordering = {"account_name": "first_account", "username": "whose"}
    operations = {
        "list": Operation("reports.usage", since="1.3.0", many=True, summary="Report on usage by user"),
    }


class AnonymousSummaryUsageReport(SummaryUsageReport):
    """Usage by user, without names."""

    report = usage_reports.SUMMARY_ANONYMOUS
    operations = {
        "list": Operation(
            "reports.usage", since="1.4.0", many=True, summary="Report on usage by user without names"
        ),
    }


urlpatterns = [
    path(f"reports/{address}/", view.as_view({"get": "list"}))
    for address, view in {
        "backups": BackupsReport,
        "protected-resources": ProtectedResourcesReport,
        "snapshots": SnapshotsReport,
        "usage": UsageReport,
        "usage/anonymized": AnonymizedUsageReport,
        "usage/detailed": DetailedUsageReport,
        "usage/detailed/anonymous": AnonymousDetailedUsageReport,
        "usage/summary": SummaryUsageReport,
        "usage/summary/anonymous": AnonymousSummaryUsageReport,
    }.items()
]
