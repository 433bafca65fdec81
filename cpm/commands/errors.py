"""`cpm errors`: the documentation page about known errors of AWS, generated from their table."""

from pathlib import Path
from typing import Annotated

import typer

from cpm.aws import known_errors_page
from cpm.commands.terminal import console

app = typer.Typer()
errors = typer.Typer(no_args_is_help=True, help="Write the page about known errors of AWS.")
app.add_typer(errors, name="errors")


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@errors.callback()
def _errors() -> None:
    """Write the page about known errors of AWS."""


@errors.command()
def write(path: Annotated[Path, typer.Argument(help="Where to.")] = Path("docs/aws-errors.md")) -> None:
    """Write the page: every known error, what it means and what to do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(known_errors_page.page())
    console.print(str(path), markup=False)
