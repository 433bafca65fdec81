"""Takes secrets out of text that leaves this server: those that look like one, and those that the server knows."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from django.conf import settings
from django.db.models import Model

from cpm.flows.identities import decrypt_secret
from cpm.lib.secrets import MASK, KeyFileError, SecretUnreadable, scrub_text
from cpm.models import (
    Account,
    EmailIdentity,
    FileLevelRecoverySettings,
    Job,
    ProxySettings,
    S3Repository,
    ServerSettings,
)

# Shorter texts occur by chance, and taking them out would make everything else unreadable.
SHORTEST = 5
LONGEST_LINE = 64 * 1024
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_KEY_ENDS = re.compile(r"-----END [A-Z ]*PRIVATE KEY-----")
# Ids of access keys are half of a pair of credentials.
_ACCESS_KEY = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{8,}\b")


class Scrubber:
    """Knows certain secrets. Text goes in line by line and comes out without them, whatever it is about."""

    def __init__(self, known: Iterable[str]) -> None:
        forms = {
            form
            for secret in known
            if len(secret) >= SHORTEST and _by_looks(secret) == secret
            for form in (secret, quote(secret, safe=""), quote(secret))
        }
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    @classmethod
    def of_this_server(cls, problems: list[str]) -> "Scrubber":
        """Knows the keys and passwords of this server and of its accounts. What cannot be opened is told."""
        return cls([*_from_settings(), *_from_files(problems), *_from_rows(problems)])

    def lines(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines without secrets; a private key that spans lines is taken out as a whole."""
        in_key = False
        for line in lines:
            if in_key:
                in_key = not _KEY_ENDS.search(line)
                continue
            in_key = bool(_KEY_BEGINS.search(line)) and not _KEY_ENDS.search(line)
            cleaned = self.text(line)
            yield f"{cleaned}\n" if in_key and not cleaned.endswith("\n") else cleaned

    def text(self, text: str) -> str:
        if self._known:
            text = self._known.sub(MASK, text)
        return _by_looks(text)


def _by_looks(text: str) -> str:
    return _ACCESS_KEY.sub(rf"\1{MASK}", scrub_text(text))


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file. Of one that is too long only the beginning is left, cut where a word ends."""
    with path.open(encoding="utf-8", errors="replace") as file:
        while line := file.readline(LONGEST_LINE):
            if len(line) < LONGEST_LINE or line.endswith("\n"):
                yield line
                continue
            while (rest := file.readline(LONGEST_LINE)) and not rest.endswith("\n"):
                pass
            # Half a secret would not be recognised as one.
            yield f"{line.rpartition(' ')[0]} … (the rest of this line is left out)\n"


def _from_settings() -> Iterator[str]:
    yield settings.SECRET_KEY
    yield str(settings.DATABASES["default"]["PASSWORD"])
    redis = urlsplit(settings.REDIS_URL)
    yield unquote(redis.password or "")
    yield from parse_qs(redis.query).get("password", [])


def _from_files(problems: list[str]) -> Iterator[str]:
    paths = {Path(settings.CPM_FIELD_KEYS_FILE), *(settings.DATA_DIR / "secrets").glob("*")}
    for path in sorted(path for path in paths if path.is_file()):
        try:
            yield from (line.strip() for line in path.read_text(errors="replace").splitlines())
        except OSError as error:
            problems.append(
                f"{path} cannot be read, so the secrets in it are found by their looks only: {error}"
            )


def _from_rows(problems: list[str]) -> Iterator[str]:
    for kind, column in _PLAIN:
        yield from kind._default_manager.values_list(column, flat=True)
    for kind, column in _ENCRYPTED:
        for token in kind._default_manager.exclude(**{column: ""}).values_list(column, flat=True):
            try:
                yield from _parts(decrypt_secret(token))
            except (SecretUnreadable, KeyFileError) as error:
                whose = kind._meta.verbose_name
                problems.append(
                    f"A secret of {whose} cannot be opened and is found by its looks only: {error}"
                )


_PLAIN: tuple[tuple[type[Model], str], ...] = (
    (ServerSettings, "activation_key"),
    (Account, "access_key"),
    (Account, "external_id"),
    (EmailIdentity, "access_key"),
    (FileLevelRecoverySettings, "access_key"),
)
_ENCRYPTED: tuple[tuple[type[Model], str], ...] = (
    (Account, "secret_key"),
    (ProxySettings, "password"),
    (EmailIdentity, "secret_key"),
    (FileLevelRecoverySettings, "secret_key"),
    (Job, "secret"),
    (S3Repository, "secret"),
)


def _parts(secret: str) -> Iterator[str]:
    """The secret, and the texts in it where it is a JSON object."""
    yield secret
    try:
        content = json.loads(secret)
    except ValueError:
        return
    if isinstance(content, dict):
        yield from (value for value in content.values() if isinstance(value, str))
