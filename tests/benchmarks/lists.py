"""Lists of 1,000,000 backups: our page against a plain viewset and against one hand-written query, in one process.

Every variant goes through Django's whole WSGI handler, authenticates the same token and sends the same 50 rows, field
by field (that is checked), with their count. Ratios are medians of interleaved rounds.

    python -m tests.benchmarks lists [--backups 1000000]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import orjson
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connection
from django.test.utils import override_settings

from api import authentication
from cpm.models import Account, Backup, Policy, User
from cpm.services import backup_tally
from tests import factories
from tests.benchmarks.wsgi import chunks, get

ACCOUNTS = 250
USERNAME = "bench-lists"
ROUNDS = 3
SECONDS = 1.5

FILL = """
INSERT INTO cpm_backup (user_id, account_id, policy_id, policy_name, account_name, status, status_before_deletion,
    dr_status, s3_copy_status, s3_copy_progress, archive_status, archive_progress, start_time, end_time, outcome,
    dr_outcome, dr_regions, dr_account_regions, is_retry, attempt, retry_scheduled, performed_quiesce,
    marked_for_deletion, is_freezer_item, name, description)
SELECT %(user)s, (%(accounts)s::bigint[])[1 + n %% %(many)s], (%(policies)s::bigint[])[1 + n %% %(many)s],
    'policy', 'account', (ARRAY['B','A','F','D'])[1 + n %% 4], '', 'N', 'Z', 0, 'Z', 0,
    timestamptz '2026-11-01' - n * interval '31 seconds', timestamptz '2026-11-01' - n * interval '30 seconds',
    '', '', '', '', false, 0, false, false, false, false, '', ''
FROM generate_series(1, %(backups)s) AS n
"""

PAGE = "page=1&page_size=50"
CHILD = "import sys, django; django.setup(); from tests.benchmarks import lists; lists.stream(sys.argv[1])"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="lists")
    parser.add_argument("--backups", type=int, default=1_000_000)
    backups = parser.parse_args(arguments).backups
    call_command("migrate", verbosity=0)
    token, account = _populate(backups)
    with override_settings(ROOT_URLCONF="tests.benchmarks.lists_peers", ALLOWED_HOSTS=["*"]):
        _compare(token, account, backups)
    _stream(token)
    connection.close()


def _populate(backups: int) -> tuple[str, int]:
    """The table, filled unless a run before has done it, and a token of its owner."""
    owner = User.objects.filter(username=USERNAME).first()
    if owner is None or Backup.objects.filter(user=owner).count() != backups:
        owner = owner or factories.user(username=USERNAME)
        accounts = Account.objects.bulk_create(
            Account(user=owner, name=f"bench-{n}", authentication="R", account_number="1")
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
                    "many": ACCOUNTS, "backups": backups,
                },
            )  # fmt: skip
            cursor.execute("VACUUM ANALYZE")
        backup_tally.fold()
    account = Account.objects.filter(user=owner).order_by("pk")[0]
    token = authentication.obtain(factories.api_key(owner, name=f"bench-{time.time()}"))
    return str(token.access_token), account.pk


def per_second(call: Callable[[], Any]) -> float:
    """Calls per second, at least three calls."""
    call()
    done, start = 0, time.perf_counter()
    while done < 3 or time.perf_counter() - start < SECONDS:
        call()
        done += 1
    return done / (time.perf_counter() - start)


def _compare(token: str, account: int, backups: int) -> None:
    deep = f"page={backups // 2 // 50 + 1}&page_size=50"
    handler = WSGIHandler()
    cases = {
        "filtered by account": (f"account={account}&ordering=-start_time&{PAGE}", ("viewset", "sql")),
        "unfiltered, first page": (f"ordering=-start_time&{PAGE}", ("viewset",)),
        f"unfiltered, offset {backups // 2}": (f"ordering=-start_time&{deep}", ("viewset",)),
    }
    print(f"Pages of 50 of {backups} backups, requests per second (median of {ROUNDS} rounds)")
    for name, (query, peers) in cases.items():
        paths = {"ours": "/api/backups/", **{peer: f"/peers/{peer}/" for peer in peers}}
        answers = {path: orjson.loads(get(handler, path, query, token)) for path in paths.values()}
        wanted = answers["/api/backups/"]
        for path, shown in answers.items():
            same = shown.get("results") == wanted["results"]
            if not same or shown["count"] != backups // (ACCOUNTS if "account" in name else 1):
                raise SystemExit(f"{path}?{query} answered something else: {str(shown)[:300]}")
        rates: dict[str, list[float]] = {peer: [] for peer in paths}
        for _ in range(ROUNDS):
            for peer, path in paths.items():
                rates[peer].append(per_second(partial(get, handler, path, query, token)))
        medians = {peer: statistics.median(values) for peer, values in rates.items()}
        shown = ", ".join(f"{peer} {rate:.1f}/s" for peer, rate in medians.items())
        ratios = ", ".join(f"{medians['ours'] / medians[peer]:.2f} x {peer}" for peer in peers)
        print(f"  {name:30} {shown}: {ratios}")


def _stream(token: str) -> None:
    """The bare list in a process of its own, whose peak memory is the measure."""
    done = subprocess.run([sys.executable, "-c", CHILD, token], check=True, capture_output=True, text=True)
    print(done.stdout, end="")


def stream(token: str) -> None:
    """Reads the whole bare list and prints what it took; runs in a process of its own."""
    handler = WSGIHandler()
    started = time.perf_counter()
    size = rows = 0
    for chunk in chunks(handler, "/api/backups/", "", token):
        size += len(chunk)
        rows += chunk.count(b'"policy":')
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"  bare list: {rows} rows, {size / 1e6:.0f} MB in {seconds:.1f} s ({rows / seconds:.0f} rows/s), "
        f"peak memory {peak:.0f} MiB"
    )
