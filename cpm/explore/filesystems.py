"""What every file system offers here, whichever library reads it: entries, their facts, and content at an offset."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["F", "D"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder.

    `name` is raw bytes, as names need not be UTF-8. `modified` counts seconds since 1970, None if unknown. `what`
    is empty for plain files and folders; anything else has no content here and says what it is, for instance
    "a symbolic link to ../x". Links are never followed.
    """

    name: bytes
    kind: Kind
    size: int
    modified: float | None
    node: int
    what: str = ""


class OpenFile(Protocol):
    """Content of a plain file. A read inside `size` returns exactly what was asked for, or raises OSError."""

    size: int

    def read(self, offset: int, length: int) -> bytes: ...


class FileSystem(Protocol):
    """A read-only file system. Nodes are its own numbers of files. Damage raises OSError."""

    root: int
    warnings: list[str]

    def entries(self, node: int) -> Iterator[Entry]:
        """The names in a folder, without `.` and `..`, in no particular order."""
        ...

    def open(self, node: int) -> OpenFile:
        """Raises UnsupportedForm when the content is stored in a way that cannot be decoded here."""
        ...


class UnsupportedForm(Exception):
    """Content that only its own operating system can decode; the text completes "the file is …"."""


def link_text(target: bytes | str | None) -> str:
    shown = target.decode("utf-8", "replace") if isinstance(target, bytes) else target
    return f"a symbolic link to {shown}" if shown else "a symbolic link"
