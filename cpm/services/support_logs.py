"""One file with everything that helps to find out what is wrong with this server, and no secret in it.

It holds the logs of this machine, the log lines of operations, failed steps, the fleet, the settings and versions. What
backup scripts print is left out: it belongs to the customer.
"""

import json
import platform
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Model

from cpm import permissions
from cpm.aws import gateway
from cpm.aws.errors import AwsError
from cpm.aws.identity import Identity
from cpm.flows.identities import identity_of
from cpm.jobs import fleet
from cpm.lib.archive import Member, tar_bz2
from cpm.lib.errors import DomainError
from cpm.lib.secrets import MASK, KeyFileError, SecretUnreadable, is_secret_name
from cpm.lib.states import LabelledEnum, StepState
from cpm.models import (
    Account,
    Actor,
    EmailIdentity,
    FileLevelRecoverySettings,
    FleetMember,
    LogLine,
    ProxySettings,
    ServerSettings,
    Step,
)
from cpm.services.support_secrets import Scrubber, read_lines

log = structlog.get_logger(__name__)

RIGHT = "support_logs.read"
CHUNK = 2000
# Accounts that are asked at the same time; one that does not answer holds up its own thread only.
CHECKS_AT_ONCE = 8
# Settings that are secret although their name does not say so.
PRIVATE = frozenset({"access_key", "activation_key", "external_id"})


