"""A server's database brought back from its own backup (see `cpm.flows.server.server_dump` for what is in it).

There is no actor: whoever can run this holds the database, which has no users yet.
"""

from collections.abc import Callable
from typing import IO, Any

import psycopg
import structlog
from psycopg import sql

from cpm.aws import gateway
from cpm.aws.identity import Identity
from cpm.flows.server import server_dump, server_snapshot
from cpm.flows.server.server_dump import BadDump, Dump, Reader
from cpm.lib.errors import PreconditionFailed
from cpm.lib.states import Role
from cpm.models import Actor, ServerSettings, User
from cpm.services import audit

log = structlog.get_logger(__name__)

# A database with rows in any of these is in use. Root alone, made when the server was set up, does not count.
IN_USE = ("cpm_account", "cpm_policy", "cpm_schedule", "cpm_backup", "cpm_job", "cpm_recovery")
# What the lost server did after the dump has ids that tags in AWS may name: they are not given out again.
RESERVED_IDS = {"cpm_backup": 100_000, "cpm_policy": 100_000, "cpm_step": 1_000_000, "cpm_recovery": 100_000}
SOURCE = "cpm command"
STOPPED = "Interrupted: the server was restored from a backup of its database that was made meanwhile."

# Work that was going on is over: carrying it on from a state of then would do in AWS what was done already.
SETTLE = (
    "UPDATE cpm_step SET state = 'cancelled', finished_at = now(), message = %(why)s, lease_until = NULL,"
    " lease_epoch = lease_epoch + 1 WHERE state IN ('ready', 'running', 'waiting')",
    "UPDATE cpm_job SET state = 'failed', finished_at = now(), open_steps = 0, secret = ''"
    " WHERE state IN ('queued', 'running')",
    "UPDATE cpm_snapshot SET status = 'error', succeeded = false, end_time = now(), error = %(why)s"
    " WHERE status = 'pending'",
    "UPDATE cpm_backup SET status = 'F', end_time = now(), outcome = %(why)s WHERE status IN ('I', 'P')",
    "UPDATE cpm_backup SET dr_status = 'F', dr_outcome = %(why)s WHERE dr_status IN ('P', 'I')",
    "UPDATE cpm_recovery SET status = 'F', end_time = now(), outcome = %(why)s WHERE status = 'P'",
)


def download(*, identity: Identity, region: str, snapshot: str, file: IO[bytes], tick: Callable[[int], None]) -> None:
    """The dump that an EBS snapshot keeps. Raises PreconditionFailed if it is none or damaged, AwsError."""
    try:
        server_snapshot.get(gateway.client(identity, "ebs", region), snapshot, file, tick)
    except BadDump as error:
        raise PreconditionFailed("bad_dump", str(error)) from error


def restore(*, stream: IO[bytes], tick: Callable[[], None]) -> Dump:
    """Load a dump into this migrated, empty database: all of it, or nothing.

    Work that was going on at the time of the dump comes back as failed. Raises PreconditionFailed for a database in
    use or migrated differently, and for a dump that is damaged.
    """
    with server_dump.own_connection() as raw:
        raw.execute("BEGIN")
        try:
            reader = Reader(stream)
            _check(raw, reader)
            dump = _load(raw, reader, tick)
            for statement in SETTLE:
                raw.execute(statement, {"why": STOPPED} if "%(why)s" in statement else None)
            raw.execute("COMMIT")
        except BadDump as error:
            raise PreconditionFailed("bad_dump", str(error)) from error
        finally:
            # After COMMIT this changes nothing but a warning of the server.
            if raw.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                raw.execute("ROLLBACK")
    _record(dump)
    return dump


def _record(dump: Dump) -> None:
    """The restored log says that it was restored; whoever holds the database acts as its root."""
    rows = sum(dump.rows.values())
    log.info("server restored", server=dump.server_id, of=dump.created, rows=rows)
    root = User.objects.filter(role=Role.ROOT).first()
    if root is not None:
        text = f"The server's database was restored from its backup of {dump.created}: {rows} rows."
        after = {"server_id": dump.server_id, "created": dump.created, "rows": rows}
        audit.record(Actor.of(root, source=SOURCE), "server.restored", ServerSettings.current(), after=after, text=text)


def _check(raw: psycopg.Connection[Any], reader: Reader) -> None:
    raw.execute("LOCK TABLE cpm_user, cpm_backup, cpm_job IN ACCESS EXCLUSIVE MODE")
    for table in IN_USE:
        query = sql.SQL("SELECT EXISTS (SELECT 1 FROM {})").format(sql.Identifier(table))
        if raw.execute(query).fetchone() == (True,):
            raise PreconditionFailed(
                "database_in_use", f"The database is not empty ({table} has rows). Restore into a new, migrated one."
            )
    if raw.execute("SELECT count(*) FROM cpm_user").fetchone() not in {(0,), (1,)}:
        raise PreconditionFailed("database_in_use", "The database has users. Restore into a new, migrated one.")
    theirs, ours = reader.head.get("migrations", []), server_dump.migrations(raw)
    if theirs != ours:
        missing = [".".join(one) for one in theirs if one not in ours] or ["none"]
        more = [".".join(one) for one in ours if one not in theirs] or ["none"]
        raise PreconditionFailed(
            "other_version",
            f"The dump is of another version of CPM. Migrations missing here: {', '.join(missing)}; not in the dump:"
            f" {', '.join(more)}. Restore with the version that made it, then upgrade.",
        )


def _load(raw: psycopg.Connection[Any], reader: Reader, tick: Callable[[], None]) -> Dump:
    known = server_dump.tables()
    names = sql.SQL(", ").join(map(sql.Identifier, known))
    for table in known:
        # The tally's triggers would count what the tally in the dump has counted.
        raw.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(sql.Identifier(table)))
    raw.execute(sql.SQL("TRUNCATE {}").format(names))
    rows: dict[str, int] = {}
    for table, columns, chunks in reader.tables():
        if table not in known:
            raise BadDump(f"The dump has a table {table} that this version does not know.")
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with raw.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for data in chunks:
                    copy.write(data)
                    tick()
            rows[table] = max(cursor.rowcount, 0)
    dump = reader.end(rows)
    # Django's foreign keys are checked at the end of a transaction; here they must be, before triggers are altered.
    raw.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for table, last in dump.sequences.items():
        raw.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [table, last + RESERVED_IDS.get(table, 0)])
    for table in known:
        raw.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(sql.Identifier(table)))
    return dump
