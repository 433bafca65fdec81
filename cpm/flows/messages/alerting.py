"""Raising and clearing alerts from inside flows. An alert is a state: it goes when its cause goes."""

from collections.abc import Mapping
from datetime import datetime

from cpm.lib.states import Severity
from cpm.models import Alert, Policy, User

BACKUP_FAILED = "backup_failed"
DR_FAILED = "dr_failed"
TARGET_REMOVED = "target_removed"
DEFAULT_KEY_USED = "dr_default_key_used"
CLEANUP_FAILED = "cleanup_failed"
RETENTION_STUCK = "retention_stuck"
S3_COPY_FAILED = "s3_copy_failed"
S3_CLEANUP_FAILED = "s3_cleanup_failed"
ARCHIVE_FAILED = "archive_failed"
REPOSITORY_UPKEEP = "repository_upkeep_failed"
ARCHIVE_TOO_SHORT = "archive_too_short"
REPOSITORY_DAMAGED = "repository_damaged"

# What helps, for those who are told of an alert by mail.
ADVICE: Mapping[str, str] = {
    BACKUP_FAILED: "Open the log of the policy's last backup, mend what it names, and run the policy again.",
    DR_FAILED: "Open the log of the backup whose copies failed. The backup itself is in its own region; the next DR"
    " of the policy copies again.",
    TARGET_REMOVED: "If the resource should still exist, look in AWS for what became of it; its backups are kept.",
    DEFAULT_KEY_USED: "Make a key with the alias of the source's key in the target region, or tag one with cpm_dr_key,"
    " if copies must have a key of your own.",
    CLEANUP_FAILED: "Open the cleanup log; what could not be deleted is tried again at the next cleanup.",
    S3_COPY_FAILED: "Open the log of the backup that was to be copied to S3 and mend what it names; the next backup is"
    " copied then. Copies that were made before are not affected.",
    S3_CLEANUP_FAILED: "Open the log of the policy's S3 cleanup; what could not be deleted is tried again every night.",
    REPOSITORY_DAMAGED: "See which backups `cpm repo verify` names. Run their policies: the next copy stores anew what its"
    " source still has. Restore from S3 versions of the bucket what it has not.",
    REPOSITORY_UPKEEP: "Open the log of the jobs `prune` and `extend_locks` of the repository. Until they work, space is not"
    " freed and locks run out; both are tried again every night.",
    ARCHIVE_FAILED: "Open the log of the policy's archiving. The copies stay in S3 and are archived by the next cleanup.",
    ARCHIVE_TOO_SHORT: "Keep archived backups at least a month longer than copies in S3, or keep copies in S3 shorter.",
    RETENTION_STUCK: "Mend or remove the targets that fail, so that a backup ends without an issue.",
}
GENERAL_ADVICE = "Open CPM for the details; the alert goes when its cause is gone."


def raise_alert(
    *,
    user: User,
    policy: Policy | None,
    category: str,
    title: str,
    message: str,
    now: datetime,
    severity: Severity = Severity.ERROR,
) -> None:
    """Make the alert, or bring the one that stands up to date."""
    Alert.objects.update_or_create(
        user=user,
        policy=policy,
        category=category,
        defaults={"severity": severity, "title": title[:255], "message_body": message, "alert_time": now},
    )


def clear_alert(*, user: User, policy: Policy | None, category: str) -> None:
    """Remove the alert if it stands."""
    Alert.objects.filter(user=user, policy=policy, category=category).delete()
