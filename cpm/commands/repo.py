"""`cpm repo`: the S3 repositories, whether they are sound, and the keys that open them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from django.utils import timezone
from rich import filesize
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from cpm import permissions
from cpm.aws.errors import AwsError
from cpm.commands.terminal import AsUser, acting, complaints, console, failed, guarded, show_table
from cpm.lib.states import Authentication, Encryption, LockMode, VerifyDepth
from cpm.models import Account, Actor, S3Repository
from cpm.repository.keys import Password, RawKey, Secret
from cpm.services import accounts, repositories, repository_keys, repository_rebuild, repository_settings

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
        ["ID", "Name", "User", "Account", "Bucket", "Region", "Copies", "Blocks", "Size", "Verified", "Result",
         "Deletion"],
        [
            [
                row.pk, row.name, row.user.username, row.account.name, row.aws_bucket_name, row.aws_region,
                row.copies_stored, row.blocks_stored, filesize.decimal(row.bytes_stored), row.last_verified_at,
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

        found = repositories.verify(actor=actor, repository=row, depth=VerifyDepth(depth), on_progress=tell)
        progress.update(task, completed=1, total=1)
    report = found.report
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
    if found.affected:
        show_table(
            "Backups that cannot be recovered completely from here",
            ["Policy", "Backup", "Time", "Volume", "Instance", "Copy"],
            [
                [
                    copy.backup.policy_name, copy.backup.pk, copy.backup.start_time, copy.snapshot.source_id,
                    copy.snapshot.instance_id or "-", copy.stored_id,
                ]
                for copy in found.affected
            ],
        )  # fmt: skip
    if found.strangers:
        words = (
            f"{len(found.strangers)} copies in the bucket are in no record; `cpm repo rebuild` records them:"
        )
        console.print(words, *found.strangers, sep="\n  ", style="yellow", markup=False)
    console.print(
        f"{len(report.sound)} copies are sound; {report.bytes_read >> 20} MiB were read.", markup=False
    )
    if report.damage:
        backups = len({copy.backup_id for copy in found.affected})
        raise failed(
            f"Repository {row.name} is damaged: {len(report.damage)} objects, {len(report.affected)} copies of "
            f"{backups} backups."
        )


@repo.command("set")
@guarded
def configure(
    name: Name,
    encryption: Annotated[
        str | None, typer.Option(help="bucket (as it says), AES256 or aws:kms, for new objects.")
    ] = None,
    kms_key: Annotated[str | None, typer.Option(help="Id or ARN of a key, with aws:kms.")] = None,
    lock_mode: Annotated[str | None, typer.Option(help="none, GOVERNANCE or COMPLIANCE.")] = None,
    lock_days: Annotated[int | None, typer.Option(help="For how long objects are locked.")] = None,
    verify_every: Annotated[int | None, typer.Option(help="Days between verifications; 0 is never.")] = None,
    verify_depth: Annotated[str | None, typer.Option(help="list, sample or full.")] = None,
    export_role: Annotated[
        str | None, typer.Option(help="ARN of the role with which RDS exports databases here; '' for none.")
    ] = None,
    export_key: Annotated[
        str | None, typer.Option(help="Id or ARN of the key of exported files, until they are in the repository.")
    ] = None,
    user: AsUser = "",
) -> None:
    """How new objects are put, and how often the repository is verified. Without options: show it."""
    actor = acting(user)
    row = _find(actor, name)
    given = {
        "encryption": Encryption.BUCKET.value if encryption == "bucket" else encryption,
        "kms_key": kms_key,
        "lock_mode": LockMode.NONE.value if lock_mode == "none" else lock_mode,
        "lock_days": lock_days,
        "verify_every_days": verify_every,
        "verify_depth": verify_depth,
        "export_role_arn": export_role,
        "export_kms_key_id": export_key,
    }
    if any(value is not None for value in given.values()):
        row = repository_settings.configure(actor=actor, repository=row, **given)
    show_table(
        f"Settings of {row.name}",
        ["Encryption", "KMS key", "Lock", "Days", "Verified every", "To depth", "Export role", "Export key"],
        [[
            row.get_encryption_display(), row.kms_key or "-", row.get_lock_mode_display(), row.lock_days or "-",
            f"{row.verify_every_days} days" if row.verify_every_days else "never", row.get_verify_depth_display(),
            row.export_role_arn or "-", row.export_kms_key_id or "-",
        ]],
    )  # fmt: skip


@repo.command()
@guarded
def rebuild(
    bucket: Annotated[str, typer.Option(help="The bucket.")],
    region: Annotated[str, typer.Option(help="Its region.")],
    folder: Annotated[str, typer.Option(help="The repository's folder in it, such as cpm/main.")],
    account: Annotated[str, typer.Option(help="Name of the account that reaches it.")],
    access_key: Annotated[
        str, typer.Option(help="Add the account first, with this access key; the secret key is asked for.")
    ] = "",
    name: Annotated[
        str, typer.Option(help="What to call the repository. [default: the folder's last word]")
    ] = "",
    key_file: KeyFile = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="It belongs to another server, which is gone for good.")
    ] = False,
    user: AsUser = "",
) -> None:
    """Record a repository and all that it holds when the database was lost. What is known stays as it is.

    The secret is one of the repository's keys, from a file or as a password: `cpm repo key add` makes them.
    """
    actor = acting(user)
    holder = _account(actor, account, access_key)
    secret = RawKey(key_file.read_bytes()) if key_file else Password(_ask("Password of the repository"))
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=complaints) as progress:
        task = progress.add_task(f"Reading {bucket}/{folder}", total=None)
        try:
            result = repository_rebuild.rebuild(
                actor=actor, account=holder, bucket=bucket, region=region, folder=folder, secret=secret,
                take_over=take_over, name=name, now=timezone.now(),
                on_progress=lambda done, total: progress.update(task, completed=done, total=total),
            )  # fmt: skip
        except AwsError as error:
            raise failed(f"{error.explain()} Try again; what was recorded stays.") from error
    for problem in result.problems:
        console.print(problem, style="yellow", markup=False)
    show_table(
        f"Repository {result.repository.name}, rebuilt",
        ["Copies found", "Known", "Recorded", "New backups", "New policies", "Problems"],
        [[result.found, result.known, result.copies, result.backups, result.policies, len(result.problems)]],
    )
    console.print("New policies are disabled and keep everything.", markup=False)


def _account(actor: Actor, name: str, access_key: str) -> Account:
    rows = permissions.visible(actor.user, Account.objects.select_related("user"), "accounts.read")
    found = list(rows.filter(name=name)[:2])
    if len(found) == 1 and not access_key:
        return found[0]
    if found or not access_key:
        raise failed(
            f"There is no account {name}."
            if not found
            else f"There is an account {name} already, or several."
        )
    return accounts.create(
        actor=actor, user=actor.user.pk, is_dr_account=False, name=name, authentication=Authentication.KEYS,
        aws_access_key=access_key, aws_secret_key=_ask("Secret key of the account"),
    )  # fmt: skip


def _ask(what: str) -> str:
    ask: Callable[..., str] = typer.prompt
    return ask(what, hide_input=True)


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
