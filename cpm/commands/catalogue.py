"""`cpm catalogue`: what CPM knows of its backups, rebuilt from AWS."""

from typing import Annotated

import typer
from django.utils import timezone

from cpm import permissions
from cpm.aws.errors import AwsError
from cpm.commands.terminal import AsUser, acting, console, failed, guarded
from cpm.models import Account
from cpm.services import catalogue as service

app = typer.Typer()
catalogue = typer.Typer(no_args_is_help=True, help="Rebuild a lost database from the tags of our snapshots.")
app.add_typer(catalogue, name="catalogue")


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@catalogue.callback()
def _catalogue() -> None:
    """Rebuild a lost database from the tags of our snapshots."""


@catalogue.command()
@guarded
def rebuild(
    account: Annotated[str, typer.Option(help="Name of the account whose backups are looked for.")],
    regions: Annotated[str, typer.Option(help="Only these regions, separated by commas. [default: all]")] = "",
    server_id: Annotated[str, typer.Option(help="The lost server's id; this server takes it over.")] = "",
    user: AsUser = "",
) -> None:
    """Record the backups that AWS has of an account, in it and in the DR accounts. What is known stays as it is."""
    actor = acting(user)
    found = list(permissions.visible(actor.user, Account.objects.select_related("user"), "accounts.read").filter(name=account)[:2])
    if len(found) != 1:
        raise failed(f"There is no account {account}." if not found else f"Several users have an account {account}.")
    names = [name.strip() for name in regions.split(",") if name.strip()]
    try:
        result = service.rebuild(
            actor=actor, account=found[0], regions=names or None, server_id=server_id or None, now=timezone.now()
        )
    except AwsError as error:
        raise failed(f"{error.explain()} Nothing was recorded; try again.") from error
    for problem in result.problems:
        console.print(problem, style="yellow", markup=False)
    console.print(
        f"{result.found} snapshots and images found, {result.known} of them known; recorded {result.snapshots} in"
        f" {result.backups} backups of {result.policies} new policies. New policies are disabled.",
        markup=False,
    )
