"""Self-contained copies: an archive shares no pack with anything, so it can lie in Glacier and outlive its source."""

from collections.abc import Iterator

from cpm.repository.manifest import Manifest
from cpm.repository.reader import Reader
from cpm.repository.repository import Repository
from cpm.repository.store import Info


class CopySource:
    """A finished copy as the source of another one; every block is verified on the way."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.size = reader.manifest.draft.size

    def read_into(self, block: int, target: memoryview) -> int:
        data = self._reader.read(block)
        target[: len(data)] = data
        return len(data)


def packs_of(repository: Repository, archive: Manifest) -> Iterator[Info]:
    """The objects to be retrieved before the archive can be read, each with the state of its retrieval."""
    for info in repository.store.list(archive.draft.area.packs):
        yield repository.store.head(info.key)


def retrieve(repository: Repository, archive: Manifest, *, tier: str, days: int) -> int:
    """Request what is not retrieved yet; may be repeated. Returns how many objects are not readable yet."""
    waiting = 0
    for info in packs_of(repository, archive):
        if info.retrieval == "needed":
            repository.store.retrieve(info.key, tier=tier, days=days)
        waiting += info.retrieval in ("needed", "ongoing")
    return waiting
