"""The last line of a usage report: a signature over every byte before it.

    Signature: ed25519 <key id> <base64>

It is Ed25519 over the SHA-512 digest of those bytes, behind a line of text that no other signature of ours begins
with, so it can be made while the report is being sent. Anybody who has the public key can check it, without this
server. The private keys are in a file of the server's, newest first: reports are signed with the first and checked
against all of them.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cpm.lib.secrets import KeyFileError, ensure_key_file, load_keys

_PURPOSE = b"CPM usage report, version 1\n"
_LINE = re.compile(rb"Signature: ed25519 ([0-9a-f]{16}) ([A-Za-z0-9+/]{86}==)\n")
_START = b"Signature: ed25519 "
_BLOCK = 256 * 1024


class Verdict(StrEnum):
    """What a file's signature says."""

    GOOD = "good"
    ALTERED = "altered"
    UNKNOWN_KEY = "unknown key"
    NOT_SIGNED = "not signed"


class PublicKeyError(ValueError):
    """A text is no public key of ours."""


def private_keys(path: Path, *, make: bool) -> list[Ed25519PrivateKey]:
    """The keys in the file, newest first; `make` makes it at first use. Raises `KeyFileError`."""
    try:
        if make:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = ensure_key_file(path) if make else load_keys(path)
    except OSError as error:
        raise KeyFileError(f"The key file {path} cannot be made: {error.strerror}.") from error
    return [Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(key)) for key in held]


def show(key: Ed25519PublicKey) -> str:
    """A public key as a text of 44 characters."""
    return base64.b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def read(text: str) -> Ed25519PublicKey:
    """The public key that `show` has written. Raises `PublicKeyError`."""
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text.strip(), validate=True))
    except (ValueError, binascii.Error):
        raise PublicKeyError("This is no public key; it is the line that `cpm report key` prints.") from None


def key_id(key: Ed25519PublicKey) -> str:
    """The short name of a key, as signatures carry it."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def signed(pieces: Iterator[bytes], key: Ed25519PrivateKey) -> Iterator[bytes]:
    """The pieces as they come, and then the line that signs them. An exception of theirs leaves the line out."""
    digest = hashlib.sha512()
    for piece in pieces:
        digest.update(piece)
        yield piece
    value = base64.b64encode(key.sign(_PURPOSE + digest.digest())).decode()
    yield f"Signature: ed25519 {key_id(key.public_key())} {value}\n".encode()


def verify(file: BinaryIO, keys: Sequence[Ed25519PublicKey]) -> Verdict:
    """Whether the file is byte for byte what one of the keys has signed. It may be of any size."""
    digest = hashlib.sha512()
    last, elsewhere = b"", False
    for line in _lines(file):
        elsewhere = elsewhere or last.startswith(_START)
        digest.update(last)
        last = line
    found = _LINE.fullmatch(last)
    if found is None:
        # A line that looks like a signature, but is spoilt or not the last one, was one once.
        return Verdict.ALTERED if elsewhere or last.startswith(_START) else Verdict.NOT_SIGNED
    key = next((key for key in keys if key_id(key) == found.group(1).decode()), None)
    if key is None:
        return Verdict.UNKNOWN_KEY
    value = base64.b64decode(found.group(2))
    try:
        key.verify(value, _PURPOSE + digest.digest())
    except InvalidSignature:
        return Verdict.ALTERED
    # The last letter has bits that mean nothing; a changed one is a change all the same.
    return Verdict.GOOD if base64.b64encode(value) == found.group(2) else Verdict.ALTERED


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; an overlong one in parts, none of which is taken for a signature."""
    return iter(lambda: file.readline(_BLOCK), b"")
