"""The `cpm` command. A command's module is loaded when the command is used, so that each needs only its own parts."""

import importlib
import os

import django
import typer
from typer.core import TyperCommand, TyperGroup

from cpm.embedded.connection import join_running_stack

# Command -> module with a typer `app` that has it.
STACK_COMMANDS = dict.fromkeys(("up", "api", "worker", "beat"), "cpm.commands.stack") | {
    "demo": "cpm.commands.demo"
}
# These work with the database: Django is set up before their module is imported.
# Their help stands here so that `cpm --help` need not load Django.
DJANGO_COMMANDS = {
    "policy": "List, show and run policies.",
    "backups": "The latest backups, newest first.",
    "recover": "Recover a volume or an instance from a backup.",
    "explore": "List and download files of a backup without restoring it.",
    "cleanup": "Delete snapshots or, with --s3, copies that have outlived their policies.",
    "jobs": "The latest jobs; also show, abort and retry one.",
    "apikey": "Create, list and revoke API keys, and end tokens.",
    "audit": "Read the audit log, and check that nobody has altered it.",
    "repo": "List and verify S3 repositories, and change their keys.",
    "keys": "Rotate the keys that encrypt stored secrets.",
    "catalogue": "Rebuild a lost database from the tags of our snapshots.",
    "server": "Restore this server's own database from its backup.",
    "report": "Check the signature of a usage report.",
    "iam": "Write the IAM policies that CPM needs.",
    "errors": "Write the page about known errors of AWS.",
}
_ONLY_HELP = "cpm.only_help"


class LazyCommands(TyperGroup):
    """Knows every command's name, and loads a command when it is asked for."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return [*STACK_COMMANDS, *DJANGO_COMMANDS]

    def format_help(self, ctx, formatter):  # type: ignore[no-untyped-def]
        ctx.meta[_ONLY_HELP] = True
        super().format_help(ctx, formatter)

    def get_command(self, ctx: typer.Context, cmd_name: str):  # type: ignore[no-untyped-def, override]
        if cmd_name in DJANGO_COMMANDS:
            if _ONLY_HELP in ctx.meta:
                return TyperCommand(cmd_name, help=DJANGO_COMMANDS[cmd_name])
            _set_up_django()
            module = f"cpm.commands.{cmd_name}"
        elif cmd_name in STACK_COMMANDS:
            module = STACK_COMMANDS[cmd_name]
        else:
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
    os.environ.setdefault("CPM_LOG_LEVEL", "WARNING")
    django.setup()


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
