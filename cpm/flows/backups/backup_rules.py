"""What the outcome of a backup run is called, and when it counts as a success. Pure but for the policy's row."""

from cpm.lib.states import BackupStatus, ConsideredSuccessful
from cpm.models import Policy


def status_of(
    worked: int, failed: int, scripts_failed: bool, what: str = "snapshots"
) -> tuple[BackupStatus, str]:
    """The final letter from what worked, and a sentence for people about `what` there was."""
    if not worked:
        return BackupStatus.FAILED, "No snapshot succeeded." if what == "snapshots" else f"None of the {what} succeeded."
    if failed:
        return BackupStatus.SOME_FAILED, f"{worked} {what} succeeded, {failed} failed."
    if scripts_failed:
        return BackupStatus.PARTIAL, f"All {worked} {what} succeeded, but a script failed."
    return BackupStatus.SUCCESSFUL, f"All {worked} {what} succeeded."


def good_enough(status: str, policy: Policy) -> bool:
    """Whether a run with this status counts as a success of the policy (for retries, alerts and retention)."""
    if policy.considered_successful == ConsideredSuccessful.SNAPSHOTS:
        return status in {BackupStatus.SUCCESSFUL, BackupStatus.PARTIAL}
    return status == BackupStatus.SUCCESSFUL
