"""`cpm keys`: the keys that encrypt stored secrets."""

from pathlib import Path

import typer
from django.conf import settings

from cpm.commands.terminal import AsUser, acting, console, guarded
from cpm.services import field_keys

app = typer.Typer()
keys = typer.Typer(no_args_is_help=True, help="Rotate the keys that encrypt stored secrets.")
app.add_typer(keys, name="keys")


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@keys.callback()
def _keys() -> None:
    """Rotate the keys that encrypt stored secrets."""


@keys.command()
@guarded
def rotate(user: AsUser = "") -> None:
    """Add a new key and encrypt every stored secret with it."""
    path = Path(settings.CPM_FIELD_KEYS_FILE)
    done = field_keys.rotate(actor=acting(user), path=path)
    console.print(f"Key {done.key_id} is in use; {done.secrets} secrets were encrypted again.", markup=False)
    console.print(
        f"Older keys are still in {path}. Remove them when no backup of the database needs them.",
        markup=False,
    )
