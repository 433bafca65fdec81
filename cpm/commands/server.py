"""`cpm server`: this server's own database, brought back from its backup."""

import os
import tempfile
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.progress import Progress

from cpm.aws.errors import AwsError
from cpm.aws.identity import Identity, Keys, ServerRole
from cpm.commands.terminal import console, failed, guarded
from cpm.services import server_restore

app = typer.Typer()
server = typer.Typer(no_args_is_help=True, help="Restore this server's own database from its backup.")
app.add_typer(server, name="server")


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@server.callback()
def _server() -> None:
    """Restore this server's own database from its backup."""


@server.command()
@guarded
def restore(
    file: Annotated[Path | None, typer.Argument(help="A dump that the policy cpmdata has left on disk.")] = None,
    snapshot: Annotated[str, typer.Option(help="The EBS snapshot of the policy cpmdata, snap-…")] = "",
    region: Annotated[str, typer.Option(help="The region of that snapshot.")] = "",
    access_key: Annotated[
        str, typer.Option(help="Keys of its account; the secret is AWS_SECRET_ACCESS_KEY or is asked for. [default: server role]")
    ] = "",
) -> None:
    """Load a dump into a new database that `manage.py migrate` has prepared. Nothing else may be using it.

    The key file (CPM_FIELD_KEYS_FILE) of the lost server must be in place: the dump does not hold it.
    """
    if (file is None) == (not snapshot) or (snapshot and not region):
        raise failed("Give a file, or --snapshot with --region.")
    if file is not None:
        if not file.is_file():
            raise failed(f"There is no file {file}.")
        with file.open("rb") as stream:
            _load(stream)
        return
    with tempfile.TemporaryFile() as stream:
        _download(_identity(access_key), region, snapshot, stream)
        stream.seek(0)
        _load(stream)


def _identity(access_key: str) -> Identity:
    if not access_key:
        return ServerRole()
    # A secret on the command line would be seen by every user of the machine.
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY") or typer.prompt("AWS secret access key", hide_input=True)
    return Keys(access_key, secret, session_token=os.environ.get("AWS_SESSION_TOKEN"))


def _download(identity: Identity, region: str, snapshot: str, stream: IO[bytes]) -> None:
    with Progress(console=console) as progress:
        task = progress.add_task(f"Reading {snapshot}", total=100)
        try:
            server_restore.download(
                identity=identity,
                region=region,
                snapshot=snapshot,
                file=stream,
                tick=lambda percent: progress.update(task, completed=percent),
            )
        except AwsError as error:
            raise failed(error.explain()) from error


def _load(stream: IO[bytes]) -> None:
    dump = server_restore.restore(stream=stream, tick=lambda: None)
    console.print(
        f"{sum(dump.rows.values())} rows of {dump.created} are restored. Work that was going on then is shown as failed.",
        markup=False,
    )
    console.print("Next: cpm catalogue rebuild, for each account, finds backups that were made after the dump.")
