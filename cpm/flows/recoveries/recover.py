"""Recoveries: the job of a recovery record, and all step kinds that it may have."""

from cpm.flows.recoveries import (
    recover_clean,
    recover_database,
    recover_finish,
    recover_instance,
    recover_share,
    recover_sources,
    recover_volume,
    recover_whole,
)
from cpm.flows.recoveries.recover_base import KIND, SUBJECT
from cpm.flows.s3 import restore, restore_files, restore_rows, retrieve
from cpm.jobs.kinds import StepKind, StepSpec
from cpm.jobs.queue import JobSpec
from cpm.lib.states import RecoveryType
from cpm.models import Recovery
from cpm.resources.registry import WHOLE

PLANS = {
    RecoveryType.VOLUME: "recover.plan_volume",
    RecoveryType.INSTANCE: "recover.plan_instance",
    **{kind.recovery_type: "recover.plan_whole" for kind in WHOLE},
}


def job(recovery: Recovery, *, secret: str = "") -> JobSpec:
    """The job of a new recovery record. `secret` is the encrypted credentials for it, if any were given."""
    kind = RecoveryType(recovery.recovery_type)
    from_export = recovery.from_s3 and kind is RecoveryType.RDS_DATABASE
    first = StepSpec(recover_database.PLAN if from_export else PLANS[kind])
    return JobSpec(KIND, SUBJECT, recovery.pk, [first], user_id=recovery.user_id, secret=secret)


KINDS: tuple[StepKind, ...] = (
    *recover_volume.KINDS,
    *recover_instance.KINDS,
    *recover_whole.KINDS,
    *recover_share.KINDS,
    *recover_sources.KINDS,
    *recover_database.KINDS,
    *restore_files.KINDS,
    *restore_rows.KINDS,
    *recover_clean.KINDS,
    *recover_finish.KINDS,
    *retrieve.KINDS,
    *restore.KINDS,
)
QUEUES = {kind.name: kind.queue for kind in KINDS}
