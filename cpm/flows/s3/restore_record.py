"""How far a recovery from S3 is, on its record: one percentage for each volume, and the status of the whole."""

import time
from collections.abc import Iterable

from cpm.jobs.context import StepContext
from cpm.lib.states import CopyStatus, StepState
from cpm.models import Recovery, Step

RUNNING = (CopyStatus.NOT_STARTED, CopyStatus.INITIALIZING, CopyStatus.IN_PROGRESS, CopyStatus.ABORTING)


class Progress:
    """Tells of one volume, at most once a second. `what` is "s3" or "retrieve"."""

    def __init__(self, context: StepContext, what: str = "s3") -> None:
        self._context = context
        self._what = what
        self._told = 0.0

    def at(self, percent: int, message: str, *, now: bool = False) -> None:
        """Raises `LeaseLost`."""
        if not now and time.monotonic() - self._told < 1:
            return
        self._told = time.monotonic()
        self._context.progress(percent, message)
        with self._context.fenced():
            show(self._context, percent, self._what)


def show(context: StepContext, percent: int, what: str = "s3") -> None:
    """Write the percentage of the step's volume. Belongs into a transaction that the lease guards."""
    row = Recovery.objects.select_for_update(of=("self",)).get(pk=context.subject_id)
    progress, status = f"{what}_progress", f"{what}_status"
    shown = list(getattr(row, progress))
    index = context.payload["index"]
    if index < len(shown):
        shown[index] = percent
    changed: dict[str, object] = {progress: shown}
    if getattr(row, status) in {CopyStatus.NOT_STARTED, CopyStatus.INITIALIZING}:
        changed[status] = CopyStatus.IN_PROGRESS
    Recovery.objects.filter(pk=row.pk).update(**changed)


def outcome(steps: Iterable[Step], *, aborted: bool) -> CopyStatus:
    """What became of the steps that bring volumes, once all are over."""
    states = [step.state for step in steps]
    if states and all(state == StepState.SUCCEEDED for state in states):
        return CopyStatus.COMPLETED
    if aborted:
        return CopyStatus.ABORTED
    return CopyStatus.PARTIAL if StepState.SUCCEEDED in states else CopyStatus.FAILED
