"""What a good request needs beyond what the contract's types say: which object, and which values make sense."""

import re
from collections.abc import Callable
from typing import Any

from cpm.models import Backup, Notification, Policy, Recovery, Snapshot
from tests import factories as make
from tests.contract.facts import Operation, schema
from tests.contract.populated import Server

# Which object a path parameter names, by the address up to it. The first match counts.
OBJECTS: tuple[tuple[str, str], ...] = (
    (r"/accounts/backup/\{id\}", "account"),
    (r"/accounts/dr/\{id\}", "dr_account"),
    (r"/accounts/\{id\}", "account"),
    (r"/alerts/\{id\}", "alert"),
    (r"/backups/\{backup_id\}/script_logs/\{id\}", "script_log"),
    (r"/backups/\{backup_id\}/snapshots/(\w+)/\{(id|snapshot_id|snapshot_record_id)\}", "snapshot:{kind}"),
    (r"/backups/\{(id|backup_id)\}", "backup"),
    (r"/delegates/\{id\}", "delegate"),
    (r"/explore_sessions/\{(id|explore_session_id)\}", "explore_session"),
    (r"/policies/\{policy_id\}/custom_tags/\{id\}", "custom_tag"),
    (r"/policies/\{policy_id\}/targets/instances/\{instance_id\}/volumes/\{id\}", "target_volume"),
    (r"/policies/\{policy_id\}/targets/instances/\{(id|instance_id)\}", "instance_target"),
    (r"/policies/\{policy_id\}/targets/s3syncs/\{id\}", "s3_sync_target"),
    (r"/policies/\{policy_id\}/targets/volumes/\{id\}", "volume_target"),
    (r"/policies/\{policy_id\}/targets/(\w+)/\{id\}", "target:{kind}"),
    (r"/policies/\{(id|policy_id)\}", "policy"),
    (r"/recoveries/\{(id|recovery_id)\}", "recovery"),
    (r"/s3_repositories/\{id\}", "s3_repository"),
    (r"/schedules/\{schedule_id\}/disable_times/\{id\}", "disable_time"),
    (r"/schedules/\{(id|schedule_id)\}", "schedule"),
    (r"/settings/notifications/\{id\}", "notification"),
    (r"/users/\{id\}", "other_user"),
    (r"/worker_tags/\{id\}", "worker_tag"),
    (r"/workers/\{configuration_id\}/test/\{id\}", "worker_test"),
    (r"/workers/\{(id|configuration_id)\}", "worker"),
)
# Operations whose object must be in a certain state.
OTHER_OBJECTS: dict[str, dict[str, str]] = {
    "4.6": {"account": "spare_account"},
    "4.16": {"dr_account": "spare_dr_account"},
    "4.21": {"account": "spare_account"},
    "7.71": {"backup": "frozen_backup"},
    "7.72": {"backup": "frozen_backup"},
}
# Values of body fields by name; `{name}` is an id of the populated server.
VALUES: dict[str, Any] = {
    "account": "{account}", "user": "{user}", "schedules": ["{schedule}"], "name": "a-name", "description": "text",
    "start_date": "2030-01-01T00:00:00Z", "end_date": "2031-01-01T00:00:00Z", "timezone": "Europe/Berlin",
    "start_time": "01:00", "end_time": "02:00", "capacity": 10, "every_how_many": 1,
    "email": "person@example.org", "password": "a-long-and-winding-word", "old_password": "{password}",
    "new_password": "a-longer-and-winding-word", "original_user": "{user}",
    "dr_account": "{dr_account}", "aws_root_device": "/dev/xvda", "use_remote_agent": False, "enable_agent_vss": False, "vss_volumes": "",
}  # fmt: skip
# The same by operation, for what only makes sense there. None leaves the field out.
KEYS = {
    "authentication": "C", "aws_access_key": "{aws_access_key}", "aws_secret_key": "{aws_secret_key}",
    "account_number": "123456789012",
}  # fmt: skip
INSTANCE_RECOVERY = {
    "kernel_id": None, "ram_disk_id": None, "instance_type": "t3.small", "architecture": "x86_64",
    "image_id": None, "vpc": [], "credentials": None, "from_account": "{account}", "to_account": "{account}",
    "to_region": "{region}", "instance_volumes": [], "ephemeral_devices": [], "vpc_assign_ip": None,
    "placement_group": "", "placement": "Z", "zone": "us-east-1a", "instance_profile_arn": None,
}  # fmt: skip
VOLUME_RECOVERY = {
    "attach_to": None, "device": "/dev/xvdf", "aws_resource_type": "gp3", "iops": 3000, "zone": "us-east-1a",
    "credentials": None, "to_account": "{account}",
}  # fmt: skip
WORKER = {"aws_vpc": "vpc-0123456789abcdef0", "aws_security_group": "sg-0123456789abcdef0", "aws_subnet": ""}
FROM_S3 = {
    "encryption_key": "alias/copies", "use_default_volume_encryption_keys": False, "worker_configuration": WORKER,
}  # fmt: skip
NOTIFICATION = {
    "sns_authentication": "A", "sns_account": "{account}", "sns_region": "us-east-1",
    "alerts": {
        "enabled": True, "create_new_topic": True, "add_user_email": True, "sns_alerts_topic_arn": "{topic}",
    },
    "daily_summary": {
        "enable_summary": True, "create_new_summery_topic": True, "add_user_email_to_summary": True,
        "sns_summary_topic_arn": "{topic}", "summary_daily_time": "09:00", "use_same_sns_topic": False,
    },
}  # fmt: skip
WORKER = {
    "aws_vpc": "vpc-0123456789abcdef0", "aws_subnet": "subnet-0123456789abcdef0", "http_proxy_port": 3128,
    "aws_security_group": "sg-0123456789abcdef0", "http_proxy_address": "proxy.example.com",
}  # fmt: skip
ADDRESS = "cpm@example.com"
BODIES: dict[str, dict[str, Any]] = {
    "4.2": {**KEYS, "is_dr_account": False},
    "4.5": {**KEYS, "is_dr_account": False},
    "4.12": {**KEYS, "is_dr_account": True},
    "4.15": {**KEYS, "is_dr_account": True},
    "7.27": VOLUME_RECOVERY,
    "7.44": INSTANCE_RECOVERY,
    "7.45": INSTANCE_RECOVERY | FROM_S3,
    "7.67": VOLUME_RECOVERY,
    "7.68": VOLUME_RECOVERY | FROM_S3 | {"region": "us-east-1"},
    "13.8": {
        "repository": "{s3_repository}", "copy_to_glacier": {"every_how": 1, "every_unit": "O"},
        "retain_in_glacier": {"retain_duration": 7, "retain_unit": "Y"},
        "retention_generation_based": {"enabled": True, "num_generations": 30},
        "retention_time_based": {"enabled": True, "every_how_many": 1, "every_unit": "Y"},
    },
    "11.1": {
        "aws_instance_id": None, "aws_volume_ids": ["{explored_volume}"], "backup_record": "{backup}",
        "from_account": "{account}", "region": "{region}",
    },
    "11.3": {"paths": ["/"]},
    "13.34": {"aws_region": "us-east-1", "aws_resource_id": "{aws_other_instance}"},
    "13.39": {"aws_resource_id": "{aws_other_instance_volume}"},
    "13.55": {
        "name": "{sync_source}", "destination_bucket_name": "{sync_mirror}", "destination_account": "{account}",
        "source_prefix": "in", "destination_prefix": "new",
    },
    "13.58": {
        "name": "{sync_other_source}", "destination_bucket_name": "{sync_mirror}", "destination_account": "{account}",
        "source_prefix": "in", "destination_prefix": "changed",
    },
    "13.60": {"aws_region": "us-east-1", "aws_resource_id": "{aws_other_volume}"},
    "10.1": {"username": "a-name"},
    "20.1": {"aws_bucket_name": "{bucket}", "aws_region": "us-east-1"},
    "23.1": {"activation_key": "ABCD-1234-EFGH-5678"},
    "23.17": {
        "email_address": ADDRESS, "ses_authentication": "A", "ses_account": "{account_as_text}",
        "ses_region": "us-east-1",
    },
    "23.19": {"email_address": ADDRESS},
    "23.41": NOTIFICATION,
    "23.44": NOTIFICATION,
    "23.46": {"address": "{proxy_address}", "port": "{proxy_port}", "enabled": False},
    "23.48": {"address": "{proxy_address}", "port": "{proxy_port}", "user": None, "password": None},
    "25.1": {"api_key": "{api_key}"},
    "25.2": {"refresh": "{refresh}"},
    "26.1": {"username": "a-name"},
    "27.1": {"key": "a-key"},
    "27.4": {"key": "a-key"},
    "28.1": {**WORKER, "region": "{other_region}"},
    "28.6": {**WORKER, "region": "{region}"},
}
# Bodies about resources that AWS snapshots as a whole start from the requests of the populated server.
WHOLE_RECOVERY = re.compile(r"/api/backups/\{backup_id\}/snapshots/(\w+)/\{snapshot_record_id\}/recover/")
WHOLE_TARGET = re.compile(r"/api/policies/\{policy_id\}/targets/(\w+)/(?:\{id\}/)?")
RECOVERY = {"to_account": "{account}", "zone": "us-east-1a", "preserve_tags": True, "publicly_accessible": False}
# Headers that an operation asks for.
HEADERS: dict[str, dict[str, str]] = {"23.23": {"x-confirm-identifier": "{server_id}"}}
# What makes sense when only the required fields are sent: the server's own role needs no keys.
BARE: dict[str, dict[str, Any]] = {
    **{number: {"authentication": "R"} for number in ("4.2", "4.5", "4.12", "4.15")},
    "23.41": {"sns_authentication": "R"},
}
# Query parameters that an operation cannot do without, and values that make sense.
QUERIES: dict[str, Any] = {
    "account": "{account}", "policy": "{policy}", "user": "{user}", "user_id": "{user}", "id": "1", "schedules": "{schedule}",
    "status": None, "dr_status": "N", "s3_copy_status": "Z", "is_freezer_item": "false", "from_time": "2026-01-01",
    "to_time": "2027-01-01T00:00:00Z", "start_time": "2026-11-21T05:00:00Z", "days_ahead": "3", "tracker_id": "1",
    "region": "{region}", "recovery_scenario_record": "1", "scheduled_report": "1", "exact_match": "true",
    "backup_id": "{backup}", "is_retry": "false", "marked_for_deletion": "false",
    "backup_record": "{backup}", "path": "/", "depth": "1",
    "original_user": "{user}", "aws_region": "us-east-1", "page": "1", "page_size": "5", "search": "a", "ordering": None,
    "check_aws_permissions": "true", "collect_backup_logs_period": "day", "collect_system_logs": "1",
    "collect_worker_logs": "false", "email_address": ADDRESS,
}  # fmt: skip
# Parameters that say where to look instead of which rows to show.
PLACES = frozenset({"path"})
# What must be otherwise before the operation is called: a user who has settings already gets no others.
BEFORE: dict[str, Callable[[Server], object]] = {
    "7.2": lambda server: make.s3_operation(Backup.objects.get(pk=server.ids["backup"])),
    "7.45": lambda server: make.archived(Snapshot.objects.get(pk=server.ids["snapshot:volumes"])),
    "7.68": lambda server: make.archived(Snapshot.objects.get(pk=server.ids["snapshot:volumes"])),
    "13.16": lambda server: make.s3_operation(Policy.objects.get(pk=server.ids["policy"]), "archive"),
    "13.17": lambda server: make.s3_operation(Policy.objects.get(pk=server.ids["policy"]), "s3_cleanup"),
    "13.23": lambda server: make.s3_operation(Policy.objects.get(pk=server.ids["policy"]), "archive"),
    "14.5": lambda server: make.recovery_from_s3(Recovery.objects.get(pk=server.ids["recovery"])),
    "23.41": lambda server: Notification.objects.filter(user=server.owner).update(user=server.ids["spare_user"]),
}
# What finds a row through something that the row does not show.
SEARCHED: dict[str, str] = {
    "username of original user": "{owner_name}",
    "name of related schedule": "{schedule_name}", "description of related schedule": "{schedule_description}",
    "name of related policy": "{policy_name}", "description of related policy": "{policy_description}",
}  # fmt: skip


