"""A small server with something of everything, and what a good request to each operation needs of it."""

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from django.apps import apps

from api import authentication
from cpm.aws import gateway
from cpm.flows.identities import encrypt_secret
from cpm.lib.states import Authentication, Role, SnapshotKind
from cpm.models import Account, Backup, EmailIdentity, Region, ServerSettings, Snapshot, User
from tests import factories as make
from tests.contract import serving, whole_rows
from tests.domain.world import World
from tests.explore.images import image
from tests.simulated_aws import SimulatedAws

REGION, OTHER_REGION = "us-east-1", "us-west-2"
PASSWORD = "correct-horse-battery"  # of a server that only tests see
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

    owner: User
    api_key: str
    ids: dict[str, Any] = field(default_factory=dict)


def populate(aws: SimulatedAws, owner: User | None = None) -> Server:
    """Rows of every kind, root's or the given owner's; what operations ask AWS about exists in the simulated one."""
    gateway.configure(gateway.GatewayConfig(endpoint_url=aws.url, redis_url=os.environ["CPM_REDIS_URL"]))
    # Transactional tests that ran before have emptied all tables.
    lookups = import_module("cpm.migrations.0003_lookups")
    lookups.add_lookups(apps, None)
    owner = owner or make.root()
    server, world = Server(owner, make.api_key(owner)), World(aws, owner)
    token = authentication.obtain(server.api_key)
    server.ids |= {"api_key": server.api_key, "refresh": str(token), "access": str(token.access_token)}
    _people(server)
    _resources(server, aws)
    _accounts_and_policies(server, world)
    _repositories(server, aws)
    _syncs(server, aws)
    _backups(server, world)
    _exploring(server, aws)
    _notifications(server, aws)
    _workers(server)
    server.ids |= serving.prepare()
    server.ids["server_id"] = str(ServerSettings.current().server_id)
    alert = make.alert(owner)
    make.audit_record(owner)
    make.log_line("cleanup", None if owner.role == Role.ROOT else owner.pk, "Cleanup is done.")
    server.ids |= {"alert": alert.pk, "region": Region.objects.get(aws_region=REGION).pk, "user": owner.pk}
    return server


def _people(server: Server) -> None:
    """A user who looks after another, and a delegate of the owner, who has a password."""
    server.owner.set_password(PASSWORD)
    server.owner.save()
    other = make.user()
    other.applied_managed_users.add(make.user(Role.MANAGED))
    server.ids |= {
        "other_user": other.pk, "delegate": make.delegate(server.owner).pk, "password": PASSWORD,
        "owner_name": server.owner.username,
    }  # fmt: skip


def _resources(server: Server, aws: SimulatedAws) -> None:
    """Two instances from one image, with a look-alike of it, and free volumes."""
    image = aws.image((1, 1))
    ec2 = aws.client("ec2", REGION)
    name = ec2.describe_images(ImageIds=[image])["Images"][0]["Name"]
    ec2.copy_image(Name=f"{name}-copy", SourceImageId=image, SourceRegion=REGION)
    protected, volumes = aws.instance((1, 1), ImageId=image)
    other, _ = aws.instance((1, 1), ImageId=image)
    in_use = sorted(volumes.values())
    server.ids |= {
        "aws_image": image, "aws_instance": protected, "aws_other_instance": other,
        "aws_instance_volume": in_use[0], "aws_other_instance_volume": in_use[1],
        "aws_volume": aws.volume(), "aws_other_volume": aws.volume(),
    }  # fmt: skip
    access_key, secret_key = aws.credentials()
    server.ids |= {"aws_access_key": access_key, "aws_secret_key": secret_key}


