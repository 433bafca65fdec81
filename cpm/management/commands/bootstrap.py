"""`manage.py bootstrap`: makes sure that root exists and mints a key for it."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from cpm.embedded.folder import write_private
from cpm.models import Actor
from cpm.services import apikeys, users

KEY_NAME = "cpm up"


class Command(BaseCommand):
    """Answers JSON with `username`, `password` and `api_key`; the key of an earlier run stops working."""

    help = "Creates root if there is none, sets its password, and mints an API key for it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--username", default="root")
        parser.add_argument("--password-file", type=Path, help="root gets this password; without it, a new one")
        parser.add_argument("--output", type=Path, help="write the answer to this 0600 file, not to standard output")
        parser.add_argument("--json", action="store_true", help="the only format; here for scripts that ask for it")

    def handle(self, *_: Any, **options: Any) -> None:
        password = options["password_file"].read_text().strip() if options["password_file"] else None
        root, working = users.ensure_root(username=options["username"], password=password)
        key = apikeys.mint_replacing(actor=Actor.of(root), user=root, name=KEY_NAME, now=timezone.now())
        answer = json.dumps({"username": root.username, "password": working, "api_key": key})
        if options["output"]:
            write_private(options["output"], answer)
        else:
            self.stdout.write(answer)
