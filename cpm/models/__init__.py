"""All models. One file per noun; import them from here."""

from cpm.models.account import Account
from cpm.models.actor import Actor
from cpm.models.alert import Alert
from cpm.models.api_key import ApiKey
from cpm.models.attempts import Attempts
from cpm.models.audit import AuditKey, AuditRecord, AuditSeal
from cpm.models.backup import Backup, ScriptLog
from cpm.models.idempotency import StoredAnswer
from cpm.models.job import Job, LogLine, Step
from cpm.models.notification import Notification
from cpm.models.policy import CustomTag, Policy, PolicySchedule
from cpm.models.recovery import Recovery
from cpm.models.region import Region, ResourceType
from cpm.models.repository import S3Repository
from cpm.models.schedule import DisableTime, Schedule
from cpm.models.server import EmailIdentity, FileLevelRecoverySettings, ProxySettings, ServerSettings
from cpm.models.snapshot import Snapshot
from cpm.models.tally import BackupTally
from cpm.models.target import Target, TargetVolume
from cpm.models.usage import UsageRecord
from cpm.models.user import User
from cpm.models.worker import FleetMember

__all__ = [
    "Account", "Actor", "Alert", "ApiKey", "Attempts", "AuditKey", "AuditRecord", "AuditSeal", "Backup", "BackupTally",
    "CustomTag", "DisableTime", "EmailIdentity", "FileLevelRecoverySettings", "FleetMember", "Job", "LogLine",
    "Notification", "Policy", "PolicySchedule", "ProxySettings", "Recovery", "Region", "ResourceType", "S3Repository",
    "Schedule",
    "ScriptLog", "ServerSettings", "Snapshot", "Step", "StoredAnswer", "Target", "TargetVolume", "UsageRecord", "User",
]  # fmt: skip
