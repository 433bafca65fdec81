"""What a support engineer wants to know of this server at first: versions, numbers, switches; no secrets."""

import platform
from datetime import datetime
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.db import connection

from cpm import features, permissions
from cpm.features import Feature
from cpm.jobs import fleet
from cpm.models import (
    Account,
    Actor,
    Backup,
    Policy,
    ProxySettings,
    Recovery,
    Schedule,
    ServerSettings,
    Snapshot,
    Target,
    User,
)

RIGHT = "settings.read"
COUNTED = {
    "accounts": Account, "backups": Backup, "policies": Policy, "recoveries": Recovery, "schedules": Schedule,
    "snapshots": Snapshot, "targets": Target, "users": User,
}  # fmt: skip


def collect(*, actor: Actor, now: datetime) -> dict[str, Any]:
    """Everything, as JSON values."""
    permissions.require(actor, RIGHT)
    row = ServerSettings.current()
    return {
        "product": "CPM",
        "cpm_name": row.name,
        "cpm_uuid": str(row.server_id),
        "cpm_version": fleet.version() or "source",
        "api_version": django_settings.SPECTACULAR_SETTINGS["VERSION"],
        "created": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "time_zone": django_settings.TIME_ZONE,
        "python_version": platform.python_version(),
        "platform": platform.platform(),
        "database": _database(),
        "counts": {name: model._default_manager.count() for name, model in COUNTED.items()},
        "features": {feature.value: features.is_on(feature) for feature in Feature},
        "settings": {
            "activation_key_stored": bool(row.activation_key),
            "capture_vpcs": row.capture_vpcs,
            "cost_explorer": row.cost_explorer_enabled,
            "log_mode": row.log_mode,
            "own_aws_endpoint": bool(django_settings.CPM_AWS_ENDPOINT_URL),
            "proxy": ProxySettings.current().enabled,
            "scan_resources": row.scan_resources,
        },
    }


def _database() -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version'), pg_database_size(current_database())")
        version, size = cursor.fetchone()
        cursor.execute(
            "SELECT max(name) FROM django_migrations WHERE app = %s", [apps.get_app_config("cpm").label]
        )
        (migration,) = cursor.fetchone()
    return {"version": version, "size_bytes": size, "migration": migration}
