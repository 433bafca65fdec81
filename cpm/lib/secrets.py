"""Secrets at rest, API keys, and keeping both out of logs.

The key file is the one secret a server cannot store in its database: without it no AWS secret can be read
again. It holds one Fernet key a line, newest first. New values are encrypted with the first key and old
values stay readable as long as their key is listed, so keys are replaced by adding one, rotating all values,
and only then removing the old line.
"""

import base64
import binascii
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

MASK = "***"
API_KEY_PREFIX = "cpm_"


class SecretUnreadable(Exception):
    """A stored secret cannot be decrypted: its key is gone from the key file, or the value was altered."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        super().__init__(
            f"A stored secret was encrypted with key {key_id or '(unknown)'}, which the key file "
            "lacks, or it was altered. Put the key back into the key file, or enter the secret again."
        )


class KeyFileError(Exception):
    """The key file is missing, open to others, empty or malformed. The message never shows a key."""


def key_id(key: bytes) -> str:
    """A short public name for a key: it tells keys apart and reveals nothing about them."""
    return hashlib.sha256(b"cpm key id" + key).hexdigest()[:8]


class SecretBox:
    """Encrypts short texts. Values look like ``<key id>:<token>``, so a query finds those under an old
    key."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise KeyFileError("At least one encryption key is needed.")
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except (ValueError, binascii.Error):
            raise KeyFileError("An encryption key is malformed; each must be a Fernet key.") from None
        self.key_ids: tuple[str, ...] = tuple(key_id(key) for key in keys)

    def __repr__(self) -> str:
        return f"SecretBox(keys={', '.join(self.key_ids)})"

    def encrypt(self, text: str) -> str:
        return f"{self.key_ids[0]}:{self._fernet.encrypt(text.encode()).decode()}"

    def decrypt(self, token: str) -> str:
        """The text, or ``SecretUnreadable``; never an empty or partial answer."""
        name, _, body = token.rpartition(":")
        try:
            return self._fernet.decrypt(body.encode()).decode()
        except InvalidToken:
            raise SecretUnreadable(name) from None

    def needs_rotation(self, token: str) -> bool:
        return token.rpartition(":")[0] != self.key_ids[0]

    def rotate(self, token: str) -> str:
        """The same secret under the newest key; a value that is already there comes back unchanged."""
        if not self.needs_rotation(token):
            return token
        name, _, body = token.rpartition(":")
        try:
            return f"{self.key_ids[0]}:{self._fernet.rotate(body.encode()).decode()}"
        except InvalidToken:
            raise SecretUnreadable(name) from None


def keys_for(purpose: str, keys: Iterable[bytes]) -> list[bytes]:
    """Keys made out of those of the key file, for values that must not be exchangeable with any others."""
    return [
        base64.urlsafe_b64encode(hmac.digest(key, b"cpm " + purpose.encode(), "sha256")) for key in keys
    ]


def generate_key() -> bytes:
    return Fernet.generate_key()


def load_keys(path: Path) -> list[bytes]:
    """The keys of the file, newest first. Refuses a file that anybody but its owner may read or write."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read()
    except OSError as error:
        raise KeyFileError(f"The key file {path} cannot be read: {error.strerror}.") from error
    if mode & 0o077:
        raise KeyFileError(f"The key file {path} has mode {mode:04o}; it must be 0600. Run: chmod 600 {path}")
    keys = [line.strip() for line in content.splitlines() if line.strip()]
    if not keys:
        raise KeyFileError(f"The key file {path} is empty.")
    for number, key in enumerate(keys, start=1):
        if not _is_fernet_key(key):
            raise KeyFileError(f"Key number {number} of the key file {path} is malformed.")
    return keys


def _is_fernet_key(key: bytes) -> bool:
    try:
        return len(base64.urlsafe_b64decode(key)) == 32
    except (ValueError, binascii.Error):
        return False


def add_key_to_file(path: Path) -> str:
    """Puts a fresh key first into the file, creating it with mode 0600 if need be, and returns the key's id.

    The file is replaced in one move, so a reader sees the old keys or the new ones, and a crash loses none.
    """
    with _locked(path):
        old = load_keys(path) if path.exists() else []
        new = generate_key()
        _replace(path, b"".join(key + b"\n" for key in [new, *old]))
    return key_id(new)


def ensure_key_file(path: Path) -> list[bytes]:
    """The keys of the file, made with one key if it does not exist; processes that start at once agree on
    it."""
    with _locked(path):
        if not path.exists():
            _replace(path, generate_key() + b"\n")
        return load_keys(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    target = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(target, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def new_api_key() -> str:
    """A key of 256 random bits whose prefix lets secret scanners recognise it."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


