"""An index of the few backups that are frozen, so that they are counted without reading all others."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("cpm", "0006_audit_chain"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="backup",
            index=models.Index(condition=models.Q(("is_freezer_item", True)), fields=["user"], name="backup_frozen"),
        ),
    ]
