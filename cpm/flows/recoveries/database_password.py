"""The password of the master user of a database that a recovery makes: kept with the job alone, and erased with it."""

import json

from cpm.flows.identities import decrypt_secret
from cpm.flows.recoveries.recover_base import refused
from cpm.jobs.context import StepContext

FIELD = "master_password"


def given(context: StepContext) -> str:
    """The password that the request brought. Raises PreconditionFailed when it was erased meanwhile."""
    secret = context.job_secret()
    found = json.loads(decrypt_secret(secret)).get(FIELD) if secret else None
    if not found:
        raise refused("The password of the new database is not known any more; start the recovery again.")
    return str(found)
