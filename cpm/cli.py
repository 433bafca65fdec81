"""The `cpm` command. A command's module is loaded when the command is used, so that each needs only its own parts."""

import importlib
import os

import django
import typer
from typer.core import TyperGroup

from cpm.embedded.connection import join_running_stack

# Command -> module with a typer `app` that has it.
STACK_COMMANDS = {name: "cpm.commands.stack" for name in ("up", "api", "worker", "beat")} | {
    "demo": "cpm.commands.demo"
}
# These work with the database: Django is set up before their module is imported.
DJANGO_COMMANDS = {
    name: f"cpm.commands.{name}" for name in ("policy", "backups", "recover", "jobs", "apikey", "keys")
}


class LazyCommands(TyperGroup):
    """Knows every command's name, and loads a command when it is asked for."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return [*STACK_COMMANDS, *DJANGO_COMMANDS]

    def get_command(self, ctx: typer.Context, cmd_name: str):  # type: ignore[no-untyped-def, override]
        if cmd_name in DJANGO_COMMANDS:
            _set_up_django()
        module = STACK_COMMANDS.get(cmd_name) or DJANGO_COMMANDS.get(cmd_name)
        if module is None:
            return None
        loaded = typer.main.get_command(importlib.import_module(module).app)
        commands = getattr(loaded, "commands", {})
        return commands.get(cmd_name)


app = typer.Typer(cls=LazyCommands, no_args_is_help=True, help="Backup and disaster recovery for AWS.")


@app.callback()
def _root() -> None:
    """Backup and disaster recovery for AWS."""


def _set_up_django() -> None:
    """With the servers that the environment names, or else those of the stack that runs in the data folder."""
    os.environ.update(join_running_stack(os.environ))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cpm.settings")
    django.setup()


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
