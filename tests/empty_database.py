"""Emptying the test database between tests that commit.

Django truncates every table and then writes its content types and permissions anew, which takes longer than most of
these tests. Most tables are empty, so finding those that are not and deleting their rows takes a tenth of that.
"""

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.test import TransactionTestCase

# What Django writes once after the migrations, and what may not be deleted row by row.
KEPT = {"django_content_type", "auth_permission"}
SEALED = {"cpm_auditrecord", "cpm_auditseal"}


def use() -> None:
    """From now on tests of this process are followed by `empty`."""
    TransactionTestCase._fixture_teardown = lambda case: empty()  # type: ignore[method-assign]


def empty() -> None:
    """Delete all rows. Foreign keys are looked at when the transaction ends, so the order does not matter."""
    tables = sorted(set(connection.introspection.django_table_names(only_existing=True)) - KEPT)
    with connection.cursor() as cursor:
        while filled := _filled(cursor, tables):
            if SEALED & filled:
                cursor.execute(f"TRUNCATE {', '.join(sorted(SEALED))}")
            with transaction.atomic():
                # Triggers keep counts in other tables, which may have rows again after this.
                for table in sorted(filled - SEALED):
                    cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")


def _filled(cursor: CursorWrapper, tables: list[str]) -> set[str]:
    quoted = (connection.ops.quote_name(table) for table in tables)
    cursor.execute("SELECT " + ", ".join(f"EXISTS (SELECT FROM {table})" for table in quoted))
    [row] = cursor.fetchall()
    return {table for table, some in zip(tables, row, strict=True) if some}
