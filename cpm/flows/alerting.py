"""Raising and clearing alerts from inside flows. An alert is a state: it goes when its cause goes."""

from datetime import datetime

from cpm.lib.states import Severity
from cpm.models import Alert, Policy, User

BACKUP_FAILED = "backup_failed"
DR_FAILED = "dr_failed"
TARGET_REMOVED = "target_removed"
DEFAULT_KEY_USED = "dr_default_key_used"
CLEANUP_FAILED = "cleanup_failed"
RETENTION_STUCK = "retention_stuck"


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
