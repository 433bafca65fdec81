"""`cpm recover`: bring a volume, an instance, or a database, table or file system back."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from django.utils import timezone

from cpm import permissions
from cpm.commands import pictures, takes
from cpm.commands.terminal import AsUser, Watch, acting, console, failed, guarded, watch
from cpm.models import Account, Actor, Recovery, Region, Snapshot
from cpm.resources.registry import WHOLE_BY_KIND, kind_label
from cpm.services import recoveries

app = typer.Typer()
recover = typer.Typer(no_args_is_help=True, help="Recover from a backup.")
app.add_typer(recover, name="recover")

BackupId = Annotated[int, typer.Argument(help="Id of the backup, as in `cpm backups`.")]
SnapshotId = Annotated[
    str, typer.Argument(help="Id of the snapshot record, its AWS id, or the id of what was backed up.")
]
ToRegion = Annotated[str | None, typer.Option(help="Region to recover into, such as us-east-1.")]
ToAccount = Annotated[str | None, typer.Option(help="Name of the account to recover into.")]
FromS3 = Annotated[bool, typer.Option("--from-s3", help="From the copies in S3, not from snapshots.")]
EncryptionKey = Annotated[
    str | None, typer.Option(help="KMS key of the target region for what comes from S3: ARN, id or alias.")
]
Retrieval = Annotated[
    str | None, typer.Option(help="How archived copies are retrieved: E expedited, S standard, B bulk.")
]
DaysToKeep = Annotated[
    int | None, typer.Option(help="Days for which what is retrieved stays readable; with --retrieval.", min=1)
]
Zone = Annotated[str | None, typer.Option(help="Availability zone, such as us-east-1a.")]


@app.callback()
def _group() -> None:
    """Holds the one command of this module."""


@recover.command()
@guarded
def volume(
    backup_id: BackupId,
    snapshot_id: SnapshotId,
    to_region: ToRegion = None,
    to_account: ToAccount = None,
    zone: Zone = None,
    capacity: Annotated[int | None, typer.Option(help="Size in GiB, no less than it was.", min=1)] = None,
    volume_type: Annotated[str | None, typer.Option("--type", help="EBS type, such as gp3.")] = None,
    iops: Annotated[int | None, typer.Option(help="IOPS, for the types that have them.", min=1)] = None,
    attach_to: Annotated[str | None, typer.Option(help="Instance to attach the new volume to.")] = None,
    device: Annotated[str | None, typer.Option(help="Device on that instance, such as /dev/sdf.")] = None,
    attach_behaviour: Annotated[
        str | None, typer.Option(help="What happens to a volume that is attached there already.")
    ] = None,
    from_s3: FromS3 = False,
    encryption_key: EncryptionKey = None,
    retrieval: Retrieval = None,
    days_to_keep: DaysToKeep = None,
    watch_it: Watch = False,
    user: AsUser = "",
) -> None:
    """Make a new volume from a snapshot or its copy in S3, and attach it if asked to."""
    actor = acting(user)
    request = {
        **_where(actor, to_region, to_account, zone),
        "capacity": capacity,
        "aws_resource_type": volume_type,
        "iops": iops,
        "attach_to": attach_to,
        "device": device,
        "attach_behaviour": attach_behaviour,
        **_s3(from_s3, encryption_key, retrieval, days_to_keep),
    }
    service = recoveries.recover_volume_from_s3 if from_s3 else recoveries.recover_volume
    _start(service, actor, _snapshot(actor, backup_id, snapshot_id), request, watch_it)


@recover.command()
@guarded
def instance(
    backup_id: BackupId,
    snapshot_id: SnapshotId,
    to_region: ToRegion = None,
    to_account: ToAccount = None,
    zone: Zone = None,
    restore_from: Annotated[str | None, typer.Option(help="S from snapshots, I from an image.")] = None,
    instance_type: Annotated[str | None, typer.Option(help="Instance type, such as m7i.large.")] = None,
    count: Annotated[int | None, typer.Option(help="How many instances to launch.", min=1)] = None,
    subnet: Annotated[str | None, typer.Option(help="Subnet to launch into.")] = None,
    vpc: Annotated[str | None, typer.Option(help="VPC to launch into.")] = None,
    key_pair: Annotated[str | None, typer.Option(help="Name of the key pair.")] = None,
    from_s3: FromS3 = False,
    encryption_key: EncryptionKey = None,
    retrieval: Retrieval = None,
    days_to_keep: DaysToKeep = None,
    watch_it: Watch = False,
    user: AsUser = "",
) -> None:
    """Launch the instance of a backup again."""
    actor = acting(user)
    request = {
        **_where(actor, to_region, to_account, zone),
        "restore_from": restore_from,
        "instance_type": instance_type,
        "num_instances_to_recover": count,
        "vpc_subnet_id": subnet,
        "vpc": vpc,
        "placement": "V" if vpc or subnet else "Z" if zone else None,
        "key_pair": key_pair,
        **_s3(from_s3, encryption_key, retrieval, days_to_keep),
    }
    service = recoveries.recover_instance_from_s3 if from_s3 else recoveries.recover_instance
    _start(service, actor, _snapshot(actor, backup_id, snapshot_id), request, watch_it)


@recover.command()
@guarded
def database(
    backup_id: BackupId,
    snapshot_id: SnapshotId,
    name: Annotated[str | None, typer.Option(help="Id of the new PostgreSQL database.")] = None,
    username: Annotated[str | None, typer.Option(help="Its master user; the password is asked for.")] = None,
    engine_version: Annotated[str | None, typer.Option(help="Its version, if not that of the original.")] = None,
    instance_class: Annotated[str | None, typer.Option("--class", help="Class, such as db.t3.micro.")] = None,
    subnet_group: Annotated[str | None, typer.Option(help="Subnet group, which decides on the VPC.")] = None,
    public: Annotated[bool | None, typer.Option(help="Whether it gets a public address.")] = None,
    only: Annotated[str | None, typer.Option(help="Which of several exported databases.")] = None,
    bucket: Annotated[str | None, typer.Option(help="Put the files into this bucket instead.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Folder in that bucket, ending in a slash.")] = None,
    to_region: ToRegion = None,
    to_account: ToAccount = None,
    zone: Zone = None,
    retrieval: Retrieval = None,
    days_to_keep: DaysToKeep = None,
    watch_it: Watch = False,
    user: AsUser = "",
) -> None:
    """Bring an RDS database back from its copy in S3: rows into a new PostgreSQL database, or files into a bucket."""
    actor = acting(user)
    request = {
        **_where(actor, to_region, to_account, zone),
        "aws_resource_id": name,
        "master_username": username,
        "master_password": typer.prompt("Password of the new database", hide_input=True) if username else None,
        "engine_version": engine_version,
        "db_instance_class": instance_class,
        "subnet_group_name": subnet_group,
        "publicly_accessible": public,
        "database_name": only,
        "export_bucket": bucket,
        "export_prefix": prefix,
        **_s3(True, None, retrieval, days_to_keep),
    }
    found = _snapshot(actor, backup_id, snapshot_id)
    _start(recoveries.recover_database_from_s3, actor, found, request, watch_it)


@recover.command()
@guarded
def resource(
    backup_id: BackupId,
    snapshot_id: SnapshotId,
    options: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE; without any, the names are shown. Repeatable.")
    ] = None,
    to_account: ToAccount = None,
    watch_it: Watch = False,
    user: AsUser = "",
) -> None:
    """Make a database, cluster, table or file system again from its snapshot."""
    actor = acting(user)
    snapshot = _snapshot(actor, backup_id, snapshot_id)
    kind = WHOLE_BY_KIND.get(snapshot.kind)
    if kind is None:
        raise failed(f"This is the record of another kind: {kind_label(snapshot.kind)}. See `cpm recover --help`.")
    request = takes.read(kind.noun, kind.recover_takes, options or [])
    _start(recoveries.recover_whole, actor, snapshot, {**_where(actor, None, to_account, None), **request}, watch_it)


def _s3(from_s3: bool, key: str | None, retrieval: str | None, days: int | None) -> dict[str, Any]:
    """What is said of a recovery from S3; refused where it is none."""
    if not from_s3 and (key or retrieval or days):
        raise failed("--encryption-key, --retrieval and --days-to-keep are for recoveries with --from-s3.")
    if days and not retrieval:
        raise failed("--days-to-keep needs --retrieval.")
    options = {"retrieval_tier": retrieval, "days_to_keep": days} if retrieval else None
    return {"encryption_key": key, "retrieve_options": options}


def _where(actor: Actor, region: str | None, account: str | None, zone: str | None) -> dict[str, Any]:
    where: dict[str, Any] = {"zone": zone}
    if region:
        where["to_region"] = _id(Region.objects.filter(aws_region=region), f"There is no region {region}.")
    if account:
        reachable = permissions.visible(actor.user, Account.objects.all(), "recoveries.start")
        where["to_account"] = _id(reachable.filter(name=account), f"There is no account {account}.")
    return where


def _id(rows: Any, otherwise: str) -> int:
    found = rows.values_list("pk", flat=True).first()
    if found is None:
        raise failed(otherwise)
    return int(found)


def _snapshot(actor: Actor, backup_id: int, name: str) -> Snapshot:
    rows = permissions.visible(actor.user, Snapshot.objects.all(), "recoveries.start").filter(
        backup=backup_id
    )
    rows = rows.select_related("backup__user", "backup__account", "backup__policy", "account")
    found = list(rows.filter(pk=int(name))) if name.isdecimal() else []
    found = (
        found or list(rows.filter(aws_id=name)[:1]) or list(rows.filter(source_id=name).order_by("id")[:1])
    )
    if not found:
        raise failed(f"Backup {backup_id} has no snapshot {name}.")
    return found[0]


def _start(
    service: Callable[..., Recovery],
    actor: Actor,
    snapshot: Snapshot,
    request: dict[str, Any],
    watch_it: bool,
) -> None:
    said = {key: value for key, value in request.items() if value is not None}
    recovery = service(actor=actor, snapshot=snapshot, request=said, credentials=None, now=timezone.now())
    console.print(f"Recovery {recovery.pk} has started.", markup=False)
    if watch_it:
        watch(lambda: pictures.of_recovery(recovery.pk))
