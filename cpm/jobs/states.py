"""States of jobs and steps, and the rules between them. Pure: no Django, no clock.

A step moves READY -> RUNNING <-> WAITING -> SUCCEEDED | FAILED | CANCELLED. RUNNING may fall back to
READY (a retry, or a lease that ran out). The last three are final.
"""

from collections.abc import Iterable

from cpm.lib.states import JobState, StepState

FINAL_STEP_STATES = frozenset({StepState.SUCCEEDED, StepState.FAILED, StepState.CANCELLED})
FINAL_JOB_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


def job_state(steps: Iterable[StepState]) -> JobState:
    """The state of a job as the one function of its steps' states.

    A job without steps has succeeded. A failed step makes the job failed; without a failure a
    cancelled one makes it cancelled.
    """
    seen = set(steps)
    if seen <= FINAL_STEP_STATES:
        if StepState.FAILED in seen:
            return JobState.FAILED
        return JobState.CANCELLED if StepState.CANCELLED in seen else JobState.SUCCEEDED
    if seen <= {StepState.READY}:
        return JobState.QUEUED
    return JobState.RUNNING
