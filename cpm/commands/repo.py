"""`cpm repo`: the S3 repositories, whether they are sound, and the keys that open them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from cpm.commands.terminal import AsUser, acting, complaints, console, failed, guarded, show_table
from cpm.lib.states import VerifyDepth
from cpm.models import Actor, S3Repository
from cpm.repository.keys import Password, RawKey, Secret
from cpm.services import repositories, repository_keys

app = typer.Typer()
repo = typer.Typer(no_args_is_help=True, help="List and verify S3 repositories, and change their keys.")
key = typer.Typer(no_args_is_help=True, help="The keys that open a repository.")
app.add_typer(repo, name="repo")
repo.add_typer(key, name="key")

Name = Annotated[str, typer.Argument(help="Name of the repository, or its id.")]
SlotId = Annotated[str, typer.Argument(help="Id of the key slot, as in `cpm repo key list`.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(help="File with at least 32 random bytes; without it a password is asked for.", exists=True),
]


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@repo.command("list")
@guarded
def list_repositories(user: AsUser = "") -> None:
    """All repositories with what they hold and how the last verification ended."""
    show_table(
        "S3 repositories",
        ["ID", "Name", "User", "Account", "Bucket", "Region", "Copies", "Blocks", "MiB", "Verified", "Result",
         "Deletion"],
        [
            [
                row.pk, row.name, row.user.username, row.account.name, row.aws_bucket_name, row.aws_region,
                row.copies_stored, row.blocks_stored, row.bytes_stored >> 20, row.last_verified_at,
                row.get_last_verify_result_display(), row.get_deletion_status_display(),
            ]
            for row in repositories.in_reach(acting(user)).order_by("name", "id")
        ],
    )  # fmt: skip


@repo.command()
@guarded
def verify(
    name: Name,
    depth: Annotated[
        str, typer.Option(help="list compares names and sizes, sample reads a part, full reads every byte.")
    ] = VerifyDepth.LIST.value,
    user: AsUser = "",
) -> None:
    """Look for damage and say which copies it affects; the result is kept. Exit code 1 means damage."""
    if depth not in {one.value for one in VerifyDepth}:
        raise failed("The depth is list, sample or full.")
    actor = acting(user)
    row = _find(actor, name)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=complaints) as progress:
        task = progress.add_task(f"Verifying {row.name}", total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        report = repositories.verify(actor=actor, repository=row, depth=VerifyDepth(depth), on_progress=tell)
        progress.update(task, completed=1, total=1)
    if report.findings:
        show_table(
            "Findings",
            ["Object", "What is wrong", "Copies that cannot be restored"],
            [
                [
                    one.key,
                    one.reason,
                    "none; prune removes it" if one.leftover else ", ".join(one.copies) or "none",
                ]
                for one in report.findings
            ],
        )
    console.print(
        f"{len(report.sound)} copies are sound; {report.bytes_read >> 20} MiB were read.", markup=False
    )
    if report.damage:
        raise failed(
            f"Repository {row.name} is damaged: {len(report.damage)} objects, {len(report.affected)} copies."
        )


@key.command("list")
@guarded
def list_keys(name: Name, user: AsUser = "") -> None:
    """The key slots; each opens the repository by itself."""
    actor = acting(user)
    row = _find(actor, name)
    slots = repository_keys.slots(actor=actor, repository=row)
    show_table(
        f"Keys of {row.name}",
        ["ID", "Name", "Kind", "Since", "Used by this server"],
        [
            [slot.id, slot.name, "password" if slot.kdf == "scrypt" else "raw key", slot.created,
             "yes" if is_ours else "no"]
            for slot, is_ours in slots
        ],
    )  # fmt: skip


@key.command()
@guarded
def add(
    name: Name,
    label: Annotated[str, typer.Option("--name", help="What to call the slot.")] = "operator",
    key_file: KeyFile = None,
    user: AsUser = "",
) -> None:
    """One more password or key that opens the repository, to be kept where this server cannot lose it."""
    actor = acting(user)
    row = _find(actor, name)
    made = repository_keys.add(actor=actor, repository=row, secret=_secret(key_file), name=label)
    console.print(f"Key slot {made.id} was added to {row.name}.", markup=False)


@key.command()
@guarded
def rotate(
    name: Name,
    slot: Annotated[str, typer.Argument(help="Id of a key slot. [default: this server's own]")] = "",
    key_file: KeyFile = None,
    user: AsUser = "",
) -> None:
    """Replace the key of a slot; the old one opens nothing from then on. This server's own is made by itself."""
    actor = acting(user)
    row = _find(actor, name)
    if slot:
        made = repository_keys.rotate(actor=actor, repository=row, slot_id=slot, secret=_secret(key_file))
    else:
        made = repository_keys.rotate_own(actor=actor, repository=row)
    console.print(f"Key slot {made.id} of {row.name} takes the place of the old one.", markup=False)


@key.command()
@guarded
def remove(name: Name, slot: SlotId, user: AsUser = "") -> None:
    """Take a key away. This server's own and the last one stay."""
    actor = acting(user)
    row = _find(actor, name)
    repository_keys.remove(actor=actor, repository=row, slot_id=slot)
    console.print(f"Key slot {slot} of {row.name} was removed.", markup=False)


def _secret(key_file: Path | None) -> Secret:
    if key_file is not None:
        return RawKey(key_file.read_bytes())
    ask: Callable[..., str] = typer.prompt
    return Password(ask("Password", hide_input=True, confirmation_prompt=True))


def _find(actor: Actor, name: str) -> S3Repository:
    rows = repositories.in_reach(actor)
    found: list[S3Repository] = list(rows.filter(name=name)[:2])
    if not found and name.isdecimal():
        found = list(rows.filter(pk=int(name)))
    if len(found) > 1:
        raise failed(f"Several users have a repository {name}; give its id, or --user.")
    if not found:
        raise failed(f"There is no S3 repository {name}.")
    return found[0]
