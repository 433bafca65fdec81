"""The backups report: one line per backup record."""

from cpm.lib.states import BackupStatus, CopyStatus, DrStatus
from cpm.models import Backup
from cpm.reports.base import Report
from cpm.reports.columns import Code, Flag, Moment, Numeral, Text

BACKUPS = Report(
    name="backups",
    model=Backup,
    columns=(
        Numeral("backup_id", "Backup ID", "id"),
        Text("account_name", "Account"),
        Text("aws_account_number", "AWS Account Number", "account__account_number"),
        Text("policy_name", "Policy"),
        Moment("start_time", "Start Time"),
        Moment("end_time", "End Time"),
        Code("status", "Status", values=BackupStatus),
        Code("status_before_deletion", "Status Before Deletion", values=BackupStatus),
        Code("dr_status", "DR Status", values=DrStatus),
        Code("s3_copy_status", "S3 Copy Status", values=CopyStatus, closed=False),
        Code("archive_status", "Archive Status", values=CopyStatus, closed=False),
        Flag("is_retry", "Retry"),
        Flag("marked_for_deletion", "Marked for Deletion"),
        Text("username", "User", "user__username"),
    ),
    order=("-start_time", "-id"),
)