def path_of(operation: Operation, server: Server, **replaced: Any) -> str:
    """The address with ids of the populated server, or the given values, in place of its parameters."""

    def value(match: re.Match[str]) -> str:
        if match.group(1) in replaced:
            return str(replaced[match.group(1)])
        return str(server.ids[object_named(operation, operation["path"][: match.end()])])

    return re.sub(r"\{(\w+)\}", value, operation["path"])


def object_named(operation: Operation, prefix: str) -> str:
    for pattern, template in OBJECTS:
        if match := re.fullmatch(f"/api{pattern}", prefix):
            name = template.format(kind=match.group(1)) if "{kind}" in template else template
            return OTHER_OBJECTS.get(operation["id"], {}).get(name, name)
    raise KeyError(f"{operation['id']}: no object is known for {prefix}")


def filled(value: Any, server: Server) -> Any:
    """The value with `{name}` replaced by the id of that name, as a number where it stands alone."""
    if isinstance(value, list):
        return [filled(item, server) for item in value]
    if isinstance(value, dict):
        return {name: filled(item, server) for name, item in value.items()}
    if isinstance(value, str) and (match := re.fullmatch(r"\{(\w+)\}", value)):
        return server.ids[match.group(1)]
    return value


def body_of(operation: Operation, server: Server, required_only: bool = False) -> dict[str, Any]:
    """A good body: every field of the contract, or only those that it requires."""
    own = {**BODIES.get(operation["id"], {}), **_of_whole(operation, server)}
    own |= BARE.get(operation["id"], {}) if required_only else {}
    found = _object(operation["body"], server, own, required_only)
    return {name: value for name, value in found.items() if value is not None}


