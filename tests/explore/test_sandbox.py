"""The confined process: what it may not do, and what a session does when it dies, hangs or lies."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cpm.explore import frames, paths
from cpm.explore.blocks import BLOCK_SIZE, Device, RawFile
from cpm.explore.errors import (
    ExploreError,
    ExplorerBusy,
    ExplorerDied,
    ExplorerTimedOut,
    PathNotFound,
    SessionClosed,
    SourceFailed,
)
from cpm.explore.sandbox import Limits, Session
from tests.explore.conftest import Opener
from tests.explore.images import image


class Stalling:
    """A source that can be told to wait or to fail."""

    def __init__(self, name: str) -> None:
        self._image = RawFile(image(name))
        self.size = self._image.size
        self.failing = False
        self.wait = threading.Event()
        self.wait.set()
        self.waiting = threading.Event()

    def read_block(self, index: int) -> bytes | None:
        self.waiting.set()
        self.wait.wait(30)
        if self.failing:
            raise ConnectionError("no route to the store")
        return self._image.read_block(index)


def confined(code: str) -> str:
    """What `code` prints to standard output after confinement, with errors as their names."""
    program = f"""
import os, socket, subprocess, sys
from cpm.explore.confinement import confine
strict = confine(memory=256 * 1024 * 1024)
try:
{textwrap.indent(textwrap.dedent(code), "    ")}
except BaseException as error:
    os.write(1, type(error).__name__.encode())
os.write(1, b" strict" if strict else b" loose")
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout


@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/passwd')",
        "open('/tmp/explore-was-here', 'w')",
        "socket.socket()",
        "socket.socketpair()",
        "os.pipe()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), 0)",
        "os.unlink('/tmp/explore-nothing')",
        "os.listdir('/')",
        "os.setuid(0)",
    ],
)
def test_a_confined_process_can_neither_open_connect_start_nor_kill_anything(attempt: str) -> None:
    answer = confined(attempt)

    # OSError and its kinds: refused by the kernel, not ended by it.
    assert answer in {"PermissionError strict", "OSError strict"}


def test_a_confined_process_gets_no_more_memory_than_allowed() -> None:
    assert confined("held = bytearray(400 * 1024 * 1024)") == "MemoryError strict"
    assert confined("held = bytearray(100 * 1024 * 1024)") == " strict"


def test_sessions_parse_in_a_confined_process_without_environment(explore: Opener) -> None:
    session = explore("ext4")

    session.listing(b"/")

    assert session.confined
    assert session._process
    assert Path(f"/proc/{session._process.pid}/environ").read_bytes() == b""
    assert session._process.pid == os.getpgid(session._process.pid) != os.getpgrp()


def test_a_process_killed_between_requests_is_replaced_unnoticed(explore: Opener) -> None:
    session = explore("ext4")
    session.listing(b"/ext4")

    assert session._process
    os.kill(session._process.pid, signal.SIGKILL)

    assert session.read(b"/ext4/hello.txt", 0, 100) == b"Hello, file level recovery!\n"
    assert session.starts == 2


def test_a_process_killed_in_the_middle_of_a_request_is_replaced_and_the_request_repeated() -> None:
    source = Stalling("ext4")
    with Device(source) as device, Session({"disk": device}) as session:
        session.listing(b"/")
        source.wait.clear()
        source.waiting.clear()
        answers: list[bytes] = []
        reading = threading.Thread(target=lambda: answers.append(session.read(b"/disk/hello.txt", 0, 100)))
        reading.start()
        assert source.waiting.wait(20)

        assert session._process
        os.kill(session._process.pid, signal.SIGKILL)
        source.wait.set()
        reading.join(30)

        assert answers == [b"Hello, file level recovery!\n"]
        assert session.starts == 2


def test_a_process_that_dies_twice_on_a_request_is_an_error_and_the_session_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with _session_with_child(monkeypatch, tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)") as session:
        with pytest.raises(ExplorerDied) as died:
            session.listing(b"/")
        assert session.starts == 2
        monkeypatch.undo()

        assert [entry.name for entry in session.listing(b"/").entries] == [b"disk"]
    assert "SIGSEGV" in str(died.value)


def test_a_process_that_hangs_is_killed_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with _session_with_child(monkeypatch, tmp_path, "while True: pass", Limits(think_seconds=1)) as session:
        began = time.monotonic()
        with pytest.raises(ExplorerTimedOut, match="longer than 1 seconds"):
            session.listing(b"/")

        assert time.monotonic() - began < 10
        assert session._process is None


def test_who_waits_too_long_for_a_busy_session_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits = Limits(think_seconds=3, wait_seconds=0.2)
    with (
        _session_with_child(monkeypatch, tmp_path, "while True: pass", limits) as session,
        ThreadPoolExecutor(1) as other,
    ):
        slow = other.submit(session.listing, b"/")
        while not session.starts:
            time.sleep(0.01)

        with pytest.raises(ExplorerBusy, match="Try again later"):
            session.listing(b"/")
        with pytest.raises(ExplorerTimedOut):
            slow.result()


def test_processor_time_is_limited_for_each_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    session = _session_with_child(monkeypatch, tmp_path, "while True: pass", Limits(cpu_seconds=1))

    with session, pytest.raises(ExplorerDied, match="SIGXCPU"):
        session.listing(b"/")