def hash_api_key(key: str) -> str:
    """What is stored of an API key. A plain hash is enough: 256 random bits cannot be guessed, unlike a
    password."""
    return hashlib.sha256(key.encode()).hexdigest()


def redact(text: str, secrets: Iterable[str | None]) -> str:
    """``text`` without any of the secrets, neither as they are nor as they look inside a URL."""
    forms = {form for secret in secrets if secret for form in (secret, quote(secret, safe=""), quote(secret))}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


_SECRET_NAME = re.compile(
    r"secret|passw(or)?d|passphrase|api_?key|private_?key|authorization|credential|cookie|signature"
    r"|(^|_|-)token$|token_?(value|text)$|(access|refresh|session|security|auth|bearer)_?token|^external_?id$"
    r"|^user_?data$|database_url|redis_url|dsn$",
    re.IGNORECASE,
)
# Names that match the above but only ever hold ids or paging marks that operators need to see.
_HARMLESS_NAME = re.compile(
    r"^(step|client|next|pagination|idempotency)_?token$|_key_id$|_id$", re.IGNORECASE
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        MASK,
    ),
    (re.compile(r"\b(bearer|basic|apikey)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"([a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@", re.IGNORECASE), rf"\1:{MASK}@"),
    (re.compile(rf"\b{API_KEY_PREFIX}[A-Za-z0-9_-]{{40,}}"), MASK),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"), MASK),
    (re.compile(r"\bgAAAAA[A-Za-z0-9_-]{40,}={0,2}"), MASK),
    (
        re.compile(
            r"((?:secret|passw(?:or)?d|passphrase|api_?key|private_?key|security[_-]?token|session_?token"
            r"|x-amz-signature|signature)[\w-]*[\"']?\s*[=:]\s*[\"']?)(?!\*\*\*)[^\s\"'&,;)}>]{4,}",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    # An AWS secret key is 40 characters of base64. A lower-case hex digest of that length is not one.
    (
        re.compile(
            r"(?<![A-Za-z0-9/+])(?=[A-Za-z0-9/+]{0,39}[A-Z])(?=[A-Za-z0-9/+]{0,39}[a-z])[A-Za-z0-9/+]{40}"
            r"(?![A-Za-z0-9/+])"
        ),
        MASK,
    ),
    # An STS session token: base64 far longer than any digest, key or id that is worth logging.
    (re.compile(r"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{160,}={0,2}"), MASK),
)


def scrub_text(text: str) -> str:
    """``text`` with everything masked that looks like a key, token, password in a URL, or AWS secret."""
    if len(text) < 8:
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def scrub_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: masks fields named like secrets and texts that look like them, at any depth.

    Put it after the processor that renders exceptions to text, so that tracebacks pass through it too.
    """
    for name, value in list(event.items()):
        if name != "exc_info":
            event[name] = _scrub(name, value)
    return event


def is_secret_name(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not _HARMLESS_NAME.search(name)


def _scrub(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if is_secret_name(name):
        return MASK if value != "" else value
    if isinstance(value, str):
        return scrub_text(value)
    if isinstance(value, bytes):
        return scrub_text(value.decode(errors="replace"))
    if isinstance(value, Mapping):
        return {key: _scrub(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_scrub("", item) for item in value]
    shown = repr(value)
    scrubbed = scrub_text(shown)
    return value if scrubbed == shown else scrubbed
