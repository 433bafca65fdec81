"""Failed attempts to log in, counted by source address and by name, so that guessing takes longer than anybody lives.

Only failures count: who has the right key or password may come as often as they like. After too many failures within
a window nothing more is looked at from that address, or for that name, for a while. Names are kept as hashes, because
people type passwords where names belong.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

import structlog
from django.conf import settings
from django.db import connection
from django.db.models import Q

from cpm.lib.errors import AuthenticationFailed, TooManyAttempts
from cpm.lib.source import group_of
from cpm.models import Attempts, User
from cpm.services import audit

log = structlog.get_logger(__name__)


class Kind(StrEnum):
    """What is counted."""

    KEY_SOURCE = "key-source"
    LOGIN_NAME = "login-name"
    LOGIN_SOURCE = "login-source"


@dataclass(frozen=True, slots=True)
class Counter:
    """One thing whose failures are counted, and how many it may have within a window."""

    kind: Kind
    key: str
    limit: int
    # As it was typed; it may be a password, so it stays in memory.
    name: str = field(default="", repr=False)

    @property
    def rows(self) -> Q:
        return Q(kind=self.kind, key=self.key)


# One statement, so that failures at the same moment all count. A row whose window or block is over starts anew.
_COUNT = """
INSERT INTO cpm_attempts AS a (kind, key, window_start, count, blocked_until)
VALUES (%(kind)s, %(key)s, %(now)s, 1, CASE WHEN %(limit)s <= 1 THEN %(block)s::timestamptz END)
ON CONFLICT (kind, key) DO UPDATE SET
    (window_start, count, blocked_until) = (
        SELECT CASE WHEN f.fresh THEN excluded.window_start ELSE a.window_start END,
               f.count,
               CASE WHEN f.count >= %(limit)s THEN %(block)s::timestamptz END
        FROM (
            SELECT fresh, CASE WHEN fresh THEN 1 ELSE a.count + 1 END AS count
            FROM (
                SELECT a.window_start <= %(expired)s OR coalesce(a.blocked_until <= %(now)s, false) AS fresh
            ) AS w
        ) AS f
    )
RETURNING a.blocked_until IS NOT NULL
"""


def by_key(source: str) -> list[Counter]:
    """The counter for whoever shows an API key or a token."""
    return [Counter(Kind.KEY_SOURCE, group_of(source), settings.CPM_LOGIN_ATTEMPTS_PER_SOURCE)]


def by_password(source: str, name: str) -> list[Counter]:
    """The counters for whoever gives a password for a name."""
    return [
        _of_name(name),
        Counter(Kind.LOGIN_SOURCE, group_of(source), settings.CPM_LOGIN_ATTEMPTS_PER_SOURCE),
    ]


@contextmanager
def counted(
    counters: Sequence[Counter],
    *,
    now: datetime,
    refusals: tuple[type[Exception], ...] = (AuthenticationFailed,),
) -> Iterator[None]:
    """Around looking at a secret: raises `TooManyAttempts` instead, if a counter is blocked.

    One of `refusals` out of the block counts as a failure and is raised on. It must leave the block after the end of
    any transaction, or the count is undone with it. Success forgets the failures of a name, and those of the keys of
    an address; failures of passwords from an address stay, so that whoever has one password cannot guess on for ever.
    """
    noted = Q()
    for counter in counters:
        noted |= counter.rows
    rows = list(Attempts.objects.filter(noted))
    ends = max((row.blocked_until for row in rows if row.blocked_until), default=now)
    if ends > now:
        raise TooManyAttempts(math.ceil((ends - now).total_seconds()))
    try:
        yield
    except refusals:
        for counter in counters:
            _failed(counter, now)
        raise
    if rows:
        forgiven = [row.pk for row in rows if row.kind != Kind.LOGIN_SOURCE]
        Attempts.objects.filter(pk__in=forgiven).delete()


def forget(name: str) -> None:
    """Forgets the failures of a name, so that it is blocked no longer."""
    Attempts.objects.filter(_of_name(name).rows).delete()


def purge(*, now: datetime) -> int:
    """Removes counters that stand for nothing any more, and says how many."""
    over = Q(window_start__lt=now - _window()) & (Q(blocked_until=None) | Q(blocked_until__lt=now))
    return Attempts.objects.filter(over).delete()[0]


def _of_name(name: str) -> Counter:
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    return Counter(Kind.LOGIN_NAME, digest, settings.CPM_LOGIN_ATTEMPTS, name)


def _window() -> timedelta:
    return timedelta(seconds=settings.CPM_LOGIN_WINDOW_SECONDS)


def _failed(counter: Counter, now: datetime) -> None:
    values = {
        "kind": counter.kind.value,
        "key": counter.key[:200],
        "limit": counter.limit,
        "now": now,
        "expired": now - _window(),
        "block": now + timedelta(seconds=settings.CPM_LOGIN_BLOCK_SECONDS),
    }
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, values)
        (blocked,) = cursor.fetchone()
    if blocked:
        log.warning("attempts blocked", kind=counter.kind.value, key=counter.key)
        _note(counter)


def _note(counter: Counter) -> None:
    """For the audit log; a name only if it is that of a user, and not perhaps a password."""
    if counter.kind == Kind.LOGIN_NAME:
        name = counter.name if User.objects.filter(username=counter.name).exists() else ""
        whom = f"user “{name}”" if name else "a name that no user has"
        audit.note("login.blocked", f"Logins of {whom} blocked after {counter.limit} failures.")
    else:
        what = "API keys" if counter.kind == Kind.KEY_SOURCE else "passwords"
        text = f"Logins from {counter.key} blocked after {counter.limit} failures with {what}."
        audit.note("login.blocked", text, source=counter.key)
