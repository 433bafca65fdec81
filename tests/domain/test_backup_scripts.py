"""Before, after and complete scripts on the server."""

import os
import time
from pathlib import Path

import pytest

from cpm.flows.backups.backup_scripts import find_script
from cpm.lib.states import Role
from cpm.models import ScriptLog, Step
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

NOTE = '#!/bin/sh\necho "$(basename "$0") $*" >> "$(dirname "$0")/ran"\n'


@pytest.fixture
def folder(tmp_path, settings) -> Path:
    settings.CPM_SCRIPTS_DIR = tmp_path
    return tmp_path


def script(folder: Path, name: str, text: str = NOTE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def scripted(world, aws, **fields):
    return world.policy(aws.volume(), **{"name": "p1", "enable_agent_scripts": True, **fields})


def ran(folder: Path) -> list[str]:
    return (folder / "ran").read_text().splitlines()


def test_scripts_run_in_order_and_are_told_that_all_is_well(world, aws, folder):
    for phase in ("before", "after", "complete"):
        script(folder, f"{phase}_p1.sh")

    backup = world.back_up(scripted(world, aws), status="B", performed_quiesce=True)

    assert ran(folder) == ["before_p1.sh ", "after_p1.sh 1", "complete_p1.sh 1"]
    assert list(ScriptLog.objects.filter(backup=backup).values_list("exit_code", flat=True)) == [0, 0, 0]
    order = dict(Step.objects.filter(job__subject_id=backup.pk).values_list("kind", "started_at"))
    assert order["backup.start_volume"] < order["backup.watch_snapshots"]


def test_a_failed_before_script_is_told_on_and_makes_the_record_partial(world, aws, folder):
    script(folder, "before_p1", "#!/bin/sh\nexit 7\n")
    script(folder, "after_p1")
    script(folder, "complete_p1")

    backup = world.back_up(scripted(world, aws), status="A", performed_quiesce=False)

    assert ran(folder) == ["after_p1 0", "complete_p1 0"]
    assert ScriptLog.objects.get(backup=backup, title__startswith="before").exit_code == 7
    assert any("exit code 7" in line for line in world.log(backup))


def test_a_failed_snapshot_is_told_to_the_complete_script_only(world, aws, folder):
    script(folder, "after_p1")
    script(folder, "complete_p1")
    aws.fault(action="CreateSnapshot", snapshots_error=True)

    world.back_up(scripted(world, aws), status="F")

    assert ran(folder) == ["after_p1 1", "complete_p1 0"]


def test_a_script_beyond_its_time_is_killed_with_what_it_has_started(world, aws, folder):
    script(folder, "before_p1", '#!/bin/sh\nsleep 300 &\necho $! > "$(dirname "$0")/pid"\nwait\n')

    backup = world.back_up(scripted(world, aws, agent_script_timeout=1), status="A")

    assert any("longer than 1 s and was killed" in line for line in world.log(backup))
    assert ScriptLog.objects.get(backup=backup).exit_code is None
    assert_ends(int((folder / "pid").read_text()))


def assert_ends(pid: int) -> None:
    """The process is gone, or dead and waiting for its new parent to notice."""
    deadline = time.monotonic() + 5
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline, "still alive"
        time.sleep(0.02)


@pytest.mark.parametrize(("collect", "kept"), [(True, "to stderr\n"), (False, "")])
def test_what_is_written_to_stderr_is_kept_when_asked_for(world, aws, folder, collect, kept):
    script(folder, "before_p1", "#!/bin/sh\necho to stdout\necho to stderr >&2\n")

    backup = world.back_up(scripted(world, aws, collect_script_output=collect), status="B")

    assert ScriptLog.objects.get(backup=backup).log == kept


def test_much_output_does_not_block_the_script_and_its_end_is_kept(world, aws, folder):
    script(folder, "before_p1", "#!/bin/sh\nhead -c 3000000 /dev/zero >&2\necho the end >&2\n")

    backup = world.back_up(scripted(world, aws, collect_script_output=True), status="B")

    log = ScriptLog.objects.get(backup=backup).log
    assert log.endswith("the end\n") and len(log) <= 1024 * 1024


def test_scripts_do_not_see_the_secrets_of_the_server(world, aws, folder, monkeypatch):
    monkeypatch.setenv("CPM_DATABASE_URL_OF_TEST", "postgresql://user:secret@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very secret")
    script(folder, "before_p1", '#!/bin/sh\nenv > "$(dirname "$0")/seen"\n')

    backup = world.back_up(scripted(world, aws), status="B")

    seen = dict(line.split("=", 1) for line in (folder / "seen").read_text().splitlines() if "=" in line)
    assert {name for name in seen if name.startswith(("CPM_", "AWS_"))} == {"CPM_BACKUP_ID"}
    assert seen["CPM_BACKUP_ID"] == str(backup.pk)
    assert seen["PATH"] == os.environ["PATH"]


def test_missing_scripts_are_no_failure_but_nothing_was_quiesced(world, aws, folder):
    backup = world.back_up(scripted(world, aws), status="B", performed_quiesce=False)

    assert any("There is no before script for policy p1" in line for line in world.log(backup))
    assert not ScriptLog.objects.exists()


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("#!/bin/sh\n", 0o644, "is not executable"),
        ("#!/no/such/interpreter\n", 0o755, "cannot be run: No such file"),
        ("", 0o755, "cannot be run: Exec format error"),
    ],
)
def test_a_script_that_cannot_run_is_a_failure_that_says_why(world, aws, folder, text, mode, why):
    script(folder, "before_p1", text).chmod(mode)

    backup = world.back_up(scripted(world, aws), status="A")

    assert any(why in line for line in world.log(backup))


def test_scripts_of_other_users_lie_in_a_folder_of_their_own(world, aws, folder):
    owner = factories.user(Role.INDEPENDENT, username="ann")
    policy = scripted(world, aws)
    policy.user = owner
    policy.save()
    script(folder, "before_p1")
    script(folder / "ann", "before_p1")

    world.user = owner
    world.back_up(policy, status="B")

    assert ran(folder / "ann") == ["before_p1 "]
    assert not (folder / "ran").exists()


def test_without_the_policys_option_no_script_runs(world, aws, folder):
    script(folder, "before_p1")

    world.back_up(scripted(world, aws, enable_agent_scripts=False), status="B", performed_quiesce=False)

    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["before_p1"], "before_p1"),
        (["before_p1.sh"], "before_p1.sh"),
        (["before_p1_database.py"], "before_p1_database.py"),
        (["before_p1-x", "before_p1.sh"], "before_p1.sh"),
        (["before_p10", "before_p10.sh", "before_p", "after_p1", "xbefore_p1"], None),
        ([], None),
    ],
)
def test_a_script_is_found_by_phase_and_policy(tmp_path, names, found):
    for name in names:
        script(tmp_path, name)

    path = find_script(tmp_path, "before", "p1")

    assert (path and path.name) == found


def test_a_policys_name_is_no_pattern_and_no_path(tmp_path):
    script(tmp_path / "scripts", "before_axb")
    script(tmp_path, "before_out")

    assert find_script(tmp_path / "scripts", "before", "a.b") is None
    assert find_script(tmp_path / "scripts", "before", "../before_out") is None
    assert find_script(tmp_path / "no-such-folder", "before", "p1") is None
