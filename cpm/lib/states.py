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


class EfsExpiry(LabelledEnum):
    """When a backup of a file system ends. M is months here, unlike in schedules."""

    POLICY = "P", "Policy Generations"
    NEVER = "N", "Never"
    DAYS = "D", "Days after creation"
    WEEKS = "W", "Weeks after creation"
    MONTHS = "M", "Month after creation"
    YEARS = "Y", "Years after creation"


class EfsColdStorage(LabelledEnum):
    """When a backup of a file system moves to cold storage."""

    NEVER = "N", "Never"
    DAYS = "D", "Days after creation"
    WEEKS = "W", "Weeks after creation"
    MONTHS = "M", "Month after creation"
    YEARS = "Y", "Years after creation"


class EfsPerformance(LabelledEnum):
    GENERAL_PURPOSE = "generalPurpose", "General Purpose"
    MAX_IO = "maxIO", "Max I/O"


class EfsTarget(LabelledEnum):
    """Where a file system is restored to."""

    NEW = "N", "New"
    ORIGINAL = "O", "Original"


class Severity(LabelledEnum):
    INFO = "I", "Info"
    WARNING = "W", "Warning"
    ERROR = "E", "Error"
    CRITICAL = "C", "Critical Error"


class KeyDetection(LabelledEnum):
    STRICT = "S", "Strict"
    DEFAULT_KEY = "D", "Use Default Key"
    DEFAULT_KEY_ALERT = "A", "Use Default Key & Alert"


class CleanupType(LabelledEnum):
    """Which cleanup is started on demand; both run by themselves."""

    SNAPSHOTS = "snapshots", "Snapshots and AMIs"
    S3 = "s3", "S3 Repositories"


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
    S3_SYNC = "s3_syncs", "S3 sync"
    """A run of an S3 sync, which no list shows: it is no snapshot, and nothing can be recovered from it."""


WITHOUT_SNAPSHOT = frozenset({SnapshotKind.INSTANCE, SnapshotKind.DR_INSTANCE, SnapshotKind.S3_SYNC})
"""Kinds of records behind which there is no snapshot: configurations of instances, and runs of S3 syncs."""


class DeletionStatus(LabelledEnum):
    """How far the deletion of a repository's data is. The record of one that succeeded goes with the data."""

    NONE = "N", "N/A"
    IN_PROGRESS = "I", "In Progress"
    FAILED = "F", "Failed"
    SUCCEEDED = "S", "Succeeded"


class Tier(LabelledEnum):
    """Where the data of a copy lies."""

    S3 = "S", "S3"
    ARCHIVE = "A", "Archived"


class RetrievalStatus(LabelledEnum):
    """How far an archived copy is on its way back; empty where nobody has asked for it."""

    NONE = "", "N/A"
    IN_PROGRESS = "in_progress", "In Progress"
    AVAILABLE = "available", "Available"
    EXPIRED = "expired", "Expired"


class RetrievalTier(LabelledEnum):
    EXPEDITED = "E", "Expedited"
    STANDARD = "S", "Standard"
    BULK = "B", "Bulk"


class StorageClass(LabelledEnum):
    STANDARD = "STANDARD", "Standard"
    STANDARD_IA = "STANDARD_IA", "Infrequent Access"
    INTELLIGENT_TIERING = "INTELLIGENT_TIERING", "Intelligent Tiering"


class SyncStorageClass(LabelledEnum):
    """The storage class of what an S3 sync writes."""

    STANDARD = "S", "STANDARD"
    REDUCED_REDUNDANCY = "R", "REDUCED_REDUNDANCY"
    STANDARD_IA = "I", "STANDARD_IA"


class ArchiveClass(LabelledEnum):
    GLACIER = "GLACIER", "Glacier"
    DEEP_ARCHIVE = "DEEP_ARCHIVE", "Deep Archive"


class RetentionUnit(LabelledEnum):
    DAYS = "D", "Days"
    WEEKS = "W", "Weeks"
    MONTHS = "O", "Months"
    YEARS = "Y", "Years"


class Encryption(LabelledEnum):
    """How S3 encrypts what a repository puts; CPM's own encryption lies under it in any case."""

    BUCKET = "", "As the bucket says"
    S3 = "AES256", "Keys of S3"
    KMS = "aws:kms", "A KMS key"


class LockMode(LabelledEnum):
    NONE = "", "Not locked"
    GOVERNANCE = "GOVERNANCE", "Governance"
    COMPLIANCE = "COMPLIANCE", "Compliance"


class ExploreType(LabelledEnum):
    INSTANCE_VOLUMES = "I", "Instance Volumes"
    INDEPENDENT_VOLUMES = "V", "Independent Volumes"
    RDS = "D", "RDS"
    REDSHIFT_CLUSTER = "R", "Redshift Cluster"


class ExploreStatus(LabelledEnum):
    UNDEFINED = "U", "Undefined"
    OPEN = "N", "Open session is running"
    EXPIRING = "P", "Session expiration is in progress"
    ENDED = "S", "Session ended successfully"
    FAILED = "F", "Session failure"


class WorkerTestStatus(LabelledEnum):
    IN_PROGRESS = "I", "In Progress"
    SUCCEEDED = "S", "Success"
    FAILED = "F", "Failed"


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
