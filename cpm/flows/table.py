"""Every step kind of every flow: the explicit table that the workers run by."""

from cpm.flows import (
    backup,
    catalogue_tags,
    dr_copy,
    errors,
    notify,
    recover,
    repositories,
    retention,
    strays,
)
from cpm.jobs.kinds import Engine, table

ENGINE = Engine(
    kinds=table(
        *backup.KINDS, *catalogue_tags.KINDS, *dr_copy.KINDS, *retention.KINDS, *recover.KINDS, *strays.KINDS,
        *notify.KINDS, *repositories.KINDS,
    ),
    classify=errors.classify,
)
QUEUES = {name: kind.queue for name, kind in ENGINE.kinds.items()}
