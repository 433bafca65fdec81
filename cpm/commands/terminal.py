"""What the operator's commands share: who acts, how refusals are shown, tables, live progress."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from django.db import DatabaseError
from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from cpm.lib.errors import DomainError
from cpm.lib.secrets import KeyFileError, SecretUnreadable
from cpm.lib.states import Role
from cpm.models import Actor, User

console = Console()
complaints = Console(stderr=True)

AsUser = Annotated[str, typer.Option("--user", help="Who acts. [default: root]")]
Watch = Annotated[
    bool, typer.Option("--watch", help="Show progress until it is over; exit code 1 if it failed.")
]
SOURCE = "cpm command"
REFRESH_SECONDS = 0.5

P = ParamSpec("P")
R = TypeVar("R")


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose refusals are shown as one sentence, with exit code 1 and no traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (DomainError, KeyFileError, SecretUnreadable) as error:
            raise failed(str(error)) from error
        except DatabaseError as error:
            raise failed(f"The database does not do what it should: {error}".strip()) from error

    return run


def failed(message: str) -> typer.Exit:
    """Say what is wrong; raise the answer."""
    complaints.print(message, style="red", markup=False, highlight=False)
    return typer.Exit(1)


def acting(username: str) -> Actor:
    """The actor of a command: that user, or root."""
    users = User.objects.select_related("original_user").filter(is_active=True)
    found = users.filter(username=username) if username else users.filter(role=Role.ROOT)
    user = found.first()
    if user is None:
        raise failed(f"There is no active user {username or 'root'}. Is the server set up?")
    return Actor.of(user, source=SOURCE)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table as wide as the terminal, numbers and times in one piece; nothing in it is read as markup."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for place, column in enumerate(columns):
        whole = all(isinstance(row[place], int | datetime | timedelta | None) for row in rows)
        table.add_column(column, overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    console.print(table)


def _text(cell: object) -> Text:
    if isinstance(cell, datetime):
        return Text(f"{timezone.localtime(cell):%Y-%m-%d %H:%M:%S}")
    if isinstance(cell, timedelta):
        return Text(str(timedelta(seconds=round(cell.total_seconds()))))
    return Text("-" if cell is None or cell == "" else str(cell))


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing in progress. `key` stays the same from picture to picture."""

    key: str
    label: str
    percent: int
    words: str


@dataclass(frozen=True, slots=True)
class Picture:
    """How something stands. `ok` counts when it is `over`."""

    bars: Sequence[Bar]
    over: bool
    ok: bool
    summary: str


def watch(load: Callable[[], Picture], *, every: float = REFRESH_SECONDS) -> None:
    """Draw progress bars from what `load` reads until it is over. Exits with code 1 if it did not go well."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
               TextColumn("{task.fields[words]}", markup=False))  # fmt: skip
    drawn: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as progress:
        while True:
            picture = load()
            for bar in picture.bars:
                if bar.key not in drawn:
                    drawn[bar.key] = progress.add_task(bar.label, total=100, words=bar.words)
                progress.update(drawn[bar.key], completed=bar.percent, words=bar.words)
            if picture.over:
                break
            time.sleep(every)
    console.print(picture.summary, style="green" if picture.ok else "red", markup=False)
    if not picture.ok:
        raise typer.Exit(1)
