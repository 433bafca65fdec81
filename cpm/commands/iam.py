"""`cpm iam`: the IAM policies that CPM needs, generated from what the code calls."""

from pathlib import Path
from typing import Annotated

import typer

from cpm.commands.terminal import console
from cpm.flows import iam as flows_iam

app = typer.Typer()
iam = typer.Typer(no_args_is_help=True, help="Write the IAM policies that CPM needs.")
app.add_typer(iam, name="iam")


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@iam.callback()
def _iam() -> None:
    """Write the IAM policies that CPM needs."""


@iam.command()
def write(
    folder: Annotated[Path, typer.Argument(help="Where to.")] = Path("deploy/iam"),
    partition: Annotated[str, typer.Option(help="aws, aws-cn or aws-us-gov.")] = "aws",
) -> None:
    """Write every policy as JSON, and the reasons of its actions beside it."""
    for path in flows_iam.write(folder, partition=partition):
        console.print(str(path), markup=False)
