"""S3 repositories, and which of them a policy copies to."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("cpm", "0008_snapshot_living"),
    ]

    operations = [
        migrations.CreateModel(
            name="S3Repository",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=128)),
                ("description", models.TextField(blank=True)),
                ("aws_bucket_name", models.CharField(max_length=63)),
                ("aws_region", models.CharField(max_length=32)),
                ("prefix", models.CharField(max_length=160)),
                ("versioned", models.BooleanField(default=False)),
                ("secret", models.TextField()),
                (
                    "deletion_status",
                    models.CharField(
                        choices=[("N", "N/A"), ("I", "In Progress"), ("F", "Failed"), ("S", "Succeeded")],
                        default="N",
                        max_length=1,
                    ),
                ),
                ("deletion_forced", models.BooleanField(default=False)),
                ("deletion_error", models.TextField(blank=True)),
                ("bytes_stored", models.BigIntegerField(default=0)),
                ("blocks_stored", models.BigIntegerField(default=0)),
                ("copies_stored", models.PositiveIntegerField(default=0)),
                ("usage_updated_at", models.DateTimeField(blank=True, null=True)),
                ("last_verified_at", models.DateTimeField(blank=True, null=True)),
                (
                    "last_verify_depth",
                    models.CharField(
                        blank=True,
                        choices=[("list", "Listing"), ("sample", "Sample"), ("full", "Every byte")],
                        max_length=6,
                    ),
                ),
                (
                    "last_verify_result",
                    models.CharField(
                        blank=True,
                        choices=[("sound", "Sound"), ("damaged", "Damaged"), ("failed", "Not verified")],
                        max_length=7,
                    ),
                ),
                ("last_verify_details", models.TextField(blank=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="s3_repositories",
                        to="cpm.account",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="s3_repositories",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "S3 repository",
                "verbose_name_plural": "S3 repositories",
                "abstract": False,
            },
        ),
        migrations.AddField(
            model_name="policy",
            name="s3_repository",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="policies",
                to="cpm.s3repository",
            ),
        ),
        migrations.AddConstraint(
            model_name="s3repository",
            constraint=models.UniqueConstraint(fields=("user", "name"), name="s3_repository_name_of_user"),
        ),
        migrations.AddConstraint(
            model_name="s3repository",
            constraint=models.UniqueConstraint(
                fields=("aws_bucket_name", "prefix"), name="s3_repository_place"
            ),
        ),
    ]
