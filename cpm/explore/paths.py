"""Paths inside a session: bytes, split at slashes, the first part being a volume.

Names are bytes on the disk and need not be text. `friendly` turns a path into characters that survive every URL,
query string and JSON unchanged; `display` is for people only.
"""

import re

UNESCAPED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._/")
ESCAPED = re.compile(r"~([0-9A-F]{2})")


def parts(path: bytes) -> list[bytes]:
    """The names in `path`. Dots mean nothing special on a backup, so `..` is a name that no folder has."""
    return [part for part in path.split(b"/") if part]


def join(folder: bytes, name: bytes) -> bytes:
    return folder.rstrip(b"/") + b"/" + name


def parent(path: bytes) -> bytes:
    return b"/" + b"/".join(parts(path)[:-1])


def display(path: bytes) -> str:
    """For people: bytes that are no text are replaced, so this leads nowhere."""
    return path.decode("utf-8", "replace")


def friendly(path: bytes) -> str:
    """`path` in letters, digits and `-._/~`; everything else is `~` and two hexadecimal digits."""
    return "".join(chr(byte) if byte in UNESCAPED else f"~{byte:02X}" for byte in path)


def from_friendly(text: str) -> bytes:
    """The inverse of `friendly`. Text that it did not make keeps what is not an escape as it is."""
    if not text.isascii():
        return text.encode("utf-8", "surrogateescape")
    return ESCAPED.sub(lambda found: chr(int(found.group(1), 16)), text).encode("latin-1")


def candidates(text: str) -> list[bytes]:
    """What a client that sends `text` may mean: the plain path, or a friendly one. The first that exists counts."""
    plain = text.encode("utf-8", "surrogateescape")
    escaped = from_friendly(text)
    return [plain] if plain == escaped else [plain, escaped]
