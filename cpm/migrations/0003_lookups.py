"""AWS regions and resource types. The ids are part of the public API: rows are added, never renumbered."""

from typing import Any

from django.db import migrations

REGIONS = [
    (1, "us-east-1", "US East (N. Virginia)"),
    (2, "us-east-2", "US East (Ohio)"),
    (3, "us-west-1", "US West (N. California)"),
    (4, "us-west-2", "US West (Oregon)"),
    (5, "ca-central-1", "Canada (Central)"),
    (6, "ca-west-1", "Canada West (Calgary)"),
    (7, "sa-east-1", "South America (São Paulo)"),
    (8, "mx-central-1", "Mexico (Central)"),
    (9, "eu-west-1", "Europe (Ireland)"),
    (10, "eu-west-2", "Europe (London)"),
    (11, "eu-west-3", "Europe (Paris)"),
    (12, "eu-central-1", "Europe (Frankfurt)"),
    (13, "eu-central-2", "Europe (Zurich)"),
    (14, "eu-north-1", "Europe (Stockholm)"),
    (15, "eu-south-1", "Europe (Milan)"),
    (16, "eu-south-2", "Europe (Spain)"),
    (17, "af-south-1", "Africa (Cape Town)"),
    (18, "il-central-1", "Israel (Tel Aviv)"),
    (19, "me-central-1", "Middle East (UAE)"),
    (20, "me-south-1", "Middle East (Bahrain)"),
    (21, "ap-east-1", "Asia Pacific (Hong Kong)"),
    (22, "ap-east-2", "Asia Pacific (Taipei)"),
    (23, "ap-northeast-1", "Asia Pacific (Tokyo)"),
    (24, "ap-northeast-2", "Asia Pacific (Seoul)"),
    (25, "ap-northeast-3", "Asia Pacific (Osaka)"),
    (26, "ap-south-1", "Asia Pacific (Mumbai)"),
    (27, "ap-south-2", "Asia Pacific (Hyderabad)"),
    (28, "ap-southeast-1", "Asia Pacific (Singapore)"),
    (29, "ap-southeast-2", "Asia Pacific (Sydney)"),
    (30, "ap-southeast-3", "Asia Pacific (Jakarta)"),
    (31, "ap-southeast-4", "Asia Pacific (Melbourne)"),
    (32, "ap-southeast-5", "Asia Pacific (Malaysia)"),
    (33, "ap-southeast-6", "Asia Pacific (New Zealand)"),
    (34, "ap-southeast-7", "Asia Pacific (Thailand)"),
    (35, "us-gov-east-1", "AWS GovCloud (US-East)"),
    (36, "us-gov-west-1", "AWS GovCloud (US-West)"),
    (37, "cn-north-1", "China (Beijing)"),
    (38, "cn-northwest-1", "China (Ningxia)"),
]
RESOURCE_TYPES = [
    (1, "instance", "Instances"),
    (2, "volume", "Volumes"),
    (3, "rds_database", "RDS Databases"),
    (4, "rds_cluster", "RDS Clusters"),
    (5, "redshift_cluster", "Redshift Clusters"),
    (6, "dynamodb_table", "DynamoDB Tables"),
    (7, "efs", "Elastic File Systems"),
]


def add_lookups(apps: Any, _schema_editor: Any) -> None:
    region, kind = apps.get_model("cpm", "Region"), apps.get_model("cpm", "ResourceType")
    region.objects.bulk_create(
        [region(id=id, aws_region=name, disp_name=shown) for id, name, shown in REGIONS],
        ignore_conflicts=True,
    )
    kind.objects.bulk_create(
        [kind(id=id, name=name, label=label) for id, name, label in RESOURCE_TYPES], ignore_conflicts=True
    )


class Migration(migrations.Migration):
    dependencies = [("cpm", "0002_backup_tally")]

    operations = [migrations.RunPython(add_lookups, migrations.RunPython.noop)]
