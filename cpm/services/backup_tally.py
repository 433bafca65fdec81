"""Counting backups, and finding a page deep in their list, from the tally instead of the rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db import connection, models, transaction
from django.db.models.expressions import RawSQL

LOCK = 0x6261_636B_7570_7461

# Only keys with several rows are touched, so that folding an idle tally writes nothing.
_FOLD = """
WITH gone AS (
    DELETE FROM cpm_backuptally t
    USING (SELECT user_id, account_id, whole_user, bucket FROM cpm_backuptally
           GROUP BY user_id, account_id, whole_user, bucket HAVING count(*) > 1) several
    WHERE t.user_id = several.user_id AND t.account_id IS NOT DISTINCT FROM several.account_id
      AND t.whole_user = several.whole_user AND t.bucket = several.bucket
    RETURNING t.user_id, t.account_id, t.whole_user, t.bucket, t.n
), folded AS (
    INSERT INTO cpm_backuptally (user_id, account_id, whole_user, bucket, n)
    SELECT user_id, account_id, whole_user, bucket, sum(n) FROM gone
    GROUP BY user_id, account_id, whole_user, bucket HAVING sum(n) <> 0
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone) - (SELECT count(*) FROM folded)
"""

_WHOLE = "user_id = ANY(%s) AND whole_user"
_BY_ACCOUNT = "user_id = ANY(%s) AND NOT whole_user AND account_id = ANY(%s)"

_LOCATE = """
SELECT bucket, before, total FROM (
    SELECT bucket, sum(n) AS here, sum(sum(n)) OVER (ORDER BY bucket {direction}) - sum(n) AS before,
           sum(sum(n)) OVER () AS total
    FROM cpm_backuptally WHERE {scope} GROUP BY bucket
) AS days
WHERE before <= %s AND %s < before + here ORDER BY bucket LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the row at an offset is: among those that started on `day`, `skip` rows into that day."""

    day: date
    skip: int
    total: int

    @property
    def start(self) -> datetime:
        return datetime.combine(self.day, time(), tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The first moment after the day."""
        return self.start + timedelta(days=1)


def count_sql(*, users: Sequence[int], accounts: Sequence[int] | None = None) -> RawSQL:
    """The number of backups of these users, of these accounts only if given, as a part of another query."""
    where, values = _scope(users, accounts)
    sql = f"SELECT coalesce(sum(n), 0)::bigint FROM cpm_backuptally WHERE {where}"  # noqa: S608
    return RawSQL(sql, values, models.BigIntegerField())  # noqa: S611


def count(*, users: Sequence[int], accounts: Sequence[int] | None = None) -> int:
    """The same, asked at once. Exact at the time of the query."""
    counted = count_sql(users=users, accounts=accounts)
    with connection.cursor() as cursor:
        cursor.execute(counted.sql, counted.params)
        return int(cursor.fetchone()[0])


def locate(
    *, users: Sequence[int], accounts: Sequence[int] | None = None, offset: int, newest_first: bool
) -> Place | None:
    """The place of the row at `offset` in the order of start times; None if there are no more than `offset` rows."""
    where, values = _scope(users, accounts)
    query = _LOCATE.format(direction="DESC" if newest_first else "ASC", scope=where)
    with connection.cursor() as cursor:
        cursor.execute(query, [*values, offset, offset])
        row = cursor.fetchone()
    return Place(day=row[0], skip=offset - int(row[1]), total=int(row[2])) if row else None


def fold() -> int:
    """Merges the rows of the tally; returns how many fewer there are. Safe beside any other work; never waits."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
        if not cursor.fetchone()[0]:
            return 0
        cursor.execute(_FOLD)
        return int(cursor.fetchone()[0])


def _scope(users: Sequence[int], accounts: Sequence[int] | None) -> tuple[str, list[Any]]:
    if accounts is None:
        return _WHOLE, [list(users)]
    return _BY_ACCOUNT, [list(users), list(accounts)]
