"""Keeps a list of processes running: start order, readiness, log files, restart with back-off, ordered stop."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from cpm.embedded import processes
from cpm.embedded.errors import StackError
from cpm.embedded.processes import Account

log = structlog.get_logger(__name__)

MAX_LOG_BYTES = 20 * 1024 * 1024
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
# A part that has run this long is healthy again: its next death counts as the first.
HEALTHY_SECONDS = 60.0
# From this many deaths in a row on, a part is reported as failing. It is still started again.
FAILING_AFTER = 5


class PartFailed(StackError):
    """A part did not become ready; the message ends with the last lines of its log."""

    def __init__(self, name: str, reason: str, log_file: Path) -> None:
        self.name = name
        tail = "\n".join(last_lines(log_file, 15))
        super().__init__(f"{name} {reason}. Its log is {log_file}" + (f", ending:\n{tail}" if tail else "."))


class StopRequested(Exception):
    """A stop was asked for while the stack was still starting."""


@dataclass(frozen=True)
class Part:
    """One process of the stack. Parts stop in the reverse order of their stages, those of a stage together.

    `command` is called for every start, because a port may be known only then. `ready` may be called often and must
    be quick; it raises nothing. A part with a `ready_line` is ready only when its log has that text as well.
    """

    name: str
    stage: int
    command: Callable[[], Sequence[str]]
    env: Mapping[str, str]
    ready: Callable[[], bool] = lambda: True
    ready_line: str = ""
    ready_within: float = 180.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within: float = 15.0
    death_signal: signal.Signals = signal.SIGTERM
    account: Account | None = None
    keep_open: tuple[int, ...] = ()
    cwd: Path | str = "/"


@dataclass
class _Running:
    part: Part
    process: subprocess.Popen[bytes] | None
    started: float
    log_start: int = 0
    deaths: int = 0
    start_again_at: float = 0.0


@dataclass(frozen=True)
class Death:
    """What the supervisor tells about a part that ended by itself."""

    name: str
    exit_code: int
    deaths: int
    pause: float

    @property
    def failing(self) -> bool:
        return self.deaths >= FAILING_AFTER


@dataclass
class Supervisor:
    """Runs in the main thread of one process. `mark` is put into every environment to find leftovers by."""

    logs: Path
    mark: str
    on_death: Callable[[Death], None] = lambda death: None
    stopping: bool = False
    hurry: bool = False
    _running: dict[str, _Running] = field(default_factory=dict)

    def request_stop(self, *_: object) -> None:
        """Usable as a signal handler; a second request stops waiting for parts to end by themselves."""
        self.hurry = self.stopping
        self.stopping = True

    def log_file(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """The pid of a running part."""
        process = self._running[name].process
        return process.pid if process else None

    def start(self, part: Part) -> None:
        """Returns when the part is ready. Raises PartFailed, or StopRequested."""
        self.launch(part)
        self.await_ready(part.name)

    def launch(self, part: Part) -> None:
        """Starts a part without waiting, so that several can start at once."""
        self._check_stop()
        path = self.log_file(part.name)
        shorten_log(path)
        log_start = path.stat().st_size if path.exists() else 0
        self._running[part.name] = _Running(part, self._spawn(part), time.monotonic(), log_start)

    def await_ready(self, name: str) -> None:
        """Returns when a launched part is ready. Raises PartFailed, or StopRequested."""
        running = self._running[name]
        part, process = running.part, running.process
        deadline = running.started + part.ready_within
        while not (self._has_logged(part, running.log_start) and part.ready()):
            self._check_stop()
            if process is None or process.poll() is not None:
                code = process.returncode if process else -1
                raise PartFailed(name, f"ended with exit code {code}", self.log_file(name))
            if time.monotonic() > deadline:
                raise PartFailed(name, f"was not ready within {part.ready_within:.0f} s", self.log_file(name))
            time.sleep(0.05)

    def run_once(self, name: str, command: Sequence[str], *, env: Mapping[str, str], within: float) -> None:
        """Runs a command of the start-up to its end; PartFailed unless it exits with 0 in time."""
        self._check_stop()
        process = self._spawn(Part(name=name, stage=0, command=lambda: command, env=env))
        deadline = time.monotonic() + within
        try:
            while (code := process.poll()) is None:
                self._check_stop()
                if time.monotonic() > deadline:
                    raise PartFailed(name, f"did not end within {within:.0f} s", self.log_file(name))
                time.sleep(0.05)
        finally:
            processes.end_group(process)
        if code != 0:
            raise PartFailed(name, f"ended with exit code {code}", self.log_file(name))

    def watch(self, until: Callable[[], bool] = lambda: False, interval: float = 0.2) -> None:
        """Restarts what dies until a stop is requested or `until` says so."""
        next_log_check = time.monotonic() + 60
        while not self.stopping and not until():
            for running in self._running.values():
                self._tend(running)
            if time.monotonic() > next_log_check:
                next_log_check = time.monotonic() + 60
                for name in self._running:
                    shorten_log(self.log_file(name))
            time.sleep(interval)

    def stop(self) -> None:
        """Ends every part, the last stage first, and afterwards whatever still carries the mark."""
        self.stopping = True
        for stage in sorted({running.part.stage for running in self._running.values()}, reverse=True):
            self._stop_stage([one for one in self._running.values() if one.part.stage == stage])
        self._running.clear()
        leftovers = processes.end_marked(self.mark)
        if leftovers:
            log.warning("processes left over by parts were ended", pids=leftovers)

    def _check_stop(self) -> None:
        if self.stopping:
            raise StopRequested

    def _spawn(self, part: Part) -> subprocess.Popen[bytes]:
        path = self.log_file(part.name)
        try:
            with path.open("ab") as log_file:
                return processes.spawn(
                    part.command(),
                    env={**part.env, processes.MARK: self.mark},
                    log=log_file,
                    cwd=part.cwd,
                    account=part.account,
                    keep_open=part.keep_open,
                    death_signal=part.death_signal,
                )
        except OSError as error:
            raise PartFailed(part.name, f"cannot be started: {error}", path) from error

    def _has_logged(self, part: Part, log_start: int) -> bool:
        if not part.ready_line:
            return True
        with self.log_file(part.name).open("rb") as file:
            file.seek(log_start)
            return part.ready_line.encode() in file.read()

    def _tend(self, running: _Running) -> None:
        now = time.monotonic()
        if running.process is None:
            if now >= running.start_again_at:
                self._start_again(running)
            return
        code = running.process.poll()
        if code is None:
            return
        processes.end_group(running.process)
        if now - running.started > HEALTHY_SECONDS:
            running.deaths = 0
        self._note_death(running, code)

    def _start_again(self, running: _Running) -> None:
        try:
            running.process = self._spawn(running.part)
            running.started = time.monotonic()
        except PartFailed:
            self._note_death(running, -1)

    def _note_death(self, running: _Running, code: int) -> None:
        running.process = None
        running.deaths += 1
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (running.deaths - 1), LONGEST_PAUSE_SECONDS)
        running.start_again_at = time.monotonic() + pause
        death = Death(running.part.name, code, running.deaths, pause)
        report = log.error if death.failing else log.warning
        report("part ended", part=death.name, exit_code=code, deaths=death.deaths, restart_in_seconds=pause)
        self.on_death(death)

    def _stop_stage(self, stage: list[_Running]) -> None:
        alive = [(one.part, one.process) for one in stage if one.process is not None]
        for part, process in alive:
            processes.signal_process(process, part.stop_signal)
        started = time.monotonic()
        for part, process in alive:
            while process.poll() is None and time.monotonic() < started + part.stop_within and not self.hurry:
                time.sleep(0.02)
            if process.poll() is None:
                log.warning("part did not stop in time and is killed", part=part.name)
            processes.end_group(process)


def shorten_log(path: Path) -> None:
    """Moves a long log to `.1` and goes on with an empty file; writers append, so they follow without notice."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.with_suffix(path.suffix + ".1").write_bytes(path.read_bytes())
        with path.open("r+b") as file:
            file.truncate(0)


def last_lines(path: Path, count: int) -> list[str]:
    """The end of a text file, or nothing when there is none."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16_384))
        return file.read().decode(errors="replace").splitlines()[-count:]
