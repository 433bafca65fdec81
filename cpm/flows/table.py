"""Every step kind of every flow: the explicit table that the workers run by."""

from cpm.flows import (
    backup,
    catalogue_tags,
    dr_copy,
    errors,
    explore,
    notify,
    old_records,
    recover,
    repositories,
    retention,
    strays,
    worker_test,
)
from cpm.flows.s3 import archive, cleanup, copy, deletion, pruning, verification
from cpm.jobs.kinds import Engine, table

ENGINE = Engine(
    kinds=table(
        *backup.KINDS, *catalogue_tags.KINDS, *dr_copy.KINDS, *retention.KINDS, *old_records.KINDS, *recover.KINDS, *strays.KINDS,
        *notify.KINDS, *repositories.KINDS, *copy.KINDS, *worker_test.KINDS, *explore.KINDS,
        *archive.KINDS, *cleanup.KINDS, *deletion.KINDS, *pruning.KINDS, *verification.KINDS,
    ),
    classify=errors.classify,
)
QUEUES = {name: kind.queue for name, kind in ENGINE.kinds.items()}
