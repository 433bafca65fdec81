"""Whether the scripts of a run worked: what later scripts are told, and what the record's status shows."""

from cpm.jobs.context import StepContext
from cpm.lib.states import StepState
from cpm.models import Snapshot, Step

# A failed VSS attempt counts as a failed script: the snapshots that replace it are good, but not quiesced.
SCRIPT_KINDS = ("backup.script", "backup.agent_script", "backup.start_vss")


def worked(context: StepContext, kind: str, phase: str, target: int | None = None) -> str:
    """Whether the scripts of a phase succeeded, as 1 or 0. With `target` only those of its instance."""
    steps = Step.objects.filter(job_id=context.job_id, kind=kind, payload__phase=phase)
    if target is not None:
        steps = steps.filter(payload__target=target)
    return "0" if steps.exclude(state=StepState.SUCCEEDED).exists() else "1"


def everything_worked(context: StepContext) -> str:
    """Whether every script up to now and every snapshot of the run succeeded, as 1 or 0."""
    steps = Step.objects.filter(job_id=context.job_id, kind__in=SCRIPT_KINDS).exclude(
        state=StepState.SUCCEEDED
    )
    open_phases = set(steps.values_list("payload__phase", flat=True)) - {"complete"}
    failed = Snapshot.objects.filter(backup_id=context.subject_id, succeeded=False).exists()
    return "0" if open_phases or failed else "1"
