"""One operation of the repository as a process of its own, as restic and borg run: `repository_engine OP ARGUMENTS`."""

import json
import sys
import uuid
from pathlib import Path

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


def nothing() -> None:
    """Start-up and imports, to be taken out."""


if __name__ == "__main__":
    {"init": init, "copy": copy, "restore": restore, "check": check, "nothing": nothing}[sys.argv[1]](
        *sys.argv[2:]
    )
