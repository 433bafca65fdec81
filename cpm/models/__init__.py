"""All models. One file per noun; import them from here."""

from cpm.models.account import Account
from cpm.models.actor import Actor
from cpm.models.alert import Alert
from cpm.models.api_key import ApiKey
from cpm.models.attempts import Attempts
from cpm.models.audit import AuditKey, AuditRecord, AuditSeal
from cpm.models.backup import Backup, ScriptLog
from cpm.models.explore_session import ExploreSession
from cpm.models.idempotency import StoredAnswer
from cpm.models.job import Job, LogLine, Step
from cpm.models.notification import Notification
from cpm.models.policy import CustomTag, Policy, PolicySchedule
from cpm.models.recovery import Recovery
from cpm.models.region import Region, ResourceType
from cpm.models.repository import S3Repository
from cpm.models.s3_copy import S3Copy
from cpm.models.schedule import DisableTime, Schedule
from cpm.models.server import EmailIdentity, FileLevelRecoverySettings, ProxySettings, ServerSettings
from cpm.models.snapshot import Snapshot
from cpm.models.tally import BackupTally
from cpm.models.target import Target, TargetVolume
from cpm.models.usage import UsageRecord
from cpm.models.user import User
from cpm.models.worker import FleetMember
from cpm.models.worker_configuration import WorkerConfiguration, WorkerTag, WorkerTest

__all__ = [
    "Account", "Actor", "Alert", "ApiKey", "Attempts", "AuditKey", "AuditRecord", "AuditSeal", "Backup", "BackupTally",
    "CustomTag", "DisableTime", "EmailIdentity", "ExploreSession", "FileLevelRecoverySettings", "FleetMember", "Job", "LogLine",
    "Notification", "Policy", "PolicySchedule", "ProxySettings", "Recovery", "Region", "ResourceType", "S3Copy",
    "S3Repository", "Schedule", "ScriptLog", "ServerSettings", "Snapshot", "Step", "StoredAnswer", "Target", "TargetVolume", "UsageRecord", "User",
    "WorkerConfiguration", "WorkerTag", "WorkerTest",
]  # fmt: skip
