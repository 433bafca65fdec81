"""FORMAT.md is enough: a reader made from it alone restores what the package wrote."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from cpm.repository import delays
from cpm.repository.archiving import CopySource
from cpm.repository.copying import copy_volume
from cpm.repository.keys import Password
from cpm.repository.prune import prune
from cpm.repository.reader import Reader
from tests.contract import reader_from_format
from tests.repository.world import AT_ONCE, SECRET, SMALL_PACK, Volume, draft, new_repository

READER = Path(reader_from_format.__file__)
FORMAT = Path(delays.__file__).with_name("FORMAT.md").read_text()
OLD, NEW = Volume([2, 4, 0, 3, 6, 8], tail=777), Volume([2, 10, 0, 3, 12, 8], tail=777)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A repository with history: an increment, an archive, a deleted copy and packs that were repacked."""
    path = tmp_path_factory.mktemp("written") / "repository"
    repository = new_repository(path)
    repository.add_key(Password("grün is the colour"), "a person's")
    old = copy_volume(repository, draft(OLD), OLD, pack_bytes=SMALL_PACK)
    new = copy_volume(repository, draft(NEW), NEW, parent=old, changed=[1, 4], pack_bytes=SMALL_PACK)
    archive = copy_volume(repository, draft(OLD, archive=True), CopySource(Reader(repository, old)))
    repository.delete_copy(old.copy_id)
    for _ in range(3):
        prune(repository, delays=AT_ONCE, repack_below=1.0)
    return path, {new.copy_id: NEW, archive.copy_id: OLD}


@pytest.mark.parametrize("secret", [["--password", "grün is the colour"], ["--key-hex", SECRET.value.hex()]])
def test_an_independent_reader_restores_every_copy(written, tmp_path, secret):
    path, copies = written

    listed = subprocess.run(
        [sys.executable, READER, path, *secret], check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout

    assert {line.split()[0] for line in listed.splitlines()} == set(copies)
    for copy_id, volume in copies.items():
        target = tmp_path / copy_id
        subprocess.run([sys.executable, READER, path, copy_id, target, *secret], check=True, cwd=tmp_path)
        assert target.read_bytes() == b"".join(volume.content(number) for number in range(len(volume.seeds)))


def test_the_reader_knows_nothing_of_the_package():
    tree = ast.parse(READER.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert not any(name.split(".")[0] in ("cpm", "api", "workers", "tests") for name in imported)
    assert len(READER.read_text().splitlines()) < 300


def test_the_wrong_secret_opens_nothing(written):
    path, _ = written

    with pytest.raises(reader_from_format.Unreadable):
        reader_from_format.Repository(path, "not this one", None)


@pytest.mark.parametrize("name", ["VIEW_LIFETIME", "GRACE", "YOUNG", "ABANDONED"])
def test_the_safety_delays_are_those_of_the_text(name):
    row = next(line for line in FORMAT.splitlines() if line.startswith(f"| {name} "))
    amount, unit = row.split("|")[2].split()

    assert getattr(delays, name) == int(amount) * {"h": delays.HOUR, "days": delays.DAY}[unit]
