"""One operation in S3 at a time for each policy: a copy, a cleanup, archiving, or a recovery from S3.

The policy names the job that has it. A job that is over holds nothing, so whoever dies needs no successor to release
what it held.
"""

from cpm.jobs.context import StepContext
from cpm.lib.states import JobState
from cpm.models import Job, Policy

OPEN = (JobState.QUEUED, JobState.RUNNING)


def take(context: StepContext, policy: Policy) -> Job | None:
    """Take the policy for the step's job. Returns the open job that has it, or None when it is ours now.

    Raises `LeaseLost`.
    """
    with context.fenced():
        row = Policy.objects.select_for_update(of=("self",)).select_related("s3_job").get(pk=policy.pk)
        holder = row.s3_job
        if holder is not None and holder.pk != context.job_id and holder.state in OPEN:
            return holder
        Policy.objects.filter(pk=policy.pk).update(s3_job=context.job_id)
    return None


def running(policy: Policy) -> Job | None:
    """The operation that has the policy now."""
    holder = policy.s3_job
    return holder if holder is not None and holder.state in OPEN else None
