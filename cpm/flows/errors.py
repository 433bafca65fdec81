"""How flows treat exceptions of their steps: retry what may pass, fail with words for operators otherwise."""

from cpm.aws.errors import AwsError, Throttled, Unreachable
from cpm.jobs.kinds import Verdict
from cpm.lib.errors import DomainError
from cpm.lib.secrets import KeyFileError, SecretUnreadable
from cpm.repository.errors import RepositoryError, StaleView, StoreUnavailable
from cpm.s3_sync.errors import Halted


def classify(error: Exception) -> Verdict:
    """The verdict on an exception.

    Throttling is AWS asking us to wait, so it is retried without counting as a failure. A lost connection may
    hide a call that was carried out: the intent stays, and the retry looks before it creates.
    """
    if isinstance(error, Throttled):
        return Verdict(error.explain(), retry=True, retry_after=max(error.retry_after, 2.0), counts=False)
    if isinstance(error, Unreachable):
        return Verdict(error.explain(), retry=True, definite=not error.maybe_done)
    if isinstance(error, AwsError):
        return Verdict(error.explain(), retry=error.transient)
    if isinstance(error, Halted):
        return Verdict(str(error), retry=error.transient)
    if isinstance(error, StaleView):
        # A slow slice, or a worker that stood still: the next one looks anew and goes on from the cursor.
        return Verdict(str(error), retry=True, retry_after=1.0, counts=False)
    if isinstance(error, RepositoryError):
        return Verdict(str(error), retry=isinstance(error, StoreUnavailable), definite=False)
    if isinstance(error, DomainError | SecretUnreadable | KeyFileError):
        return Verdict(str(error), retry=False)
    return Verdict(f"Internal error: {type(error).__name__}: {error}", retry=True, definite=False)
