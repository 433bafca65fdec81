"""`cpm report`: the key that signs usage reports, and checking a report."""

from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.conf import settings

from cpm.commands.terminal import complaints, console, guarded
from cpm.lib.secrets import KeyFileError
from cpm.reports import signature
from cpm.reports.signature import PublicKeyError, Verdict

app = typer.Typer()
report = typer.Typer(no_args_is_help=True, help="Check the signature of a usage report.")
app.add_typer(report, name="report")

# Exit code and words for each verdict.
ANSWERS = {
    Verdict.GOOD: (0, "Good: the report is as it was signed."),
    Verdict.ALTERED: (1, "Altered: the report is not what was signed."),
    Verdict.UNKNOWN_KEY: (
        1,
        "Signed with another key. Give the public key of the server that made it with --key.",
    ),
    Verdict.NOT_SIGNED: (2, "Not signed: the last line is no signature."),
}


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@report.callback()
def _report() -> None:
    """Check the signature of a usage report."""


@report.command()
@guarded
def key() -> None:
    """Print the public key that belongs to this server's signatures."""
    newest = signature.private_keys(Path(settings.CPM_REPORT_KEYS_FILE), make=True)[0]
    console.print(signature.show(newest.public_key()), markup=False, highlight=False)


@report.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A usage report as CSV, as it was downloaded.")],
    key: Annotated[
        str, typer.Option(help="The public key, from `cpm report key`. [default: this server's]")
    ] = "",
) -> None:
    """Say whether a report is as it was signed: exit code 0 good, 1 altered, 2 not signed, 3 cannot tell."""
    try:
        keys = [signature.read(key)] if key else _own_keys()
        with file.open("rb") as opened:
            verdict = signature.verify(opened, keys)
    except (PublicKeyError, KeyFileError) as error:
        raise _unsure(str(error)) from error
    except OSError as error:
        raise _unsure(f"{file} cannot be read: {error.strerror}.") from error
    code, words = ANSWERS[verdict]
    console.print(words, style="green" if verdict == Verdict.GOOD else "red", markup=False, highlight=False)
    raise typer.Exit(code)


def _own_keys() -> list[Ed25519PublicKey]:
    held = signature.private_keys(Path(settings.CPM_REPORT_KEYS_FILE), make=False)
    return [private.public_key() for private in held]


def _unsure(message: str) -> typer.Exit:
    complaints.print(message, style="red", markup=False, highlight=False)
    return typer.Exit(3)
