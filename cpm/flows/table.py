"""Every step kind of every flow: the explicit table that the workers run by."""

from cpm.flows import errors
from cpm.flows.backups import backup
from cpm.flows.cleanup import old_records, retention, strays, whole_strays
from cpm.flows.dr import dr_copy
from cpm.flows.explore_sessions import explore
from cpm.flows.messages import notify
from cpm.flows.recoveries import recover
from cpm.flows.s3 import archive, cleanup, copy, deletion, pruning, repositories, verification
from cpm.flows.server import catalogue_tags
from cpm.flows.workers import worker_check
from cpm.jobs.kinds import Engine, table

ENGINE = Engine(
    kinds=table(
        *backup.KINDS, *catalogue_tags.KINDS, *dr_copy.KINDS, *retention.KINDS, *old_records.KINDS, *recover.KINDS, *strays.KINDS,
        *whole_strays.KINDS,
        *notify.KINDS, *repositories.KINDS, *copy.KINDS, *worker_check.KINDS, *explore.KINDS,
        *archive.KINDS, *cleanup.KINDS, *deletion.KINDS, *pruning.KINDS, *verification.KINDS,
    ),
    classify=errors.classify,
)
QUEUES = {name: kind.queue for name, kind in ENGINE.kinds.items()}
