"""An index over the snapshots that exist, which dashboards and /metrics count."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("cpm", "0007_frozen_backups")]

    operations = [
        migrations.AddIndex(
            model_name="snapshot",
            index=models.Index(
                condition=models.Q(("status", "completed")), fields=["backup", "kind"], name="snapshot_living"
            ),
        ),
    ]
