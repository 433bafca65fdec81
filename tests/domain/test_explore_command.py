"""`cpm explore`: lists and downloads what is in a backup, and leaves no session open."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cpm import cli
from cpm.commands import explore as command
from cpm.commands import terminal
from cpm.models import ExploreSession
from tests.domain import exploring
from tests.domain.exploring import back_up_image, digests
from tests.domain.world import World
from tests.explore.images import manifest

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def _terminal(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A wide terminal, the servers of the tests, and workers that work while the command waits."""
    monkeypatch.setattr(cli, "join_running_stack", lambda _: {})
    monkeypatch.setattr(terminal.console, "width", 240)
    monkeypatch.setattr(command.time, "sleep", lambda _: world.work())
    yield
    exploring.close_all()


def cpm(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["explore", *map(str, arguments)])


def test_folders_are_listed_and_a_file_and_a_folder_are_saved(world: World, tmp_path: Path) -> None:
    backup, row = back_up_image(world, "fat12")
    volume = f"/{row.source_id}"
    file, facts = next((p, f) for p, f in manifest("fat12").items() if f[0] == "F" and f[1] > 1000)

    root = cpm(backup.pk, row.source_id)
    folder = cpm(backup.pk, row.source_id, volume)
    saved = cpm(backup.pk, row.source_id, volume + file, "--get", tmp_path / "file")
    zipped = cpm(backup.pk, row.source_id, volume, "--get", tmp_path / "all.zip")
    refused = cpm(backup.pk, row.source_id, volume + file, "--get", tmp_path / "file")

    assert [r.exit_code for r in (root, folder, saved, zipped, refused)] == [0, 0, 0, 0, 1]
    assert volume in root.output and f"{volume}/deep0" in folder.output
    assert f"Saved {facts[1]} bytes" in saved.output
    assert hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest() == facts[2]
    with zipfile.ZipFile(io.BytesIO((tmp_path / "all.zip").read_bytes())) as unpacked:
        files = [each for each in unpacked.infolist() if not each.is_dir()]
        assert {hashlib.sha256(unpacked.read(each)).hexdigest() for each in files} == digests("fat12")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.zip", "file"]
    assert set(ExploreSession.objects.values_list("status", flat=True)) == {"P"}


def test_what_is_not_there_or_cannot_be_read_is_said_and_leaves_no_file(world: World, tmp_path: Path) -> None:
    backup, row = back_up_image(world, "fat12")
    saved = tmp_path / "file"

    absent = cpm(backup.pk, row.source_id, "/../etc/passwd", "--get", saved)
    unknown = cpm(backup.pk, "vol-0", "/")
    world.aws.fault(service="ebs", action="ListSnapshotBlocks", error="AccessDeniedException", status=403)
    denied = cpm(backup.pk, row.source_id)

    assert [r.exit_code for r in (absent, unknown, denied)] == [1, 1, 1]
    assert "There is no /../etc/passwd" in absent.stderr
    assert f"Backup {backup.pk} has no volume vol-0." in unknown.stderr
    assert "ebs:ListSnapshotBlocks" in denied.stderr
    assert list(tmp_path.iterdir()) == []
