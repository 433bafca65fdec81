"""Seals of the audit log: the key, the places, and triggers that keep rows as they were written."""

from django.db import migrations, models

# Sealing fills seal, position and mac of a row, once. Retention says so before it deletes (cpm.flows.cleanup.audit_retention).
# There is no trigger against TRUNCATE: tests and restores empty all tables. `cpm audit verify --head` shows it.
FORWARD = """
CREATE FUNCTION cpm_audit_record_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF current_setting('cpm.audit_purge', true) = 'on' AND OLD.seal_id IS NOT NULL THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'Audit records are only deleted by retention.';
    END IF;
    IF OLD.seal_id IS NULL AND NEW.seal_id IS NOT NULL
        AND to_jsonb(NEW) - '{seal_id,position,mac}'::text[] = to_jsonb(OLD) - '{seal_id,position,mac}'::text[]
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'Audit records are not changed.';
END $$;

CREATE FUNCTION cpm_audit_seal_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('cpm.audit_purge', true) = 'on' AND OLD.purged_at IS NULL
        AND to_jsonb(NEW) - 'purged_at' = to_jsonb(OLD) - 'purged_at'
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'Seals of the audit log are neither changed nor deleted.';
END $$;

CREATE TRIGGER audit_record_guard BEFORE UPDATE OR DELETE ON cpm_auditrecord
    FOR EACH ROW EXECUTE FUNCTION cpm_audit_record_guard();
CREATE TRIGGER audit_seal_guard BEFORE UPDATE OR DELETE ON cpm_auditseal
    FOR EACH ROW EXECUTE FUNCTION cpm_audit_seal_guard();
"""

BACKWARD = """
DROP TRIGGER audit_record_guard ON cpm_auditrecord;
DROP TRIGGER audit_seal_guard ON cpm_auditseal;
DROP FUNCTION cpm_audit_record_guard();
DROP FUNCTION cpm_audit_seal_guard();
"""


class Migration(migrations.Migration):
    dependencies = [("cpm", "0005_identity_audit_reports_settings")]

    operations = [
        migrations.CreateModel(
            name="AuditKey",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("secret", models.TextField()),
            ],
            options={
                "abstract": False,
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="audit_key_one_row")
                ],
            },
        ),
        migrations.AddField(
            model_name="auditrecord",
            name="request_id",
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AddField(
            model_name="auditrecord", name="mac", field=models.CharField(blank=True, max_length=64)
        ),
        # Nothing has been sealed before this migration.
        migrations.AddField(
            model_name="auditseal",
            name="rows_hash",
            field=models.CharField(default="", max_length=64),
            preserve_default=False,
        ),
        migrations.AlterField(
            model_name="auditseal", name="sealed_at", field=models.DateTimeField()
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
