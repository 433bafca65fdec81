"""The data folder, its lock and secrets, and the connection file."""

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from cpm.embedded import programs, stack
from cpm.embedded.connection import Connection, default_data_folder, join_running_stack
from cpm.embedded.errors import StackError
from cpm.embedded.folder import DataFolder, FolderInUse, write_private
from cpm.lib.secrets import load_keys
from cpm.simulator import identity
from workers import queues


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def hold_lock(path: Path, held: "multiprocessing.synchronize.Event", done: "multiprocessing.synchronize.Event") -> None:
    with DataFolder(path).locked():
        held.set()
        done.wait(30)


CONNECTION = Connection(
    api_url="http://127.0.0.1:1/api",
    api_key="key",
    admin_url="http://127.0.0.1:1/admin/",
    admin_user="root",
    admin_password="password",
    database_url="postgresql://cpm:x@/cpm?host=/run/socket",
    redis_url="redis://:x@127.0.0.1:2/0",
)


def test_secrets_are_made_once_and_are_private(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")

    first = folder.secret("database")

    assert len(first) == 64
    assert DataFolder(tmp_path / "data").secret("database") == first
    assert mode(folder.secrets / "database") == 0o600
    assert mode(folder.path) == mode(folder.secrets) == 0o700
    assert len(load_keys(folder.field_keys_file())) == 1


def test_a_second_stack_in_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=hold_lock, args=(tmp_path, held, done))
    other.start()
    assert held.wait(60)

    with pytest.raises(FolderInUse, match=f"process {other.pid}"), DataFolder(tmp_path).locked():
        pass

    done.set()
    other.join(30)
    with DataFolder(tmp_path).locked():
        assert (tmp_path / "cpm.lock").read_text().strip() == str(os.getpid())


def test_a_private_file_replaces_another_whatever_its_mode_was(tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    path.write_text("old")
    path.chmod(0o644)

    write_private(path, "new")

    assert path.read_text() == "new"
    assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_connection_file_leaves_out_aws_when_it_is_not_simulated(tmp_path: Path) -> None:
    CONNECTION.write(tmp_path / "c.json")

    assert set(json.loads((tmp_path / "c.json").read_text())) == {
        *("api_url", "api_key", "admin_url", "admin_user", "admin_password", "database_url", "redis_url")
    }


def test_commands_join_the_stack_of_the_data_folder_unless_told_otherwise(tmp_path: Path) -> None:
    CONNECTION.write(tmp_path / "connection.json")
    here = {"CPM_DATA": str(tmp_path)}

    joined = join_running_stack(here)

    assert joined["CPM_DATABASE_URL"] == CONNECTION.database_url
    assert joined["CPM_FIELD_KEYS_FILE"] == str(tmp_path / "secrets" / "field-keys")
    assert join_running_stack(here | {"CPM_DATABASE_URL": "postgresql://elsewhere/cpm"}) == {}
    assert join_running_stack({"CPM_DATA": str(tmp_path / "empty")}) == {}
    assert default_data_folder(here) == tmp_path


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with stack._listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(StackError, match=f"port {port}"), stack._listen("127.0.0.1", port):
            pass


def test_what_the_stack_knows_by_heart_is_true() -> None:
    assert stack.SIMULATED_ACCESS_KEY == identity.DEFAULT_ACCESS_KEY
    assert stack.SIMULATED_SECRET_KEY == identity.DEFAULT_SECRET_KEY
    assert programs.QUEUES == queues.NAMES
