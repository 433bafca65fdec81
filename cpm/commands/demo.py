"""`cpm demo`: the main job on simulated AWS, proven byte by byte, in less than five minutes."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import structlog
import typer

from cpm.demo.aws import CALL_ERRORS
from cpm.demo.display import Display
from cpm.demo.errors import DemoFailed, Stopped
from cpm.demo.story import Story
from cpm.demo.waiting import Patience
from cpm.embedded import stack as embedded
from cpm.embedded.errors import StackError
from cpm.embedded.supervisor import Death, StopRequested

app = typer.Typer(no_args_is_help=True)

# Simulated AWS answers at once and lists what it has, so CPM need not be as patient as with the real one.
# The list lag must outlast the answer that the demo holds back (cpm.demo.disaster).
IMPATIENT = {
    "CPM_POLL_SECONDS": "2",
    "CPM_LEASE_SECONDS": "6",
    "CPM_AWS_LIST_LAG_SECONDS": "14",
    "CPM_RETRY_BASE_SECONDS": "1",
}
# The demo brings its own servers, whatever the environment names for others.
NOT_OURS = ("CPM_DATABASE_URL", "CPM_REDIS_URL", "CPM_SECRET_KEY_FILE", "CPM_FIELD_KEYS_FILE")
WORKERS = 2
INTERRUPTED = 130
FAILURES = (DemoFailed, StackError, *CALL_ERRORS)


@app.callback()
def _group() -> None:
    """So that the only command of this module keeps its name."""


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="Keep everything in this folder. [default: nothing is kept]")
    ] = None,
    sabotage: Annotated[bool, typer.Option("--sabotage", hidden=True)] = False,
) -> None:
    """Protect, lose and recover a small company on simulated AWS, and prove that every byte is back."""
    display = Display()
    try:
        with _folder(data) as folder:
            display.say(f"Logs and data are in {folder}.")
            _run(folder, display, sabotage=sabotage)
    except FAILURES as error:
        display.say(f"The demo failed: {error}", style="bold red")
        raise typer.Exit(1) from error
    except (Stopped, StopRequested):
        display.say("Stopped.")
        raise typer.Exit(INTERRUPTED) from None
    display.say(f"The demo succeeded in {display.seconds:.0f} s; everything is stopped.", style="bold green")


@contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    """A folder that is empty. One of our own is removed, unless a failure leaves something to look at."""
    if data is not None and data.exists() and any(data.iterdir()):
        raise DemoFailed(f"{data} is not empty; the demo starts from nothing.")
    folder = data or Path(tempfile.mkdtemp(prefix="cpm-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    keep = data is not None
    try:
        yield folder
    except FAILURES:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, display: Display, *, sabotage: bool) -> None:
    """The story runs in a thread, because only the main thread may start again what has ended."""
    for name in NOT_OURS:
        os.environ.pop(name, None)
    os.environ.update(IMPATIENT)
    options = embedded.Options(data=folder, workers=WORKERS, simulated_aws=True)
    structlog.configure(
        logger_factory=structlog.WriteLoggerFactory(file=(folder / "demo.log").open("a", buffering=1))
    )
    display.chapter("Starting PostgreSQL, Redis, the AWS simulator, API, workers and beat")
    with embedded.running(options, tell=display.say, on_death=lambda death: _report(display, death)) as stack:
        assert stack.connection is not None
        patience = Patience()
        names = [f"worker{number}" for number in range(1, WORKERS + 1)]
        story = Story(stack.connection, stack.supervisor, names, display, patience, sabotage)
        failures: list[BaseException] = []
        thread = threading.Thread(target=_tell, args=(story, failures), name="story")
        with display.shown():
            thread.start()
            try:
                stack.supervisor.watch(until=lambda: not thread.is_alive())
            finally:
                patience.stop()
                thread.join()
                display.say("Stopping everything.")
        if failures:
            raise failures[0]


def _tell(story: Story, failures: list[BaseException]) -> None:
    try:
        story.run()
    except BaseException as error:  # noqa: BLE001 (handed to the main thread, which raises it)
        failures.append(error)


def _report(display: Display, death: Death) -> None:
    display.say(
        f"{death.name} has ended ({death.exit_code}); it is started again in {death.pause:g} s.",
        style="yellow",
    )
