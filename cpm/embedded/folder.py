"""The data folder of one stack: its parts, its lock and its secrets.

```
DATA/            0700   cpm.lock, connection.json
DATA/secrets/    0700   one file a secret, 0600
DATA/postgres/   0700   the database files and the socket
DATA/redis/      0700   the append-only file
DATA/logs/              one log a part
DATA/run/               what lives only as long as the stack
```
"""

import fcntl
import os
import secrets as randomness
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cpm.embedded.errors import StackError
from cpm.lib.secrets import ensure_key_file


class FolderInUse(StackError):
    """Another stack runs in this data folder."""

    def __init__(self, path: Path, pid: str) -> None:
        super().__init__(
            f"Another `cpm up` (process {pid or 'unknown'}) is running in {path}. Stop it first, or choose another "
            "folder with --data."
        )


class DataFolder:
    """Creates what is missing and never loosens what exists."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs = self.subfolder("logs")
        self.run = self.subfolder("run")
        self.secrets = self.subfolder("secrets")

    def subfolder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Held by at most one process; the system releases it when that process dies, however it dies."""
        descriptor = os.open(self.path / "cpm.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderInUse(self.path, os.pread(descriptor, 32, 0).decode().strip()) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def secret(self, name: str) -> str:
        """The secret of that name, made up on first use: letters and digits only, safe in URLs and configurations."""
        return self.secret_file(name, randomness.token_hex(32)).read_text().strip()

    def field_keys_file(self) -> Path:
        """The key file of encrypted columns, with one key when it is new. Losing it loses the AWS secrets."""
        path = self.secrets / "field-keys"
        ensure_key_file(path)
        return path

    def secret_file(self, name: str, first_value: str) -> Path:
        """The file of a secret. It appears whole or not at all, and an existing one is never overwritten."""
        path = self.secrets / name
        if not path.exists():
            write_private(path, first_value + "\n")
        return path


def write_private(path: Path, text: str) -> None:
    """Writes a 0600 file that readers see whole or not at all, and that survives a power cut."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
