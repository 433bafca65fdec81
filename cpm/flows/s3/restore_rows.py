"""The rows of an exported PostgreSQL database on their way into a new one, table after table.

A table is made and filled in one transaction, so it is there as a whole or not at all. The cursor names the tables that are
done; one that is there without being named was done by somebody who died before he could say so.
"""

import tarfile
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql

from cpm.flows.recoveries import database_password
from cpm.flows.recoveries.recover_base import aws, made, place_of, recovery_of, refused
from cpm.flows.s3 import restore_record
from cpm.flows.s3.restore import damaged, expired
from cpm.flows.s3.restore_files import copy_of, image
from cpm.flows.s3.restore_plan import LOAD
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, Wait
from cpm.lib import export_tables
from cpm.lib.export_tables import TEXT, Column, Table
from cpm.repository.errors import Damaged, ObjectArchived
from cpm.resources.rds_database import RdsDatabase

QUEUE = "s3"
SLICE_SECONDS = 60.0
BATCH_ROWS = 5000
CONNECT_SECONDS = 10
MOST_FAILURES, RETRY_SECONDS = 5, 2.0
MAINTENANCE = "postgres"
"""The database that every server has."""
NOT_THERE = (
    "An export has tables and rows only: indexes, keys, defaults, sequences, views, functions, triggers, users and their rights"
    " are not in it and have to be made again, from a dump of the schema for example."
)
Link: TypeAlias = psycopg.Connection[tuple[Any, ...]]


class Stopped(Exception):
    """The job shall stop; what was loaded of a table is rolled back."""


def load(context: StepContext) -> Outcome:
    """One slice. Payload: copy, original, index, account, region."""
    copy = copy_of(context)
    if copy is None:
        return Failed(f"The copy of {context.payload['original']} in S3 was deleted meanwhile.")
    try:
        with image(context, copy) as tar:
            loading = _Loading(context, tar)
            if not loading.run():
                return Wait(0.0, progress=loading.percent, message=loading.words)
    except Damaged as damage:
        return damaged(context, copy, damage)
    except ObjectArchived as error:
        return expired(copy, error)
    except Stopped:
        return Wait(0.0, message="Stopping.")
    except psycopg.OperationalError as error:
        return _unreachable(context, error)
    context.log(f"All {loading.total} tables of {context.payload['original']} are in {loading.instance}. {NOT_THERE}")
    context.remember(loading.instance)
    return Done()


def _unreachable(context: StepContext, error: psycopg.OperationalError) -> Outcome:
    words = (
        f"The new database cannot be worked with from here: {str(error).strip()} Its security group must let this worker in, as"
        " for a publicly accessible database or a worker in its VPC."
    )
    context.lease.failures += 1
    if context.lease.failures > MOST_FAILURES:
        return Failed(words)
    context.warn(words)
    return Wait(RETRY_SECONDS * context.lease.failures, message=words)


