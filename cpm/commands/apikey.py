"""`cpm apikey`: keys for the REST API."""

from typing import Annotated

import typer
from django.utils import timezone

from cpm.commands.terminal import AsUser, acting, complaints, failed, guarded, show_table
from cpm.models import ApiKey, User
from cpm.services import apikeys, users

app = typer.Typer()
apikey = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys, and end tokens.")
app.add_typer(apikey, name="apikey")


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@apikey.command()
@guarded
def create(
    username: Annotated[str, typer.Argument(metavar="USER", help="Whose key it is.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "cpm command",
    user: AsUser = "",
) -> None:
    """A new key, printed once: only its hash is stored."""
    key = apikeys.mint(actor=acting(user), user=_owner(username), name=name)
    complaints.print("Keep this key; it cannot be shown again.", markup=False)
    typer.echo(key)


@apikey.command("list")
@guarded
def list_keys(user: AsUser = "") -> None:
    """All keys without their secret part; for anybody but root, only one's own."""
    actor = acting(user)
    rows = ApiKey.objects.select_related("user").order_by("user__username", "id")
    if actor.user.role != "root":
        rows = rows.filter(user=actor.user)
    show_table(
        "API keys",
        ["ID", "User", "Name", "Begins with", "Created", "Last used", "Revoked"],
        [[k.pk, k.user.username, k.name, k.prefix, k.created_at, k.last_used_at, k.revoked_at] for k in rows],
    )


@apikey.command()
@guarded
def revoke(
    key_id: Annotated[int, typer.Argument(metavar="KEY", help="Id of the key, as in `cpm apikey list`.")],
    user: AsUser = "",
) -> None:
    """Make a key stop working."""
    key = ApiKey.objects.filter(pk=key_id).first()
    if key is None:
        raise failed(f"There is no API key {key_id}.")
    apikeys.revoke(actor=acting(user), key=key, now=timezone.now())
    complaints.print(f"Key {key_id} is revoked.")


@apikey.command("revoke-tokens")
@guarded
def revoke_tokens(
    username: Annotated[str, typer.Argument(metavar="USER", help="Whose tokens end.")],
    user: AsUser = "",
) -> None:
    """Make all tokens of a user stop working; the API keys go on and give new ones."""
    users.revoke_tokens(actor=acting(user), user=_owner(username), now=timezone.now())
    complaints.print(f"The tokens of {username} have ended.", markup=False)


def _owner(username: str) -> User:
    owner = User.objects.filter(username=username).first()
    if owner is None:
        raise failed(f"There is no user {username}.")
    return owner