def _accounts_and_policies(server: Server, world: World) -> None:
    owner, account = server.owner, world.account
    dr = make.account(owner, is_dr_account=True, access_key="AKIADISASTERRECOVERY")
    spare, spare_dr = make.account(owner), make.account(owner, is_dr_account=True)
    schedule = make.schedule(owner, start_date=datetime(2026, 1, 1, 12, tzinfo=UTC))
    disable_time = make.disable_time(schedule)
    region = Region.objects.get(aws_region=REGION).pk
    policy = make.policy(
        account, (schedule,), dr_account=dr, dr_account_regions=[region], dr_regions=[region]
    )
    devices = {
        "/dev/xvda": server.ids["aws_instance_volume"],
        "/dev/xvdb": server.ids["aws_other_instance_volume"],
    }
    instance = make.target(
        policy,
        aws_resource_id=server.ids["aws_instance"],
        details={
            **INSTANCE_DETAILS,
            "root_device": "/dev/xvda",
            "volumes": [{"device": device, "volume_id": volume} for device, volume in devices.items()],
        },
        which_volumes="I",
    )
    target_volume = make.target_volume(instance, aws_resource_id=server.ids["aws_instance_volume"])
    volume = make.target(policy, resource_type="volumes", aws_resource_id=server.ids["aws_volume"])
    spare_policy = make.policy(account)
    tag = policy.custom_tags.create(tag_name="cpm", tag_value="yes")
    server.ids |= {
        "account": account.pk, "dr_account": dr.pk, "spare_account": spare.pk, "spare_dr_account": spare_dr.pk,
        "schedule": schedule.pk, "disable_time": disable_time.pk, "policy": policy.pk,
        "spare_policy": spare_policy.pk, "instance_target": instance.pk, "target_volume": target_volume.pk,
        "volume_target": volume.pk, "custom_tag": tag.pk, "account_authentication": Authentication.KEYS.value,
    }  # fmt: skip
    for name, row in {"schedule": schedule, "policy": policy}.items():
        type(row).objects.filter(pk=row.pk).update(description=f"The {name} of everything")
        server.ids |= {f"{name}_name": row.name, f"{name}_description": f"The {name} of everything"}
    server.ids["_policy"] = policy


def _repositories(server: Server, aws: SimulatedAws) -> None:
    """A repository in an encrypted bucket."""
    bucket = f"bucket-of-{server.owner.pk}"
    make.bucket(aws, bucket)
    row = make.s3_repository(Account.objects.get(pk=server.ids["account"]), bucket)
    server.ids |= {"bucket": bucket, "s3_repository": row.pk, "_repository": row}


def _syncs(server: Server, aws: SimulatedAws) -> None:
    """Two buckets with something in a folder, of which one is mirrored into a third."""
    owner, s3 = server.owner.pk, aws.client("s3", REGION)
    names = {f"sync_{what}": f"sync-{what.replace('_', '-')}-{owner}" for what in ("source", "other_source", "mirror")}
    for name in names.values():
        s3.create_bucket(Bucket=name)
        s3.put_object(Bucket=name, Key="in/a", Body=b"a")
    target = make.target(
        server.ids["_policy"],
        resource_type="s3syncs",
        aws_resource_id=names["sync_other_source"],
        details={
            "creation_date": "2026-01-01T00:00:00+00:00", "is_encrypted": True, "region": REGION,
            "status": "available", "versioned": False,
        },
        options={
            "destination_account": server.ids["account"], "destination_bucket_name": names["sync_mirror"],
            "destination_prefix": "kept", "destination_region": REGION, "delete_extra": False,
            "keep_source_prefix": False, "source_prefix": "", "storage_class": "S",
        },
    )  # fmt: skip
    server.ids |= {**names, "s3_sync_target": target.pk}


def _workers(server: Server) -> None:
    """A configuration of workers that was tested, and a tag."""
    account = Account.objects.get(pk=server.ids["account"])
    worker = make.worker_configuration(account, region=Region.objects.get(aws_region=REGION))
    server.ids |= {
        "worker": worker.pk, "worker_test": make.worker_test(worker).pk, "worker_tag": make.worker_tag(account).pk,
        "other_region": Region.objects.get(aws_region=OTHER_REGION).pk,
    }  # fmt: skip


