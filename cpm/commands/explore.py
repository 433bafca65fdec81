"""`cpm explore`: list files of a backed-up volume, and fetch one, without restoring the volume."""

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer
from django.utils import timezone
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cpm.aws.errors import AwsError
from cpm.commands.terminal import REFRESH_SECONDS, AsUser, acting, console, failed, guarded, show_table
from cpm.explore import paths
from cpm.lib.states import ExploreStatus
from cpm.models import Actor, ExploreSession
from cpm.services import explore_files, explore_sessions
from cpm.services.explore_files import Node, Wanted

SHOWN = 5000
app = typer.Typer()


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@app.command()
@guarded
def explore(
    backup_id: Annotated[int, typer.Argument(help="Id of the backup, as in `cpm backups`.")],
    volume: Annotated[str, typer.Argument(help="What was backed up: a volume (vol-…) or an instance (i-…).")],
    path: Annotated[str, typer.Argument(help="A folder or file as the listing shows it.")] = "/",
    get: Annotated[
        Path | None, typer.Option(help="Save the file here; of a folder, a zip of all that is in it.")
    ] = None,
    user: AsUser = "",
) -> None:
    """List files of a backup, or download one, straight from its snapshot or from its copy in S3."""
    if get is not None and get.exists():
        raise failed(f"{get} is there already; nothing was downloaded.")
    actor = acting(user)
    try:
        with _session(actor, backup_id, volume) as session:
            if get is None:
                _show(actor, session, path)
            else:
                _save(actor, session, path, get)
    except AwsError as error:
        raise failed(error.explain()) from error


@contextmanager
def _session(actor: Actor, backup_id: int, volume: str) -> Iterator[ExploreSession]:
    """An open session, which is ended whatever happens."""
    session = explore_sessions.create(
        actor=actor,
        backup_record=backup_id,
        now=timezone.now(),
        aws_instance_id=volume if volume.startswith("i-") else "",
        aws_volume_ids=[] if volume.startswith("i-") else [volume],
    )
    try:
        with console.status(f"A worker opens {volume} of backup {backup_id}."):
            while session.status == ExploreStatus.UNDEFINED:
                time.sleep(REFRESH_SECONDS)
                session.refresh_from_db()
        if session.status != ExploreStatus.OPEN:
            raise explore_sessions.not_open(session)
        yield session
    finally:
        explore_sessions.end(actor=actor, session=session, now=timezone.now())


def _show(actor: Actor, session: ExploreSession, path: str) -> None:
    page = explore_files.page(actor=actor, session=session, wanted=Wanted(path), offset=0, limit=SHOWN)
    show_table(path, ["Type", "Size", "Modified", "Path"], [_line(node) for node in page.nodes])
    if page.total > len(page.nodes):
        console.print(f"And {page.total - len(page.nodes)} more.", markup=False)


def _line(node: Node) -> list[object]:
    entry = node.entry
    shown = paths.display(node.path)
    # A name that is no text leads nowhere; its friendly form does.
    leads = shown if shown.encode(errors="replace") == node.path else paths.friendly(node.path)
    return [
        entry.what or ("folder" if entry.kind == "D" else "file"),
        entry.size,
        explore_files.moment(entry.modified),
        leads,
    ]


def _save(actor: Actor, session: ExploreSession, path: str, target: Path) -> None:
    """What broke off is never left under the name that was asked for."""
    partial = target.with_name(f"{target.name}.part")
    try:
        file = partial.open("xb")
    except OSError as error:
        raise failed(f"{partial} cannot be written: {error.strerror}.") from error
    try:
        with file:
            _copy(actor, session, path, file)
        # Unlike a renaming, a link replaces nothing.
        os.link(partial, target)
    except FileExistsError as error:
        raise failed(f"{target} is there already; nothing was saved.") from error
    except OSError as error:
        raise failed(f"{target} cannot be written: {error.strerror}.") from error
    finally:
        partial.unlink()
    console.print(f"Saved {target.stat().st_size} bytes of {path} in {target}.", markup=False)


def _copy(actor: Actor, session: ExploreSession, path: str, file: IO[bytes]) -> None:
    """A file as it is, a folder as a zip, whose size nobody knows before."""
    entry = explore_files.entry_at(actor=actor, session=session, path=path)
    if entry.kind == "F":
        entry, stream = explore_files.content(actor=actor, session=session, path=path)
    else:
        stream = explore_files.download(actor=actor, session=session, chosen=[path])
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(),
               TransferSpeedColumn())  # fmt: skip
    with closing(stream), Progress(*columns, console=console) as progress:
        task = progress.add_task(path, total=entry.size if entry.kind == "F" else None)
        for piece in stream:
            file.write(piece)
            progress.advance(task, len(piece))
