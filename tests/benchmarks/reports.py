"""CSV reports of 1,000,000 rows: our rows per second against PostgreSQL's own COPY of the same columns.

Ours goes through Django's whole WSGI handler, with authentication, scope, time zone and formula escaping. The peers
are psql with COPY of the plain columns into /dev/null, in the report's order and in whatever order PostgreSQL likes.
Ratios are medians of interleaved rounds; memory is that of a process that does nothing else.

    python -m tests.benchmarks reports [--rows 1000000]
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import psycopg
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connection

from api import authentication
from cpm import permissions
from cpm.embedded.binaries import postgres_installation
from cpm.models import Account, Policy, Snapshot, User
from cpm.reports.backups import BACKUPS
from cpm.reports.base import Report
from cpm.reports.snapshots import SNAPSHOTS
from tests import factories
from tests.benchmarks.lists import FILL
from tests.benchmarks.wsgi import chunks

USERNAME = "bench-reports"
ACCOUNTS = 250
ROUNDS = 3
ZONE = "Europe/Berlin"
REPORTS = {report.name: report for report in (BACKUPS, SNAPSHOTS)}
FILL_SNAPSHOTS = """
INSERT INTO cpm_snapshot (backup_id, kind, resource_type, account_id, account_name, aws_account_number, region, aws_id,
    source_id, source_name, instance_id, instance_name, status, succeeded, error, progress, start_time, end_time,
    capacity, device, encrypted, details)
SELECT b.id, 'volumes', 'volumes', b.account_id, b.account_name, '123456789012', 'us-east-1',
    'snap-' || lpad(to_hex(b.id), 17, '0'), 'vol-0123456789abcdef0', 'data', 'i-0123456789abcdef0', 'web', 'completed',
    true, '', 100, b.start_time, b.end_time, 8, '/dev/xvdb', false, '{"type": "gp3"}'
FROM cpm_backup b WHERE b.user_id = %s ORDER BY b.id
"""
CHILD = (
    "import sys, django; django.setup(); from tests.benchmarks import reports; reports.read(*sys.argv[1:])"
)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="reports")
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args(arguments).rows
    call_command("migrate", verbosity=0)
    owner = _populate(rows)
    token = str(authentication.obtain(factories.api_key(owner, name=f"bench-{time.time()}")).access_token)
    print(f"CSV reports of {rows} rows in {ZONE}, rows per second (median of {ROUNDS} rounds)")
    for name, report in REPORTS.items():
        _compare(name, report, owner, token, rows)
    connection.close()


def _populate(rows: int) -> User:
    """Backups with a snapshot each, made unless a run before has done it."""
    owner = User.objects.filter(username=USERNAME).first()
    if owner is None or Snapshot.objects.filter(backup__user=owner).count() != rows:
        owner = owner or factories.user(username=USERNAME)
        accounts = Account.objects.bulk_create(
            Account(user=owner, name=f"bench-{n}", authentication="R", account_number="123456789012")
            for n in range(ACCOUNTS)
        )
        policies = Policy.objects.bulk_create(
            Policy(user=owner, account=account, name=f"bench-{account.pk}") for account in accounts
        )
        with connection.cursor() as cursor:
            cursor.execute(
                FILL,
                {
                    "user": owner.pk, "accounts": [a.pk for a in accounts], "policies": [p.pk for p in policies],
                    "many": ACCOUNTS, "backups": rows,
                },
            )  # fmt: skip
            cursor.execute(FILL_SNAPSHOTS, [owner.pk])
            cursor.execute("VACUUM ANALYZE")
    return owner


def _compare(name: str, report: Report, owner: User, token: str, rows: int) -> None:
    commands = {
        "ours": [sys.executable, "-c", CHILD, name, token],
        "COPY in order": _psql(_plain(report, owner, report.order)),
        "COPY in any order": _psql(_plain(report, owner, ())),
    }
    rates: dict[str, list[float]] = {peer: [] for peer in commands}
    peaks = []
    for _ in range(ROUNDS):
        for peer, command in commands.items():
            started = time.perf_counter()
            done = subprocess.run(
                command, check=True, capture_output=peer == "ours", text=True, env=_environment()
            )
            seconds = time.perf_counter() - started
            if peer == "ours":
                found, seconds, peak = done.stdout.split()
                if int(found) != rows:
                    raise SystemExit(f"The report {name} has {found} rows instead of {rows}.")
                peaks.append(float(peak))
            rates[peer].append(rows / float(seconds))
    medians = {peer: statistics.median(values) for peer, values in rates.items()}
    ours = medians.pop("ours")
    ratios = ", ".join(f"{ours / rate:.2f} x {peer} ({rate:.0f}/s)" for peer, rate in medians.items())
    print(f"  {name:10} ours {ours:.0f}/s: {ratios}; peak memory {max(peaks):.0f} MiB")


def _environment() -> dict[str, str]:
    return {**os.environ, "CPM_TIME_ZONE": ZONE}


def _plain(report: Report, owner: User, order: tuple[str, ...]) -> str:
    """The SQL of the report's columns as they are."""
    lines = report.lines(permissions.owned_by([owner.pk], report.rows()), report.csv_columns("username"))
    sql, values = lines.order_by(*order).query.sql_with_params()
    connection.ensure_connection()
    return psycopg.ClientCursor(connection.connection).mogrify(sql.encode(), values)


def _psql(sql: str) -> list[str]:
    url = os.environ["CPM_DATABASE_URL"]
    statement = f"COPY ({sql}) TO STDOUT WITH (FORMAT csv)"
    return [str(postgres_installation() / "bin" / "psql"), url, "-X", "-q", "-o", os.devnull, "-c", statement]


def read(name: str, token: str) -> None:
    """Reads one report to its end and prints rows, seconds and peak memory; runs in a process of its own."""
    handler = WSGIHandler()
    # The first request of a process loads what all others use.
    _lines(handler, name, token, "from_time=2100-01-01")
    started = time.perf_counter()
    lines = _lines(handler, name, token, "")
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(lines - 1, seconds, peak)


def _lines(handler: WSGIHandler, name: str, token: str, query: str) -> int:
    body = chunks(handler, f"/api/reports/{name}/", query, token, accept="text/csv")
    return sum(chunk.count(b"\n") for chunk in body)
