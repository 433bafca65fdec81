"""The tally of backups with its triggers, and stored answers for Idempotency-Key."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# One change of backups becomes two kinds of rows by GROUPING SETS: per account, and for the whole user.
# An update that leaves owner, account and day alone sums to zero and notes nothing.
FORWARD = """
CREATE FUNCTION cpm_backup_tally_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO cpm_backuptally (user_id, account_id, whole_user, bucket, n)
    SELECT user_id, account_id, grouping(account_id) = 1, (start_time AT TIME ZONE 'UTC')::date, count(*)
    FROM added
    GROUP BY GROUPING SETS (
        (user_id, account_id, (start_time AT TIME ZONE 'UTC')::date),
        (user_id, (start_time AT TIME ZONE 'UTC')::date)
    );
    RETURN NULL;
END $$;

CREATE FUNCTION cpm_backup_tally_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO cpm_backuptally (user_id, account_id, whole_user, bucket, n)
    SELECT user_id, account_id, grouping(account_id) = 1, (start_time AT TIME ZONE 'UTC')::date, -count(*)
    FROM removed
    GROUP BY GROUPING SETS (
        (user_id, account_id, (start_time AT TIME ZONE 'UTC')::date),
        (user_id, (start_time AT TIME ZONE 'UTC')::date)
    );
    RETURN NULL;
END $$;

CREATE FUNCTION cpm_backup_tally_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO cpm_backuptally (user_id, account_id, whole_user, bucket, n)
    SELECT user_id, account_id, grouping(account_id) = 1, bucket, sum(n)
    FROM (
        SELECT user_id, account_id, (start_time AT TIME ZONE 'UTC')::date AS bucket, 1 AS n FROM added
        UNION ALL
        SELECT user_id, account_id, (start_time AT TIME ZONE 'UTC')::date, -1 FROM removed
    ) AS change
    GROUP BY GROUPING SETS ((user_id, account_id, bucket), (user_id, bucket))
    HAVING sum(n) <> 0;
    RETURN NULL;
END $$;

CREATE FUNCTION cpm_backup_tally_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM cpm_backuptally;
    RETURN NULL;
END $$;

CREATE TRIGGER backup_tally_insert AFTER INSERT ON cpm_backup
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION cpm_backup_tally_insert();
CREATE TRIGGER backup_tally_delete AFTER DELETE ON cpm_backup
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION cpm_backup_tally_delete();
CREATE TRIGGER backup_tally_update AFTER UPDATE ON cpm_backup
    REFERENCING OLD TABLE AS removed NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION cpm_backup_tally_update();
CREATE TRIGGER backup_tally_truncate AFTER TRUNCATE ON cpm_backup
    FOR EACH STATEMENT EXECUTE FUNCTION cpm_backup_tally_truncate();

INSERT INTO cpm_backuptally (user_id, account_id, whole_user, bucket, n)
SELECT user_id, account_id, grouping(account_id) = 1, (start_time AT TIME ZONE 'UTC')::date, count(*)
FROM cpm_backup
GROUP BY GROUPING SETS (
    (user_id, account_id, (start_time AT TIME ZONE 'UTC')::date),
    (user_id, (start_time AT TIME ZONE 'UTC')::date)
);
"""

BACKWARD = """
DROP TRIGGER backup_tally_truncate ON cpm_backup;
DROP TRIGGER backup_tally_update ON cpm_backup;
DROP TRIGGER backup_tally_delete ON cpm_backup;
DROP TRIGGER backup_tally_insert ON cpm_backup;
DROP FUNCTION cpm_backup_tally_truncate();
DROP FUNCTION cpm_backup_tally_update();
DROP FUNCTION cpm_backup_tally_delete();
DROP FUNCTION cpm_backup_tally_insert();
"""


class Migration(migrations.Migration):
    dependencies = [("cpm", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="BackupTally",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("user_id", models.BigIntegerField()),
                ("account_id", models.BigIntegerField(null=True)),
                ("whole_user", models.BooleanField()),
                ("bucket", models.DateField()),
                ("n", models.BigIntegerField()),
            ],
            options={
                "abstract": False,
                "indexes": [
                    models.Index(
                        fields=["user_id", "whole_user", "account_id", "bucket"],
                        include=("n",),
                        name="backup_tally_by_scope",
                    )
                ],
            },
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.CreateModel(
            name="StoredAnswer",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("key", models.CharField(max_length=255)),
                ("path", models.CharField(max_length=255)),
                ("body_hash", models.CharField(max_length=64)),
                ("status", models.PositiveSmallIntegerField(null=True)),
                ("content", models.TextField(blank=True)),
                ("created_at", models.DateTimeField()),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "abstract": False,
                "indexes": [models.Index(fields=["created_at"], name="stored_answer_by_age")],
                "constraints": [
                    models.UniqueConstraint(fields=("user", "key", "path"), name="stored_answer_once")
                ],
            },
        ),
    ]
