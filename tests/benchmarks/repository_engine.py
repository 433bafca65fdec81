"""One operation of the repository as a process of its own, as restic and borg run: `repository_engine OP ARGUMENTS`."""

import json
import sys
import uuid
from pathlib import Path

from cpm.repository.blocks import BLOCK_BYTES
from cpm.repository.copying import FileSource, copy_volume
from cpm.repository.keys import RawKey
from cpm.repository.manifest import Draft
from cpm.repository.reader import Reader
from cpm.repository.repository import Repository, create, open_repository
from cpm.repository.store_local import LocalStore
from cpm.repository.verify import Depth, verify

SECRET = RawKey(b"benchmark" * 4)
OWNER = uuid.UUID(int=1)


def opened(folder: str) -> Repository:
    return open_repository(LocalStore(folder), SECRET, owner=OWNER)


def init(folder: str) -> None:
    create(LocalStore(folder), SECRET, owner=OWNER)


def copy(folder: str, image: str, copy_id: str, parent: str = "", changed: str = "") -> None:
    """With ``changed``, a file of block numbers, only these are read; with a parent alone all are compared."""
    repository, source = opened(folder), FileSource(image)
    blocks = json.loads(Path(changed).read_text()) if changed else None
    base = repository.copy(parent) if parent else None
    copy_volume(
        repository,
        Draft(copy_id, "vol-bench", source.size, "2026-11-21T00:00:00+00:00"),
        source,
        parent=base,
        changed=blocks,
    )


def restore(folder: str, copy_id: str, target: str) -> None:
    repository = opened(folder)
    Reader(repository, repository.copy(copy_id)).restore(target)


def check(folder: str) -> None:
    report = verify(opened(folder), Depth.FULL)
    if report.findings:
        raise SystemExit(str(report.findings[:3]))


class Huge:
    """16 TiB, of which one block in 1024 holds the same few contents."""

    size = 16 << 40

    def __init__(self) -> None:
        self.used = range(0, self.size // BLOCK_BYTES, 1024)
        self._contents = [bytes([number]) * BLOCK_BYTES for number in range(1, 9)]

    def read_into(self, number: int, target: memoryview) -> int:
        target[:] = self._contents[number // 1024 % 8]
        return len(target)


def huge(folder: str) -> None:
    """Copy such a volume and list it; only its peak of memory is of interest."""
    repository, source = opened(folder), Huge()
    plan = Draft("f" * 32, "vol-huge", source.size, "2026-11-21T00:00:00+00:00")
    copy = copy_volume(repository, plan, source, changed=source.used)
    listed = sum(1 for _ in Reader(repository, copy).allocated())
    if listed != len(source.used):
        raise SystemExit(f"{listed} blocks instead of {len(source.used)}")


def nothing() -> None:
    """Start-up and imports, to be taken out."""


if __name__ == "__main__":
    {"init": init, "copy": copy, "restore": restore, "check": check, "huge": huge, "nothing": nothing}[
        sys.argv[1]
    ](*sys.argv[2:])
