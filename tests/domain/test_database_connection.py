"""A kept database connection is checked without a round trip, and one that the server closed is noticed."""

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from cpm.models import User

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_idle_connection_is_usable_and_costs_no_query() -> None:
    connection.ensure_connection()
    with CaptureQueriesContext(connection) as queries:
        assert connection.is_usable()
    assert len(queries) == 0


def test_a_connection_that_the_server_ended_is_replaced_before_its_next_use() -> None:
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        before = cursor.fetchone()[0]
    with psycopg.connect(**_address()) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [before])
    assert not connection.is_usable()

    connection.health_check_enabled, connection.health_check_done = True, False
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        assert cursor.fetchone()[0] != before


def _address() -> dict[str, object]:
    kept = ("host", "port", "dbname", "user", "password")
    return {name: value for name, value in connection.get_connection_params().items() if name in kept}


def test_a_statement_may_have_more_parameters_than_the_protocol_takes() -> None:
    many = list(range(70_000))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 WHERE 69999 IN ({', '.join(['%s'] * len(many))}) AND '%%' = %s", [*many, "%"])
        assert cursor.fetchone() == (1,)
    assert User.objects.filter(pk__in=many, username="nobody").count() == 0
