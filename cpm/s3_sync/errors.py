"""What can go wrong with a mirror: with its configuration, with one object, or with everything at once."""


class SyncError(Exception):
    """The message is for operators."""


class Unsuitable(SyncError):
    """A mirror of this configuration would harm its own source."""


class Skipped(SyncError):
    """This object cannot be copied now, through nobody's fault. ``reason`` is one of the constants below."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


ARCHIVED = "archived"
"""It lies in an archive class of S3 and would have to be retrieved first."""
CHANGED = "changed"
"""It was written anew after it had been listed; the next run finds the new one."""
VANISHED = "vanished"
"""It was deleted after it had been listed."""


class Refused(SyncError):
    """S3 does not let this object be copied or deleted; others may fare better."""


class Interrupted(SyncError):
    """The slice is to end while a large object is being copied. What was copied of it is kept and found again."""


class Halted(SyncError):
    """Nothing can go on, for a reason that no object is to blame for. ``transient``: it passes by itself."""

    def __init__(self, message: str, *, transient: bool) -> None:
        self.transient = transient
        super().__init__(message)
