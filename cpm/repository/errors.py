"""What can go wrong with a repository. Every message names the object concerned and what would help."""


class RepositoryError(Exception):
    """Base of everything this package raises on purpose."""


class StoreError(RepositoryError):
    """The store refused a request for good; repeating it changes nothing."""


class StoreUnavailable(StoreError):
    """The store did not answer properly this time. The request may or may not have happened."""


class ObjectMissing(StoreError):
    """There is no object of that name."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} does not exist in the store.")
        self.key = key


class ObjectExists(StoreError):
    """An object of that name is there already, and was not replaced."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} exists already and is never overwritten.")
        self.key = key


class ObjectLocked(StoreError):
    """The object is under retention and cannot be deleted yet."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is locked by its retention; it can be deleted when that has passed.")
        self.key = key


class ObjectArchived(StoreError):
    """The object lies in an archive class and has to be retrieved before it can be read."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is in an archive storage class; request its retrieval, then read it.")
        self.key = key


class StoreUnsuitable(RepositoryError):
    """The store lacks a guarantee that a repository depends on."""


class NoRepository(RepositoryError):
    """The place holds no repository, or not all of one."""


class RepositoryExists(RepositoryError):
    """The place holds a repository already."""


class ForeignRepository(RepositoryError):
    """Another server owns the repository. Two servers in one repository would delete each other's copies."""


class WrongSecret(RepositoryError):
    """No key slot opens with this secret."""


class LastKeySlot(RepositoryError):
    """Without this slot nobody could ever open the repository again."""


class KeysChanged(RepositoryError):
    """Somebody else changed the key slots at the same moment; look at them and repeat."""


class Damaged(RepositoryError):
    """Bytes are not what was written: altered, cut short, or another object's.

    ``key`` names the object; ``block`` is the number of the block of the volume, where one is concerned.
    """

    def __init__(self, key: str, reason: str, block: int | None = None) -> None:
        where = key if block is None else f"{key}, needed for block {block}"
        super().__init__(f"{where}: {reason}")
        self.key = key
        self.reason = reason
        self.block = block


class StaleView(RepositoryError):
    """What this process knows of the repository is too old to rely on. Nothing is lost: go on from the cursor."""


class CopyConflict(RepositoryError):
    """Two processes wrote the same copy with different content."""


class CopyIncomplete(RepositoryError):
    """Parts of the volume have not been copied yet, so there is no copy to finish."""


class SlotUnknown(RepositoryError):
    """There is no key slot of that id."""
