"""What people see: lines with the time, and live bars in a terminal. Elsewhere bars become lines too."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.rule import Rule

# Where there is no terminal a bar is told in these steps.
TOLD_PERCENT = 50


class Display:
    """Tells the story as it happens. One thread writes; others may call `say`."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.live = self.console.is_terminal
        self.began = time.monotonic()
        self._bars: dict[str, TaskID] = {}
        self._told: dict[str, tuple[int, str]] = {}
        self._progress = Progress(
            TextColumn("        {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[note]}"),
            console=self.console,
            transient=True,
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Bars are drawn inside this block."""
        if not self.live:
            yield
            return
        with self._progress:
            yield

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def chapter(self, text: str) -> None:
        """The next part of the story; finished bars make room."""
        self.drop("")
        self.console.print()
        if self.live:
            self.console.print(Rule(f"[bold]{escape(text)}", align="left"))
        else:
            self.console.print(f"== {text}", markup=False)

    def say(self, text: str, style: str = "") -> None:
        minutes, seconds = divmod(int(self.seconds), 60)
        self.console.print(f"[dim]{minutes}:{seconds:02}[/]  {escape(text)}", style=style, soft_wrap=True)

    def tell(self, claim: str, found: str) -> None:
        """One line of a list: what is claimed, and what was found."""
        self.console.print(f"  [green]✓[/] {escape(claim)}\n      [dim]{escape(found)}[/]", soft_wrap=True)

    def bar(self, name: str, percent: int, note: str = "") -> None:
        """Shows how far something is."""
        if self.live:
            self.wait(name, percent, note)
            return
        told = (percent // TOLD_PERCENT, note)
        if self._told.get(name) != told:
            self._told[name] = told
            self.say(f"{name}: {percent}% {note}".rstrip())

    def wait(self, name: str, percent: float, note: str = "") -> None:
        """A bar for a terminal alone: nobody reads in a log how the time passes."""
        if not self.live:
            return
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=100, note=note)
        self._progress.update(self._bars[name], completed=percent, note=note)

    def drop(self, beginning: str) -> None:
        """Takes away the bars whose names begin so."""
        for name in [one for one in self._bars if one.startswith(beginning)]:
            self._progress.remove_task(self._bars.pop(name))
