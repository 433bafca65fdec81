"""A small server with something of everything, and what a good request to each operation needs of it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cpm.lib.states import Authentication, SnapshotKind
from cpm.models import Region, User
from tests import factories as make

REGION = "us-east-1"
INSTANCE_DETAILS = {
    "aws_architecture": "x86_64", "aws_disable_api_termination": False, "aws_image_id": "ami-0123456789abcdef0",
    "aws_instance_type": "t3.micro", "aws_ip_address": "10.0.0.5", "aws_kernel_id": "", "aws_key_name": "key",
    "aws_monitored": False, "aws_ram_disk_id": "", "aws_root_device": "/dev/xvda",
    "aws_security_groups": ["sg-0123456789abcdef0"], "aws_shutdown_behaviour": "stop",
    "aws_subnet_id": "subnet-0123456789abcdef0", "aws_user_data": "", "aws_virtualization_type": "hvm",
    "ebs_optimized": False, "ena_support": True, "instance_profile_arn": "", "is_root_device_ebs": True,
    "platform": "", "tenancy": "default", "tags": {"Name": "web"},
}  # fmt: skip
VOLUME_DETAILS = {"type": "gp3", "iops": 3000, "zone": "us-east-1a", "tags": {}}
DR_DETAILS = {**VOLUME_DETAILS, "original_snap": "snap-0123456789abcdef0", "dr_account": "dr"}
AMI_DETAILS = {"original_aws_image_id": "ami-0123456789abcdef0"}


@dataclass
class Server:
    """Ids of what was made, by the name that the recipes use."""

    root: User
    api_key: str
    ids: dict[str, Any] = field(default_factory=dict)


def populate() -> Server:
    """Rows of every kind, owned by root."""
    root = make.root()
    server = Server(root, make.api_key(root))
    _accounts_and_policies(server)
    _backups(server)
    alert = make.alert(root)
    make.log_line("cleanup", None, "Cleanup is done.")
    server.ids |= {"alert": alert.pk, "region": Region.objects.get(aws_region=REGION).pk, "user": root.pk}
    return server


def _accounts_and_policies(server: Server) -> None:
    root = server.root
    account, dr = make.account(root), make.account(root, is_dr_account=True)
    spare, spare_dr = make.account(root), make.account(root, is_dr_account=True)
    schedule = make.schedule(root, start_date=datetime(2026, 1, 1, tzinfo=UTC))
    disable_time = make.disable_time(schedule)
    policy = make.policy(account, (schedule,), dr_account=dr)
    instance = make.target(
        policy, details={**INSTANCE_DETAILS, "root_device": "/dev/xvda"}, which_volumes="I"
    )
    target_volume = make.target_volume(instance)
    volume = make.target(policy, resource_type="volume", aws_resource_id="vol-0123456789abcdef0")
    spare_policy = make.policy(account)
    tag = policy.custom_tags.create(tag_name="cpm", tag_value="yes")
    server.ids |= {
        "account": account.pk, "dr_account": dr.pk, "spare_account": spare.pk, "spare_dr_account": spare_dr.pk,
        "schedule": schedule.pk, "disable_time": disable_time.pk, "policy": policy.pk,
        "spare_policy": spare_policy.pk, "instance_target": instance.pk, "target_volume": target_volume.pk,
        "volume_target": volume.pk, "custom_tag": tag.pk, "account_authentication": Authentication.KEYS.value,
    }  # fmt: skip
    server.ids["_policy"] = policy


def _backups(server: Server) -> None:
    policy = server.ids.pop("_policy")
    backup, frozen = make.backup(policy), make.backup(policy, is_freezer_item=True, name="kept")
    script_log = make.script_log(backup)
    make.log_line("backup", backup.pk)
    details = {
        SnapshotKind.INSTANCE: INSTANCE_DETAILS, SnapshotKind.VOLUME: VOLUME_DETAILS,
        SnapshotKind.DR_VOLUME: DR_DETAILS, SnapshotKind.DR_INITIAL_AMI: AMI_DETAILS,
        SnapshotKind.ONLY_DR_AMI: AMI_DETAILS,
    }  # fmt: skip
    for kind in SnapshotKind:
        snapshot = make.snapshot(
            backup, kind, capacity=8, device="/dev/xvda", details=details.get(kind, {}), source_name="web",
            cbt_valid_size_mb=1, cbt_changed_size_mb=1,
        )  # fmt: skip
        server.ids[f"snapshot:{kind}"] = snapshot.pk
    recovery = make.recovery(
        make.snapshot(backup), status="R", recovered_resource_ids="vol-1 (original: vol-2)"
    )
    make.log_line("recovery", recovery.pk)
    server.ids |= {
        "backup": backup.pk, "frozen_backup": frozen.pk, "script_log": script_log.pk, "recovery": recovery.pk,
    }  # fmt: skip
