"""What is known of a repository's health: the result of its last verification, and the alert that follows from it."""

from datetime import datetime

from cpm.flows.messages import alerting
from cpm.lib.states import Severity, VerifyDepth, VerifyResult
from cpm.models import S3Repository, User

_SICK = (VerifyResult.DAMAGED, VerifyResult.FAILED)


def remember(
    row: S3Repository, depth: VerifyDepth, result: VerifyResult, details: str, *, now: datetime
) -> None:
    """Store how a verification ended, and have the alert say so. Needs a transaction."""
    S3Repository.objects.filter(pk=row.pk).update(
        last_verified_at=now, last_verify_depth=depth, last_verify_result=result, last_verify_details=details
    )
    refresh_alert(row.user, now=now)


def refresh_alert(user: User, *, now: datetime) -> None:
    """One alert tells of all repositories of a user that are damaged, or that nobody could verify. Needs a transaction."""
    rows = S3Repository.objects.select_for_update(of=("self",), no_key=True).filter(user=user).order_by("pk")
    sick = [row for row in rows if row.last_verify_result in _SICK]
    if not sick:
        alerting.clear_alert(user=user, policy=None, category=alerting.REPOSITORY_DAMAGED)
        return
    damaged = [row for row in sick if row.last_verify_result == VerifyResult.DAMAGED]
    names = ", ".join(row.name for row in damaged or sick)
    alerting.raise_alert(
        user=user,
        policy=None,
        category=alerting.REPOSITORY_DAMAGED,
        severity=Severity.CRITICAL if damaged else Severity.ERROR,
        title=f"S3 repository damaged: {names}" if damaged else f"S3 repository not verified: {names}",
        message="\n\n".join(f"{row.name}: {row.last_verify_details}" for row in sick),
        now=now,
    )
