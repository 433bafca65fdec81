"""A store in a directory: an object is a file, complete from the moment it has its name."""

import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cpm.repository.errors import ObjectExists, ObjectLocked, ObjectMissing, StoreError, StoreUnavailable
from cpm.repository.store import Buffer, Info, PutOptions

UNFINISHED = ".unfinished"
LOCKS = ".locks"


class LocalStore:
    """Objects survive a power cut once `put` has returned: file and directory are synced.

    Retention is kept in a file beside the object, so that Object Lock can be rehearsed without S3; whoever may
    write to the directory can of course remove it.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._known: set[Path] = set()
        self._directory(self.root / UNFINISHED)

    def _directory(self, path: Path) -> None:
        if path not in self._known:
            path.mkdir(parents=True, exist_ok=True)
            self._known.add(path)

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not key or any(part in ("", ".", "..") or part.startswith(".") for part in parts):
            raise StoreError(f"{key!r} is no name of an object.")
        return self.root.joinpath(*parts)

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = True, options: PutOptions | None = None
    ) -> None:
        path = self._path(key)
        self._directory(path.parent)
        unfinished = self.root / UNFINISHED / uuid.uuid4().hex
        try:
            with open(unfinished, "xb", buffering=0) as file:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            if options and options.retain_until:
                self._lock(key, options.retain_until)
            if if_absent:
                os.link(unfinished, path)
                unfinished.unlink()
            else:
                unfinished.replace(path)
        except FileExistsError:
            unfinished.unlink(missing_ok=True)
            raise ObjectExists(key) from None
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise StoreError(f"{key} could not be written: {error.strerror}.") from error
            raise StoreUnavailable(f"{key} could not be written: {error.strerror}.") from error
        self._sync(path.parent)

    @staticmethod
    def _sync(directory: Path) -> None:
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._opened(key) as handle:
            size = os.fstat(handle.fd).st_size
            wanted = max(0, size - start) if length is None else min(length, max(0, size - start))
            return os.pread(handle.fd, wanted, start)

    def read_into(self, key: str, start: int, target: memoryview) -> int:
        done = 0
        with self._opened(key) as handle:
            while done < len(target):
                count = os.preadv(handle.fd, [target[done:]], start + done)
                if not count:
                    break
                done += count
        return done

    def _opened(self, key: str) -> "_Handle":
        try:
            return _Handle(os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC))
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(key) from None
        except OSError as error:
            raise StoreUnavailable(f"{key} could not be read: {error.strerror}.") from error

    def head(self, key: str) -> Info:
        try:
            found = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(key) from None
        return Info(key, found.st_size, found.st_mtime, retain_until=self._locked_until(key))

    def list(self, prefix: str) -> Iterator[Info]:
        folder, _, _ = prefix.rpartition("/")
        start = self.root / folder if folder else self.root
        found = []
        for directory, names, files in os.walk(start):
            names[:] = [name for name in names if not name.startswith(".")]
            base = os.path.relpath(directory, self.root)
            for name in files:
                key = name if base == "." else f"{base}/{name}"
                if key.startswith(prefix):
                    try:
                        entry = os.stat(os.path.join(directory, name))
                    except FileNotFoundError:
                        continue
                    found.append(Info(key, entry.st_size, entry.st_mtime))
        return iter(sorted(found, key=lambda info: info.key))

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            until = self._locked_until(key)
            if until and until > datetime.now(UTC):
                raise ObjectLocked(key)
            self._path(key).unlink(missing_ok=True)
            if until:
                self._lock_path(key).unlink(missing_ok=True)

    def retain(self, key: str, until: datetime, mode: str) -> None:
        self.head(key)
        known = self._locked_until(key)
        if known is None or known < until:
            self._lock(key, until)

    def retrieve(self, key: str, *, tier: str, days: int) -> None:
        # A directory has no archive class: everything is readable at once.
        self.head(key)

    def discard_unfinished(self, older_than: float) -> int:
        count = 0
        for path in (self.root / UNFINISHED).iterdir():
            try:
                if path.stat().st_mtime <= older_than:
                    path.unlink()
                    count += 1
            except FileNotFoundError:
                continue
        return count

    def _lock_path(self, key: str) -> Path:
        return self.root / LOCKS / key.replace("/", "_")

    def _lock(self, key: str, until: datetime) -> None:
        path = self._lock_path(key)
        self._directory(path.parent)
        path.write_text(until.isoformat())

    def _locked_until(self, key: str) -> datetime | None:
        try:
            return datetime.fromisoformat(self._lock_path(key).read_text())
        except FileNotFoundError:
            return None


class _Handle:
    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> "_Handle":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
