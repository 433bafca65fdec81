"""The snapshots report: one line per native snapshot, AMI or copy of one."""

from collections.abc import Mapping

from django.db.models import Case, TextField, Value, When
from django.db.models.functions import NullIf

from cpm.lib.states import WITHOUT_SNAPSHOT, BackupStatus, SnapshotKind
from cpm.models import Snapshot
from cpm.reports.base import Report, Rows
from cpm.reports.columns import Code, Flag, Moment, Number, Numeral, Text
from cpm.resources.registry import WHOLE

# What the API calls the kinds of snapshots.
TYPE_NAMES: Mapping[str, str] = {
    SnapshotKind.INSTANCE: "instance",
    SnapshotKind.VOLUME: "ebs",
    SnapshotKind.INITIAL_AMI: "ami",
    SnapshotKind.ONLY_AMI: "ami",
    SnapshotKind.DR_INSTANCE: "instance_copy",
    SnapshotKind.DR_VOLUME: "ebs_copy",
    SnapshotKind.DR_INITIAL_AMI: "ami_copy",
    SnapshotKind.ONLY_DR_AMI: "ami_copy",
    **{kind.kind: kind.snapshot_word for kind in WHOLE},
    **{kind.dr_kind: f"{kind.snapshot_word}_copy" for kind in WHOLE if kind.dr_kind},
}


def snapshot_type(path: str = "kind") -> Case:
    """What the API calls the kind at that path."""
    cases = (When(**{path: kind}, then=Value(name)) for kind, name in TYPE_NAMES.items())
    return Case(*cases, output_field=TextField())


SNAPSHOT_TYPE = snapshot_type()


def _taken(rows: Rows) -> Rows:
    return rows.exclude(kind__in=WITHOUT_SNAPSHOT)


def _or_null(path: str) -> NullIf:
    return NullIf(path, Value(""), output_field=TextField())


SNAPSHOTS = Report(
    name="snapshots",
    model=Snapshot,
    columns=(
        Numeral("backup_id", "Backup ID"),
        Text("account_name", "Account", "backup__account_name"),
        Text("aws_account_number", "AWS Account Number", "backup__account__account_number"),
        Text("policy_name", "Policy", "backup__policy_name"),
        Code("status", "Backup Status", "backup__status", values=BackupStatus, closed=False),
        Moment("start_time", "Backup Start Time", "backup__start_time"),
        Text("backed_up_resource_id", "Resource ID", "source_id"),
        Text("backed_up_resource_name", "Resource Name", "source_name"),
        Text("instance_id", "Instance ID", _or_null("instance_id")),
        Text("instance_name", "Instance Name", _or_null("instance_name")),
        Text("region", "Region"),
        Text("snapshot_type", "Snapshot Type", SNAPSHOT_TYPE),
        Text("snapshot_id", "Snapshot ID", _or_null("aws_id")),
        Flag("succeeded", "Succeeded"),
        Moment("end_time", "End Time"),
        Moment("deletion_time", "Deletion Time"),
        Text("snapshot_account_name", "Snapshot Account", "account_name"),
        Text("snapshot_aws_account_number", "Snapshot AWS Account Number", "aws_account_number"),
        Number("cbt_valid_size_mb", "Valid Size (MB)"),
        Number("cbt_changed_size_mb", "Changed Size (MB)"),
        Text("username", "User", "backup__user__username"),
    ),
    order=("-id",),
    prepare=_taken,
)
