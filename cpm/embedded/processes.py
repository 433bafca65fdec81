"""Starting and ending operating-system processes, so that none outlives the stack that started it.

Every process leads its own session, so that Ctrl-C reaches only the supervisor and a whole group can be ended by the
pid we know. On Linux it also asks the kernel for a signal when its parent dies, and carries a mark in its environment
by which leftovers of a killed supervisor are found.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MARK = "CPM_STACK_MARK"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Account:
    """Whom a process runs as. Supplementary groups are dropped."""

    name: str
    uid: int
    gid: int


def _before_exec(death_signal: signal.Signals, parent: int) -> Callable[[], None] | None:
    """For `preexec_fn`: runs after the account was changed, because changing it clears the wish.

    The kernel sends the signal when the *thread* that forked ends, so processes are started from the main thread.
    """
    if _LIBC is None:
        return None
    prctl = _LIBC.prctl

    def ask_for_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask_for_signal


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: IO[bytes],
    cwd: Path | str = "/",
    account: Account | None = None,
    keep_open: Sequence[int] = (),
    death_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """A new session that logs to `log` and dies with this process. Raises OSError when it cannot start."""
    return subprocess.Popen(  # noqa: S603 - commands are built from our own constants and paths
        list(command),
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        pass_fds=tuple(keep_open),
        preexec_fn=_before_exec(death_signal, os.getpid()),  # noqa: PLW1509 - only the main thread spawns
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def signal_process(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signals the leader alone: servers tell their own children."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            process.send_signal(number)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kills what is left of the group. A group id is not reused while a member lives, and the leader is our child."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)


def marked(mark: str) -> list[int]:
    """Pids of running processes that carry the mark in their environment; empty where there is no /proc."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            continue  # it has ended, or belongs to somebody else
        if wanted in environment.split(b"\0") and state != "Z" and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def end_marked(mark: str, *, patience: float = 10.0) -> list[int]:
    """Ends every process with the mark, first politely, and returns the pids it found."""
    found = marked(mark)
    left = found
    for number, seconds in ((signal.SIGTERM, patience / 2), (signal.SIGINT, patience / 2), (signal.SIGKILL, 5.0)):
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = marked(mark)
        if not left:
            break
    return found