@pytest.mark.parametrize(
    "lie",
    [
        "reply({'disk': 'other', 'offset': 0, 'length': 10})",
        "reply({'disk': 'disk', 'offset': -1, 'length': 10})",
        "reply({'disk': 'disk', 'offset': 0, 'length': 1 << 40})",
        "reply({'disk': 'disk', 'offset': 'x', 'length': 10})",
        "connection.sendall(b'\\xff' * 8)",
        "connection.sendall((5).to_bytes(4, 'big') + bytes(4) + b'hello')",
        "connection.sendall((2).to_bytes(4, 'big') + bytes(4) + b'[]')",
        "reply({'entries': [['../../etc', 'F', 1, None, 1, '']], 'total': 1})",
        "reply({'entries': [['a', 'X', 1, None, 1, '']], 'total': 1})",
        "reply({'entries': ['a'], 'total': 1})",
        "reply({'entries': [['\u2603', 'F', 1, None, 1, '']], 'total': 1})",
        "reply({'entries': [['a', 'F', 'many', None, 1, '']], 'total': 1})",
        "reply({'entries': [[7, 'F', 1, None, 1, '']], 'total': 1})",
        "reply({'entries': [['a', 'F', 1 << 63, None, 1, '']], 'total': 1})",
        "reply({'entries': [['a', 'F', -1, None, 1, '']], 'total': 1})",
        "reply({'entries': [['a', 'F', 1e300, None, 1, '']], 'total': 1})",
        "reply({'disk': ['disk'], 'offset': 0, 'length': 10})",
        "reply({'total': 1})",
        "reply({'error': 'explorer_died', 'data': {'reason': 'made up'}})",
    ],
)
def test_a_process_that_sends_nonsense_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lie: str
) -> None:
    session = _session_with_child(monkeypatch, tmp_path, f"{lie}; connection.recv(1)")

    with session, pytest.raises(ExplorerDied):
        session.listing(b"/")


@pytest.mark.parametrize(
    "lie", ["{'error': 'explorer_timed_out', 'data': {'seconds': 'x'}}", "{'error': [1], 'data': 7}"]
)
def test_an_error_that_makes_no_sense_is_an_error_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lie: str
) -> None:
    session = _session_with_child(monkeypatch, tmp_path, f"reply({lie}); connection.recv(1)")

    with session, pytest.raises(ExploreError, match="could not be explored"):
        session.listing(b"/")


def test_a_source_that_fails_is_said_and_works_later() -> None:
    source = Stalling("ext4")
    source.failing = True
    with Device(source) as device, Session({"disk": device}) as session:
        with pytest.raises(SourceFailed, match="no route to the store"):
            session.listing(b"/disk")
        source.failing = False

        assert b"hello.txt" in [entry.name for entry in session.listing(b"/disk").entries]


def test_closing_ends_a_request_under_way_and_leaves_no_process() -> None:
    source = Stalling("ext4")
    with Device(source) as device:
        session = Session({"disk": device})
        session.listing(b"/")
        process = session._process
        source.wait.clear()
        source.waiting.clear()
        raised: list[BaseException] = []

        def read() -> None:
            try:
                session.read(b"/disk/hello.txt", 0, 10)
            except SessionClosed as error:
                raised.append(error)

        reading = threading.Thread(target=read)
        reading.start()
        assert source.waiting.wait(20)
        closing = threading.Thread(target=session.close)
        closing.start()
        time.sleep(0.2)
        source.wait.set()
        closing.join(20)
        reading.join(20)

        assert [type(error) for error in raised] == [SessionClosed]
        assert process is not None and process.poll() is not None
        with pytest.raises(SessionClosed):
            session.listing(b"/")


def test_many_threads_share_a_session(explore: Opener) -> None:
    session = explore("ext4")
    whole = b"".join(session.stream(b"/ext4/lines.txt"))
    wrong: list[int] = []

    def check(number: int) -> None:
        for turn in range(20):
            offset = (number * 7919 + turn * 104_729) % len(whole)
            if session.read(b"/ext4/lines.txt", offset, 1000) != whole[offset : offset + 1000]:
                wrong.append(offset)

    threads = [threading.Thread(target=check, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert wrong == []
    assert session.starts == 1


@pytest.mark.parametrize("name", ["ext4", "xfs"])
def test_names_that_are_no_text_are_reached_by_friendly_paths(explore: Opener, name: str) -> None:
    session = explore(name)
    odd = f"/{name}/".encode() + b"latin-\xe9\xff.txt"

    friendly = paths.friendly(odd)

    assert friendly == f"/{name}/latin-~E9~FF.txt"
    assert session.resolve(friendly) == odd
    assert session.read(odd, 0, 100) == b"odd latin-\xe9\xff.txt"
    # A file that is really called so comes first.
    assert session.resolve(f"/{name}/tilde~41") == f"/{name}/tilde~41".encode()
    assert session.resolve(f"/{name}/new\nline") == f"/{name}/new\nline".encode()
    with pytest.raises(PathNotFound):
        session.resolve(f"/{name}/~41")


def _session_with_child(
    monkeypatch: pytest.MonkeyPatch, folder: Path, body: str, limits: Limits | None = None
) -> Session:
    """A session whose process starts properly and then does `body` with its first request."""
    program = folder / "child.py"
    program.write_text(
        "import os, signal, socket\n"
        "from cpm.explore import frames\n"
        "connection = socket.socket(fileno=0)\n"
        "reply = lambda message: frames.send(connection, message)\n"
        "frames.receive(connection)\n"
        "reply({'confined': False})\n"
        "frames.receive(connection)\n"
        f"{body}\n"
    )
    started = subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        assert command[1:] == ["-I", "-m", "cpm.explore.child"]
        return started([sys.executable, "-I", str(program)], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(subprocess, "Popen", start)
    return Session({"disk": Device(RawFile(image("ext4-dirty")))}, limits)


def test_frames_carry_any_bytes() -> None:
    raw = bytes(range(256))

    assert frames.raw(frames.text(raw)) == raw
    assert BLOCK_SIZE < frames.MAX_PAYLOAD
