"""Recoveries: the job of a recovery record, and all step kinds that it may have."""

from cpm.flows.recoveries import (
    recover_clean,
    recover_finish,
    recover_instance,
    recover_sources,
    recover_volume,
)
from cpm.flows.recoveries.recover_base import KIND, SUBJECT
from cpm.flows.s3 import restore, retrieve
from cpm.jobs.kinds import StepKind, StepSpec
from cpm.jobs.queue import JobSpec
from cpm.lib.states import RecoveryType
from cpm.models import Recovery

PLANS = {RecoveryType.VOLUME: "recover.plan_volume", RecoveryType.INSTANCE: "recover.plan_instance"}


def job(recovery: Recovery, *, secret: str = "") -> JobSpec:
    """The job of a new recovery record. `secret` is the encrypted credentials for it, if any were given."""
    first = StepSpec(PLANS[RecoveryType(recovery.recovery_type)])
    return JobSpec(KIND, SUBJECT, recovery.pk, [first], user_id=recovery.user_id, secret=secret)


KINDS: tuple[StepKind, ...] = (
    *recover_volume.KINDS,
    *recover_instance.KINDS,
    *recover_sources.KINDS,
    *recover_clean.KINDS,
    *recover_finish.KINDS,
    *retrieve.KINDS,
    *restore.KINDS,
)
QUEUES = {kind.name: kind.queue for kind in KINDS}
