"""The supervisor on tiny processes: restart, report, stop, and nothing left over."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from cpm.embedded import processes, supervisor
from cpm.embedded.supervisor import Death, Part, PartFailed, StopRequested, Supervisor

ENV = {"PATH": os.environ["PATH"]}


def part(name: str, code: str, **options: object) -> Part:
    return Part(name=name, stage=1, command=lambda: [sys.executable, "-S", "-c", code], env=ENV, **options)  # type: ignore[arg-type]


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def deaths() -> list[Death]:
    return []


@pytest.fixture
def supervised(tmp_path: Path, deaths: list[Death]) -> Iterator[Supervisor]:
    one = Supervisor(tmp_path, mark=uuid.uuid4().hex, on_death=deaths.append)
    yield one
    one.stop()


def test_a_part_that_dies_is_started_again_and_reported(supervised: Supervisor, deaths: list[Death]) -> None:
    supervised.start(part("sleeper", "import time; print('up', flush=True); time.sleep(600)", ready_line="up"))
    first = supervised.pid("sleeper")
    assert first is not None

    os.kill(first, signal.SIGKILL)
    supervised.watch(until=lambda: bool(deaths) and supervised.pid("sleeper") is not None, interval=0.02)

    assert supervised.pid("sleeper") != first
    assert [(death.name, death.exit_code, death.failing) for death in deaths] == [("sleeper", -9, False)]


def test_a_part_that_keeps_dying_waits_longer_each_time_and_is_called_failing(
    supervised: Supervisor, deaths: list[Death], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.01)
    supervised.launch(part("broken", "raise SystemExit(3)"))

    supervised.watch(until=lambda: len(deaths) >= supervisor.FAILING_AFTER, interval=0.01)

    assert [death.failing for death in deaths] == [False] * (supervisor.FAILING_AFTER - 1) + [True]
    assert all(later.pause > earlier.pause for earlier, later in pairwise(deaths))
    assert {death.exit_code for death in deaths} == {3}


def test_a_part_that_ends_before_it_is_ready_fails_with_the_end_of_its_log(supervised: Supervisor) -> None:
    with pytest.raises(PartFailed) as failure:
        supervised.start(part("broken", "print('no such table'); raise SystemExit(2)", ready=lambda: False))

    assert "exit code 2" in str(failure.value)
    assert "no such table" in str(failure.value)


def test_a_part_that_does_not_become_ready_in_time_fails(supervised: Supervisor) -> None:
    with pytest.raises(PartFailed, match="was not ready"):
        supervised.start(part("slow", "import time; time.sleep(600)", ready=lambda: False, ready_within=0.3))


def test_a_line_of_an_earlier_run_does_not_make_a_part_ready(supervised: Supervisor) -> None:
    supervised.log_file("late").write_text("worker is ready.\n")

    with pytest.raises(PartFailed, match="was not ready"):
        supervised.start(part("late", "import time; time.sleep(600)", ready_line=" ready.", ready_within=0.3))


def test_a_command_that_cannot_be_run_fails_the_part(supervised: Supervisor) -> None:
    with pytest.raises(PartFailed, match="cannot be started"):
        supervised.start(Part(name="absent", stage=1, command=lambda: ["/nonexistent/program"], env=ENV))


def test_stopping_ends_the_whole_group_even_when_the_leader_ignores_the_signal(supervised: Supervisor) -> None:
    stubborn = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)']);"
        "print('up', flush=True); time.sleep(600)"
    )
    supervised.start(part("stubborn", stubborn, ready_line="up", stop_within=0.2))
    assert len(processes.marked(supervised.mark)) == 2

    supervised.stop()

    assert processes.marked(supervised.mark) == []


def test_stopping_finds_a_process_that_left_its_group(supervised: Supervisor) -> None:
    daemon = (
        "import subprocess, sys, time;"
        "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'], start_new_session=True);"
        "print('up', flush=True); time.sleep(600)"
    )
    supervised.start(part("parent", daemon, ready_line="up"))

    supervised.stop()

    assert processes.marked(supervised.mark) == []


def test_later_stages_stop_before_the_ones_they_rest_on(supervised: Supervisor, tmp_path: Path) -> None:
    code = (
        "import signal, time\n"
        "def end(*_):\n    open({path!r}, 'a').write({name!r} + '\\n'); raise SystemExit\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(600)"
    )
    order = tmp_path / "order"
    for stage, name in ((1, "base"), (2, "top")):
        command = [sys.executable, "-S", "-c", code.format(path=str(order), name=name)]
        supervised.start(Part(name=name, stage=stage, command=lambda c=command: c, env=ENV, ready_line="up"))  # type: ignore[misc]

    supervised.stop()

    assert order.read_text().split() == ["top", "base"]


def test_a_stop_asked_for_while_a_part_starts_is_obeyed(supervised: Supervisor) -> None:
    def asked() -> bool:
        supervised.request_stop()
        return False

    with pytest.raises(StopRequested):
        supervised.start(part("slow", "import time; time.sleep(600)", ready=asked))


def test_a_failing_start_up_command_raises_with_its_output(supervised: Supervisor) -> None:
    with pytest.raises(PartFailed, match="relation is missing"):
        supervised.run_once(
            "migrate", [sys.executable, "-S", "-c", "raise SystemExit('relation is missing')"], env=ENV, within=20
        )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children about their parent's death")
def test_parts_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    program = (
        "import sys, time; from pathlib import Path; from cpm.embedded.supervisor import Part, Supervisor\n"
        "s = Supervisor(Path(sys.argv[1]), mark=sys.argv[2])\n"
        "code = 'import time; time.sleep(600)'\n"
        "s.start(Part(name='child', stage=1, command=lambda: [sys.executable, '-S', '-c', code], env={}))\n"
        "print('up', flush=True); time.sleep(600)"
    )
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), mark], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent:
        assert parent.stdout.readline() == "up\n"
        assert eventually(lambda: len(processes.marked(mark)) == 1)

        parent.kill()

    assert eventually(lambda: not processes.marked(mark))


def test_a_long_log_moves_aside_and_its_writer_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "MAX_LOG_BYTES", 10)
    path = tmp_path / "api.log"
    with path.open("a") as writer:
        writer.write("a line that is long\n")
        writer.flush()

        supervisor.shorten_log(path)
        writer.write("next\n")

    assert path.read_text() == "next\n"
    assert (tmp_path / "api.log.1").read_text() == "a line that is long\n"
