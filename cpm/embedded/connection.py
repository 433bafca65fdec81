"""The connection file: how people, programs and our own commands reach a running stack."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cpm.embedded.folder import write_private

FILE_NAME = "connection.json"
_SOURCE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Connection:
    """What the file holds. The AWS part is there only when the stack simulates AWS."""

    api_url: str
    api_key: str
    admin_url: str
    admin_user: str
    admin_password: str
    database_url: str
    redis_url: str
    aws_endpoint_url: str | None = None
    aws_access_key_id: str | None = None
    aws_secret_access_key: str | None = None
    aws_regions: list[str] | None = None
    simulator_control_url: str | None = None

    def write(self, path: Path) -> None:
        """A 0600 file that readers see whole or not at all."""
        held = {name: value for name, value in asdict(self).items() if value is not None}
        write_private(path, json.dumps(held, indent=2) + "\n")


def default_data_folder(environ: Mapping[str, str]) -> Path:
    """CPM_DATA, else `data` in a source checkout, else the user's data folder."""
    if environ.get("CPM_DATA"):
        return Path(environ["CPM_DATA"])
    if (_SOURCE / "pyproject.toml").is_file():
        return _SOURCE / "data"
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "cpm"


def secret_files(data: Path) -> dict[str, Path]:
    """Where a stack keeps the secrets that the settings read, by the settings' variable."""
    return {
        "CPM_SECRET_KEY_FILE": data / "secrets" / "secret-key",
        "CPM_FIELD_KEYS_FILE": data / "secrets" / "field-keys",
    }


def join_running_stack(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables a command lacks to work with the stack that `cpm up` runs in the default data folder.

    Empty when servers are named in the environment already, or no stack runs there.
    """
    data = default_data_folder(environ)
    path = data / FILE_NAME
    if "CPM_DATABASE_URL" in environ or not path.is_file():
        return {}
    held = json.loads(path.read_text())
    found = {
        "CPM_DATA": str(data),
        "CPM_DATABASE_URL": held["database_url"],
        "CPM_REDIS_URL": held["redis_url"],
        "CPM_AWS_ENDPOINT_URL": held.get("aws_endpoint_url", ""),
    } | {name: str(file) for name, file in secret_files(data).items()}
    return {name: value for name, value in found.items() if name not in environ}