class Period(LabelledEnum):
    DAY = "day", "Day"
    WEEK = "week", "Week"
    MONTH = "month", "Month"

    @property
    def length(self) -> timedelta:
        return timedelta(days={"day": 1, "week": 7, "month": 31}[self.value])


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the file should hold beyond the logs of the API and the scheduler, which are always in it.

    `system_logs` are those of PostgreSQL, Redis and whatever else runs here, `worker_logs` those of the workers.
    """

    period: Period = Period.WEEK
    system_logs: bool = False
    worker_logs: bool = False
    check_aws: bool = False


@dataclass(frozen=True, slots=True)
class Download:
    """A file name and the bytes, which are made while they are read. Close it if it is not read to its end."""

    name: str
    chunks: Iterator[bytes]


def collect(*, actor: Actor, wanted: Wanted, now: datetime) -> Download:
    """The file, as a tar archive compressed with bzip2. Raises `PermissionDenied` without the right.

    What cannot be read is named in `problems.txt` of the archive; everything else is there nevertheless.
    """
    permissions.require(actor, RIGHT)
    server = ServerSettings.current()
    name = f"cpm-logs-{server.name or server.server_id}-{now:%Y%m%d-%H%M%S}"
    name = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in name
    )
    log.info("support logs collected", by=actor.user.pk, **asdict(wanted))
    parts = _Collector(wanted, now).members()
    members = (Member(f"{name}/{part.name}", part.pieces) for part in parts)
    return Download(f"{name}.tar.bz2", tar_bz2(members, modified=now))


class _Collector:
    """Makes the members one after the other and remembers what went wrong on the way."""

    def __init__(self, wanted: Wanted, now: datetime) -> None:
        self.wanted, self.now = wanted, now
        self.since = now - wanted.period.length
        self.problems: list[str] = []

    def members(self) -> Iterator[Member]:
        scrubber = Scrubber.of_this_server(self.problems)
        for name, source in self._sources():
            yield Member(name, scrubber.lines(self._tried(name, source)))
        yield Member("problems.txt", scrubber.lines(f"{problem}\n" for problem in self.problems or ["none"]))

    def _sources(self) -> Iterator[tuple[str, Callable[[], Iterable[str]]]]:
        yield "summary.json", self._summary
        yield "versions.txt", _versions
        yield "settings.json", _settings
        yield "fleet.json", _fleet
        yield "failed-steps.log", self._failed_steps
        yield "operations.log", self._operations
        for path in self._log_files():
            yield f"logs/{path.name}", lambda path=path: read_lines(path)  # type: ignore[misc]  # bound at once
        if self.wanted.check_aws:
            yield "aws-access.log", _aws_access

    def _tried(self, name: str, source: Callable[[], Iterable[str]]) -> Iterator[str]:
        try:
            yield from source()
        except (OSError, DomainError, AwsError) as error:
            self.problems.append(f"{name} is not complete: {error}")

    def _summary(self) -> Iterator[str]:
        server = ServerSettings.current()
        yield _json(
            {
                "server": str(server.server_id), "name": server.name, "made_at": self.now, "logs_since": self.since,
                "asked_for": asdict(self.wanted), "cpm": fleet.version(), "python": platform.python_version(),
                "system": platform.platform(), "postgresql": _postgresql(),
            }
        )  # fmt: skip

    def _failed_steps(self) -> Iterator[str]:
        rows = Step.objects.filter(state=StepState.FAILED, finished_at__gte=self.since).select_related("job")
        with transaction.atomic():
            for step in rows.order_by("id").iterator(chunk_size=CHUNK):
                subject = f"{step.job.subject_type} {step.job.subject_id or '-'}"
                yield f"{_time(step.finished_at)} step {step.pk} {step.kind} of {subject}: {step.message}\n"

    def _operations(self) -> Iterator[str]:
        rows = LogLine.objects.filter(time__gte=self.since).order_by("id")
        with transaction.atomic():
            for line in rows.iterator(chunk_size=CHUNK):
                subject = f"{line.subject_type} {line.subject_id or '-'}"
                yield f"{_time(line.time)} {line.level} {subject}: {line.message}\n"

    def _log_files(self) -> list[Path]:
        folder = settings.DATA_DIR / "logs"
        found = sorted(path for path in folder.glob("*.log*") if path.is_file() and not path.is_symlink())
        if not found:
            self.problems.append(
                f"There are no log files in {folder}: the parts of this server log to their own output. Ask whatever "
                "runs them (systemd, Docker, Kubernetes) for it."
            )
        return [path for path in found if self._wants(path.name)]

    def _wants(self, name: str) -> bool:
        if name.startswith("worker"):
            return self.wanted.worker_logs
        return self.wanted.system_logs or name.startswith(("api.", "beat.", "migrate.", "bootstrap."))


def _postgresql() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        return str(cursor.fetchone()[0])


def _versions() -> Iterator[str]:
    for found in sorted(metadata.distributions(), key=lambda item: str(item.name).lower()):
        yield f"{found.name}=={found.version}\n"


def _settings() -> Iterator[str]:
    shown = {kind.__name__: [_row(row) for row in kind._default_manager.all()] for kind in _SETTINGS}
    names = [name for name in dir(settings) if name.startswith("CPM_") or name in _DJANGO]
    yield _json({**shown, "process": {name: _value(name, getattr(settings, name)) for name in names}})


_SETTINGS: tuple[type[Model], ...] = (ServerSettings, ProxySettings, EmailIdentity, FileLevelRecoverySettings)
_DJANGO = ("ALLOWED_HOSTS", "DATA_DIR", "DEBUG", "TIME_ZONE")


def _row(row: Model) -> dict[str, object]:
    return {
        field.attname: _value(field.attname, getattr(row, field.attname))
        for field in row._meta.concrete_fields
    }


def _value(name: str, value: object) -> object:
    private = name in PRIVATE or is_secret_name(name)
    return MASK if private and value not in (None, "", False, True) else value


def _fleet() -> Iterator[str]:
    members = FleetMember.objects.order_by("kind", "name")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT queue, state, count(*) FROM cpm_step WHERE finished_at IS NULL GROUP BY 1, 2 ORDER BY 1, 2"
        )
        backlog = [dict(zip(("queue", "state", "steps"), row, strict=True)) for row in cursor.fetchall()]
        cursor.execute("SELECT app || '.' || name FROM django_migrations ORDER BY id")
        migrations = [row[0] for row in cursor.fetchall()]
    yield _json(
        {"processes": [_row(member) for member in members], "open_steps": backlog, "migrations": migrations}
    )


def _aws_access() -> Iterator[str]:
    """Asks AWS, as every account in turn, whose credentials they are."""
    accounts = list(Account.objects.select_related("assume_from_account").order_by("pk"))
    # Identities are read from the database here; the threads only talk to AWS.
    identities = [_identity(account) for account in accounts]
    with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
        for account, answer in zip(accounts, pool.map(_ask, identities), strict=True):
            number = account.account_number or "number unknown"
            yield f"{account.pk} “{account.name}” ({number}): {_verdict(account, answer)}\n"


def _verdict(account: Account, answer: str) -> str:
    if not answer.isdigit():
        return answer
    if account.account_number not in ("", answer):
        return f"failed: these are credentials of account {answer}"
    return f"ok, AWS answers as {answer}"


def _identity(account: Account) -> Identity | str:
    try:
        return identity_of(account, session="cpm-support")
    except (DomainError, SecretUnreadable, KeyFileError) as error:
        return f"failed: {error}"


def _ask(identity: Identity | str) -> str:
    """The account's number according to AWS, or why there is none."""
    if isinstance(identity, str):
        return identity
    try:
        return gateway.account_number(identity)
    except AwsError as error:
        return f"failed: {error.explain()}"


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment else "-"


def _json(content: object) -> str:
    return json.dumps(content, default=str, indent=2) + "\n"