def _exploring(server: Server, aws: SimulatedAws) -> None:
    """A session over the snapshot of a volume that holds files."""
    volume = aws.volume()
    aws.write(volume, image("fat12").read_bytes())
    made = aws.client("ec2", REGION).create_snapshot(VolumeId=volume)["SnapshotId"]
    backup = Backup.objects.get(pk=server.ids["backup"])
    session = make.explore_session(make.snapshot(backup, aws_id=made, source_id=volume, capacity=1))
    server.ids |= {"explore_session": session.pk, "explored_volume": volume}


def _notifications(server: Server, aws: SimulatedAws) -> None:
    """A topic, the owner's settings with it, and an address that mail comes from."""
    server.owner.email = "owner@example.com"
    server.owner.save(update_fields=["email"])
    topic = aws.client("sns", REGION).create_topic(Name="told")["TopicArn"]
    row = make.notification(
        server.owner, authentication=Authentication.ASSUME_ROLE, account_id=server.ids["account"],
        alerts_enabled=True, alerts_topic_arn=topic, summary_enabled=True, summary_topic_arn=topic,
    )  # fmt: skip
    EmailIdentity.objects.update_or_create(
        pk=1,
        defaults={
            "enabled": True, "email_address": "cpm@example.com", "authentication": Authentication.KEYS,
            "access_key": server.ids["aws_access_key"], "region": REGION,
            "secret_key": encrypt_secret(server.ids["aws_secret_key"]),
        },
    )  # fmt: skip
    server.ids |= {
        "notification": row.pk, "topic": topic, "spare_user": make.user().pk,
        "account_as_text": str(server.ids["account"]),
    }  # fmt: skip


def _backups(server: Server, world: World) -> None:
    policy = server.ids.pop("_policy")
    backup, frozen = (
        make.backup(policy),
        make.backup(policy, is_freezer_item=True, name="kept", description="For ever"),
    )
    script_log = make.script_log(backup)
    make.log_line("backup", backup.pk)
    details = {
        SnapshotKind.INSTANCE: {
            **INSTANCE_DETAILS, "aws_image_id": server.ids["aws_image"],
            "network_interfaces": [
                {"id": "eni-1", "device_index": 0}, {"id": "eni-2", "device_index": 1, "subnet": "subnet-1"},
            ],
        },
        SnapshotKind.VOLUME: VOLUME_DETAILS,
        SnapshotKind.DR_VOLUME: DR_DETAILS, SnapshotKind.DR_INITIAL_AMI: AMI_DETAILS,
        SnapshotKind.ONLY_DR_AMI: AMI_DETAILS,
    }  # fmt: skip
    for kind in SnapshotKind:
        snapshot = make.snapshot(
            backup, kind, capacity=8, device="/dev/xvda", details=details.get(kind, {}), source_name="web",
            cbt_valid_size_mb=1, cbt_changed_size_mb=1,
        )  # fmt: skip
        server.ids[f"snapshot:{kind}"] = snapshot.pk
    server.ids |= whole_rows.add(world, policy, backup)
    # A volume of the instance, so that it can be recovered.
    Snapshot.objects.filter(pk=server.ids[f"snapshot:{SnapshotKind.VOLUME}"]).update(
        parent=server.ids[f"snapshot:{SnapshotKind.INSTANCE}"]
    )
    copy = make.s3_copy(
        Snapshot.objects.get(pk=server.ids[f"snapshot:{SnapshotKind.VOLUME}"]),
        repository=server.ids.pop("_repository"),
    )
    server.ids["snapshot:copy_to_s3"] = copy.pk
    make.log_line("s3_cleanup", policy.pk, "The copies of one backup have expired.")
    recovery = make.recovery(
        make.snapshot(backup), status="R", recovered_resource_ids="vol-1 (original: vol-2)"
    )
    make.log_line("recovery", recovery.pk)
    server.ids |= {
        "backup": backup.pk, "frozen_backup": frozen.pk, "script_log": script_log.pk, "recovery": recovery.pk,
    }  # fmt: skip
