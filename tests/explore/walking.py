"""All paths of a volume, as the manifests of the images describe them."""

import hashlib
from collections.abc import Iterator

from cpm.explore import paths
from cpm.explore.filesystems import Entry
from cpm.explore.sandbox import Session


def walk(session: Session, top: bytes) -> Iterator[tuple[bytes, Entry]]:
    """Every path below `top` but those in folders called `many`."""
    for entry in session.entries(top):
        path = paths.join(top, entry.name)
        yield path, entry
        if entry.kind == "D" and entry.name != b"many":
            yield from walk(session, path)


def seen(session: Session, volume: str) -> dict[str, list[object]]:
    """What the session shows of a volume: path to kind, size, SHA-256; links and special files as L and S."""
    top = b"/" + volume.encode()
    found: dict[str, list[object]] = {}
    for path, entry in walk(session, top):
        shown = path[len(top) :].decode("latin-1")
        if entry.kind == "D":
            found[shown] = ["D", 0, ""]
        elif entry.what.startswith("a symbolic link to "):
            found[shown] = ["L", 0, entry.what.removeprefix("a symbolic link to ")]
        elif entry.what:
            found[shown] = ["S", 0, ""]
        else:
            found[shown] = ["F", entry.size, digest(session, path)]
    return found


def digest(session: Session, path: bytes) -> str:
    content = hashlib.sha256()
    for piece in session.stream(path):
        content.update(piece)
    return content.hexdigest()