def _of_whole(operation: Operation, server: Server) -> dict[str, Any]:
    """What a body about a database, table or file system says; what depends on AWS and is not known is left out."""
    if match := WHOLE_RECOVERY.fullmatch(operation["path"]):
        own, said = server.ids.get(f"recovery_request:{match.group(1)}"), RECOVERY
    elif match := WHOLE_TARGET.fullmatch(operation["path"]):
        own, said = server.ids.get(f"target_request:{match.group(1)}"), {}
    else:
        return {}
    if own is None:
        return {}
    return {**{field["name"]: None for field in schema(operation["body"])}, **said, **own}


def _object(name: str, server: Server, own: dict[str, Any], required_only: bool) -> dict[str, Any]:
    found = {}
    for field in schema(name):
        if required_only and not field.get("required"):
            continue
        known = own.get(field["name"], VALUES.get(field["name"], ...))
        found[field["name"]] = _value(field, server, required_only) if known is ... else filled(known, server)
    return found


def _value(field: dict[str, Any], server: Server, required_only: bool) -> Any:
    if "default" in field:
        return field["default"]
    kind = field["type"]
    if kind == "enum":
        return field["enum"][0]["value"]
    if kind == "array":
        item = field.get("items", {"type": "string"})
        return [_object(item["ref"], server, {}, required_only)] if item["type"] == "object" else []
    if kind == "object":
        return _object(field["ref"], server, {}, required_only) if "ref" in field else {}
    return {"integer": 1, "number": 1, "boolean": True, "string": "text"}[kind]
