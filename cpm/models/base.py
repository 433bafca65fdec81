"""What every model shares."""

from django.db import connection, models


class CpmModel(models.Model):
    """Abstract base: 64-bit ids and the application label."""

    id = models.BigAutoField(primary_key=True)

    class Meta:
        abstract = True
        app_label = "cpm"


def new_ids(model: type[models.Model], count: int) -> list[int]:
    """Reserve ids, so that rows which refer to each other can be inserted in bulk."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nextval(pg_get_serial_sequence(%s, 'id')) FROM generate_series(1, %s)",
            [model._meta.db_table, count],
        )
        return [row[0] for row in cursor.fetchall()]
