"""A page of 50 of 20,000 policies as each role, against one hand-written query behind the same authentication.

Both go through Django's whole WSGI handler, check the same token and send the same 50 rows with their count, which is
checked. Ratios are medians of interleaved rounds. The queries of a request are counted: whom a caller reaches comes
along with the token, so that every role needs as many.

    python -m tests.benchmarks permissions [--policies 20000]
"""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connection
from django.test.utils import override_settings

from api import authentication
from cpm.lib.states import Role
from cpm.models import Policy, PolicySchedule, User
from tests import factories
from tests.benchmarks.lists import PAGE, ROUNDS, per_second
from tests.benchmarks.wsgi import get

MANAGED_USERS = 20
OTHERS = 4


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="permissions")
    parser.add_argument("--policies", type=int, default=20_000)
    policies = parser.parse_args(arguments).policies
    call_command("migrate", verbosity=0)
    tokens = _populate(policies)
    with override_settings(ROOT_URLCONF="tests.benchmarks.permissions_peers", ALLOWED_HOSTS=["*"]):
        _compare(tokens, policies)
    connection.close()


def _populate(policies: int) -> dict[str, str]:
    """The table, with a fifth for root, two for its managed users and two for others; and a token of each role."""
    root, independent = factories.root(), factories.user()
    managed = [factories.user(Role.MANAGED) for _ in range(MANAGED_USERS)]
    others = [independent, *(factories.user() for _ in range(OTHERS - 1))]
    _own(root, policies // 5)
    for users in (managed, others):
        for user in users:
            _own(user, policies * 2 // 5 // len(users))
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    callers = {
        "root": root,
        "independent": independent,
        "managed": managed[0],
        "delegate": factories.delegate(independent),
        "root's delegate": factories.delegate(root),
    }
    return {name: _token(user) for name, user in callers.items()}


def _token(user: User) -> str:
    return str(authentication.obtain(factories.api_key(user)).access_token)


def _own(user: User, policies: int) -> None:
    account, schedule = factories.account(user), factories.schedule(user)
    rows = [Policy(user=user, account=account, name=f"policy-{number}") for number in range(policies)]
    made = Policy.objects.bulk_create(rows, batch_size=500)
    links = [PolicySchedule(policy=policy, schedule=schedule) for policy in made]
    PolicySchedule.objects.bulk_create(links, batch_size=500)


def _compare(tokens: Mapping[str, str], policies: int) -> None:
    handler = WSGIHandler()
    paths = {"ours": "/api/policies/", "sql": "/peers/sql/"}
    print(f"A page of 50 of {policies} policies, requests per second (median of {ROUNDS} rounds)")
    for name, token in tokens.items():
        answers = [get(handler, path, PAGE, token) for path in paths.values()]
        ours, theirs = (orjson.loads(body) for body in answers)
        if any(ours[k] != theirs[k] for k in ("count", "results")):
            raise SystemExit(f"{name}: the answers differ: {answers[0][:300]!r} and {answers[1][:300]!r}")
        queries: list[str] = []
        with connection.execute_wrapper(partial(_noting, queries)):
            get(handler, paths["ours"], PAGE, token)
        rates: dict[str, list[float]] = {peer: [] for peer in paths}
        for _ in range(ROUNDS):
            for peer, path in paths.items():
                rates[peer].append(per_second(partial(get, handler, path, PAGE, token)))
        medians = {peer: statistics.median(values) for peer, values in rates.items()}
        print(
            f"  {name:16} {ours['count']:6} policies, {len(queries)} queries: ours {medians['ours']:.0f}/s, "
            f"sql {medians['sql']:.0f}/s: {medians['ours'] / medians['sql']:.2f} x sql"
        )


def _noting(queries: list[str], execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
    queries.append(sql)
    return execute(sql, *arguments)
