"""`makemigrations --check`, with a database of its own: the models and the migrations say the same."""

import os

import django
from django.core.management import call_command

from tests.stack import running_servers


def main() -> None:
    """Exits with 1, and says what is missing, when a migration has to be made."""
    with running_servers() as environment:
        os.environ.update(environment)
        django.setup()
        call_command("makemigrations", check=True, dry_run=True)


if __name__ == "__main__":
    main()
