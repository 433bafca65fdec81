"""Enumerations that models, flows and the REST layer share. Values are the letters of the public API."""

from enum import StrEnum


class LabelledEnum(StrEnum):
    """A string enum whose members carry a display label."""

    label: str

    def __new__(cls, value: str, label: str = "") -> "LabelledEnum":
        member = str.__new__(cls, value)
        member._value_ = value
        member.label = label
        return member

    @classmethod
    def choices(cls) -> list[tuple[str, str]]:
        return [(member.value, member.label) for member in cls]


class Role(LabelledEnum):
    ROOT = "root", "Root"
    INDEPENDENT = "independent", "Independent"
    MANAGED = "managed", "Managed"
    DELEGATE = "delegate", "Delegate"


class Authentication(LabelledEnum):
    KEYS = "C", "IAM User Credentials"
    SERVER_ROLE = "R", "CPM Instance IAM Role"
    ASSUME_ROLE = "A", "Assume Role"


class AutoRemove(LabelledEnum):
    NO = "N", "No"
    YES = "Y", "Yes"
    ALERT = "A", "Yes and alert"


class ConsideredSuccessful(LabelledEnum):
    NO_ISSUES = "B", "Finished with no Issues"
    SNAPSHOTS = "A", "Snapshots Succeeded. Even if scripts or VSS failed"


class WhichVolumes(LabelledEnum):
    ALL = "A", "All Volumes"
    INCLUDE = "I", "Include Selected"
    EXCLUDE = "X", "Exclude Selected"


class AmiOption(LabelledEnum):
    NONE = "N", "No AMI"
    SINGLE = "S", "Single AMI"
    ONLY = "O", "Only AMI"


class ScheduleUnit(LabelledEnum):
    MINUTES = "M", "Minutes"
    HOURS = "H", "Hours"
    DAYS = "D", "Days"
    WEEKS = "W", "Weeks"
    MONTHS = "O", "Months"


class Weekday(LabelledEnum):
    ALL = "A", "All"
    MONDAY = "M", "Monday"
    TUESDAY = "T", "Tuesday"
    WEDNESDAY = "W", "Wednesday"
    THURSDAY = "H", "Thursday"
    FRIDAY = "F", "Friday"
    SATURDAY = "S", "Saturday"
    SUNDAY = "U", "Sunday"


class BackupStatus(LabelledEnum):
    INITIALIZING = "I", "Initializing"
    IN_PROGRESS = "P", "In Progress"
    SUCCESSFUL = "B", "Backup Successful"
    PARTIAL = "A", "Backup Partially Successful"
    SOME_FAILED = "S", "Not All Snapshots Succeeded"
    DELETED = "D", "All Snapshots Deleted"
    FAILED = "F", "Backup Failed"
    MOVED_TO_S3 = "M", "Moved to S3 Storage"
    MOVED_TO_GLACIER = "G", "Moved to S3 Glacier"


BACKUP_RUNNING = frozenset({BackupStatus.INITIALIZING, BackupStatus.IN_PROGRESS})
BACKUP_WITH_SNAPSHOTS = frozenset({BackupStatus.SUCCESSFUL, BackupStatus.PARTIAL, BackupStatus.SOME_FAILED})


class DrStatus(LabelledEnum):
    NONE = "N", "N/A"
    PENDING = "P", "Pending"
    IN_PROGRESS = "I", "In Progress"
    SKIPPED = "S", "Skipped"
    COMPLETED = "C", "Completed"
    FAILED = "F", "Failed"


class CopyStatus(LabelledEnum):
    NOT_STARTED = "Z", "Not started"
    INITIALIZING = "I", "Initializing"
    IN_PROGRESS = "P", "In Progress"
    COMPLETED = "S", "Completed Successfully"
    ALL_VALID = "V", "All valid targets copied"
    FAILED = "F", "Failed"
    ABORTING = "G", "Aborting"
    ABORTED = "A", "Aborted"
    PARTIAL = "R", "Partially copied"
    EXPIRED = "X", "Expired"
    DELETED = "D", "All Snapshots Deleted"
    SKIPPED = "K", "Skipped"


class RecoveryStatus(LabelledEnum):
    IN_PROGRESS = "P", "In Progress"
    SUCCESSFUL = "R", "Recovery Successful"
    PARTIAL = "A", "Recovery Partially Successful"
    FAILED = "F", "Recovery Failed"


class RecoveryType(LabelledEnum):
    INSTANCE = "I", "Instance"
    VOLUME = "V", "Volume"
    RDS_DATABASE = "R", "RDS Database"
    RDS_CLUSTER = "A", "RDS Cluster"
    REDSHIFT_CLUSTER = "C", "Redshift Cluster"
    DYNAMODB_TABLE = "D", "DynamoDB Table"
    EFS = "E", "EFS"


class Severity(LabelledEnum):
    INFO = "I", "Info"
    WARNING = "W", "Warning"
    ERROR = "E", "Error"
    CRITICAL = "C", "Critical Error"


class KeyDetection(LabelledEnum):
    STRICT = "S", "Strict"
    DEFAULT_KEY = "D", "Use Default Key"
    DEFAULT_KEY_ALERT = "A", "Use Default Key & Alert"


class LogMode(LabelledEnum):
    STANDARD = "STANDARD", "Standard"
    DEBUG = "DEBUG", "Diagnostics"


class SnapshotStatus(LabelledEnum):
    """Life of one snapshot record; the words are those that EC2 shows."""

    PENDING = "pending", "Pending"
    COMPLETED = "completed", "Completed"
    ERROR = "error", "Error"
    DELETED = "deleted", "Deleted"


class SnapshotKind(LabelledEnum):
    """The list under which the API shows a snapshot record."""

    INSTANCE = "instances", "Instance"
    VOLUME = "volumes", "Volume"
    INITIAL_AMI = "initial_amis", "Initial AMI"
    ONLY_AMI = "only_amis", "AMI only"
    DR_INSTANCE = "dr_instances", "DR instance"
    DR_VOLUME = "dr_volumes", "DR volume"
    DR_INITIAL_AMI = "dr_initial_amis", "DR initial AMI"
    ONLY_DR_AMI = "only_dr_amis", "DR AMI only"


class DeletionStatus(LabelledEnum):
    """How far the deletion of a repository's data is. The record of one that succeeded goes with the data."""

    NONE = "N", "N/A"
    IN_PROGRESS = "I", "In Progress"
    FAILED = "F", "Failed"
    SUCCEEDED = "S", "Succeeded"


class VerifyDepth(LabelledEnum):
    LIST = "list", "Listing"
    SAMPLE = "sample", "Sample"
    FULL = "full", "Every byte"


class VerifyResult(LabelledEnum):
    SOUND = "sound", "Sound"
    DAMAGED = "damaged", "Damaged"
    FAILED = "failed", "Not verified"


class StepState(StrEnum):
    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunIf(StrEnum):
    """When a step that stands after others runs.

    SUCCESS: only if all of them succeeded. ENDED: however they ended, unless the job is aborted.
    ALWAYS: in any case, also when the job is aborted; for steps that clean up and take stock.
    """

    SUCCESS = "success"
    ENDED = "ended"
    ALWAYS = "always"


class FleetKind(LabelledEnum):
    WORKER = "worker", "Worker"
    BEAT = "beat", "Scheduler"
    API = "api", "API"