class _Loading:
    """One turn at the tables of an image."""

    def __init__(self, context: StepContext, tar: tarfile.TarFile) -> None:
        self._context = context
        self._request = recovery_of(context).request
        self._password = database_password.given(context)
        self.instance = str(made(context, "database"))
        where = RdsDatabase().endpoint(aws(context, place_of(context.payload), "rds"), self.instance)
        if where is None:
            raise refused(f"The database {self.instance} has no address: somebody has deleted it.")
        self._host, self._port = where
        self._members = {member.name: member for member in tar}
        self._tar = tar
        self._tables = self._wanted()
        self._told = restore_record.Progress(context)
        self._ends = time.monotonic() + SLICE_SECONDS
        if context.cursor is None:
            context.save_cursor({"done": []})

    @property
    def total(self) -> int:
        return len(self._tables)

    @property
    def percent(self) -> int:
        return 100 * len(self._context.cursor["done"]) // max(1, self.total)

    @property
    def words(self) -> str:
        return f"{len(self._context.cursor['done'])} of {self.total} tables are loaded."

    def _wanted(self) -> list[Table]:
        lists = [self._read(name) for name in self._members if export_tables.is_info(name)]
        tables = export_tables.tables(self._members, lists)
        only = self._request.get("database_name")
        if only and not any(table.database == only for table in tables):
            raise refused(f"The export has no tables of a database {only}.")
        return [table for table in tables if not only or table.database == only]

    def _read(self, name: str) -> bytes:
        source = self._tar.extractfile(self._members[name])
        assert source is not None
        with source:
            return source.read()

    def run(self) -> bool:
        """Whether all tables are there. Raises `Stopped`."""
        for database in dict.fromkeys(table.database for table in self._tables):
            self._make(database)
            with self._connect(database) as link:
                for table in self._tables:
                    if table.database != database or table.target in self._context.cursor["done"]:
                        continue
                    if time.monotonic() > self._ends:
                        return False
                    self._load(link, table)
                    self._context.save_cursor({"done": [*self._context.cursor["done"], table.target]})
                    self._context.lease.failures = 0
                    self._told.at(self.percent, self.words)
        self._told.at(100, self.words, now=True)
        return True

    def _connect(self, database: str) -> Link:
        return psycopg.connect(
            host=self._host, port=self._port, user=self._request["master_username"], password=self._password,
            dbname=database, sslmode="prefer", connect_timeout=CONNECT_SECONDS, autocommit=True,
        )  # fmt: skip

    def _make(self, database: str) -> None:
        with self._connect(MAINTENANCE) as link:
            known = link.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone()
            if known is None:
                link.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))

    def _load(self, link: Link, table: Table) -> None:
        if link.execute("SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = %s", [table.schema, table.name]).fetchone():
            return
        link.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(table.schema)))
        schema = self._parquet(table.files[0]).schema_arrow if table.files else None
        columns = _known(link, export_tables.columns(table, schema))
        for told in table.columns:
            if not told.type:
                kind = next(column.type for column in columns if column.name == told.name)
                self._context.warn(f"{table.target}: the export does not say which type {told.name} had; it is {kind} now.")
        try:
            rows = self._fill(link, table, columns)
        except (psycopg.DataError, psycopg.NotSupportedError) as error:
            if schema is None:
                raise
            words = f"{table.target}: not all values fit the original types ({str(error).splitlines()[0]}); those of the files are used."
            self._context.warn(words)
            plain = [Column(one.name, export_tables.of_arrow(one.type)) for one in schema]
            rows = self._fill(link, table, plain)
        self._context.log(f"{rows} rows of {table.target} are loaded.")

    def _parquet(self, name: str) -> pq.ParquetFile:
        return pq.ParquetFile(self._tar.extractfile(self._members[name]))

    def _fill(self, link: Link, table: Table, columns: Sequence[Column]) -> int:
        """Make the table with all its rows, in one transaction."""
        rows = 0
        # Types come from a list in the repository, and every one of them is known to the server.
        defined = [sql.SQL("{} {}").format(sql.Identifier(one.name), sql.SQL(one.type)) for one in columns]  # type: ignore[arg-type]
        with link.transaction():
            link.execute(sql.SQL("CREATE TABLE {} ({})").format(table.place, sql.SQL(", ").join(defined)))
            if not table.files:
                return 0
            names = sql.SQL(", ").join(sql.Identifier(one.name) for one in columns)
            with link.cursor() as cursor, cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(table.place, names)) as copy:
                for name in table.files:
                    for batch in self._parquet(name).iter_batches(BATCH_ROWS, use_threads=False):
                        for row in _rows(batch):
                            copy.write_row(row)
                        rows += batch.num_rows
                        self._pause(table, rows)
        return rows

    def _pause(self, table: Table, rows: int) -> None:
        """Tell where it is; raises `Stopped` when the job shall stop, `LeaseLost` when another worker has the step."""
        if self._context.refresh_aborted():
            raise Stopped
        self._told.at(self.percent, f"{rows} rows of {table.target}.")


def _rows(batch: pa.RecordBatch) -> Any:
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _known(link: Link, columns: Sequence[Column]) -> list[Column]:
    """The columns with types that this server has; text is the type of others."""
    kinds = {column.type for column in columns}
    known = {kind for kind in kinds if link.execute("SELECT to_regtype(%s)", [kind]).fetchone() != (None,)}
    return [column if column.type in known else Column(column.name, TEXT) for column in columns]


KINDS = (StepKind(LOAD, QUEUE, load),)
