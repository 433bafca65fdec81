"""Starting recoveries and looking at what the simulated AWS then shows."""

from typing import Any

from django.utils import timezone

from cpm.aws.client import AwsClient
from cpm.jobs import leases
from cpm.models import Backup, LogLine, Recovery, Snapshot
from cpm.services import recoveries
from tests.domain.world import World
from tests.simulated_aws import DEFAULT_ACCOUNT

Tags = dict[str, str]


class Died(BaseException):
    """The worker is gone; nothing of it runs any more."""


def volume_row(backup: Backup, source: str = "", **fields: Any) -> Snapshot:
    rows = Snapshot.objects.filter(backup=backup, kind=fields.pop("kind", "volumes"), **fields)
    return rows.get(source_id=source) if source else rows.get()


def instance_row(backup: Backup) -> Snapshot:
    return Snapshot.objects.get(backup=backup, kind="instances")


def start(world: World, snapshot: Snapshot, *, credentials: dict[str, str] | None = None, **request: Any) -> Recovery:
    """Start a recovery of a volume or an instance without working on it."""
    call = recoveries.recover_instance if snapshot.kind == "instances" else recoveries.recover_volume
    return call(actor=world.actor, snapshot=snapshot, request=request, credentials=credentials, now=timezone.now())


def recover(world: World, snapshot: Snapshot, *, expect: str = "R", **request: Any) -> Recovery:
    """Recover to the end and check the status."""
    recovery = start(world, snapshot, **request)
    world.run()
    recovery.refresh_from_db()
    assert recovery.status == expect, (recovery.status, recovery.outcome, log(recovery))
    assert recovery.end_time is not None
    return recovery


def log(recovery: Recovery) -> list[str]:
    lines = LogLine.objects.filter(subject_type="recovery", subject_id=recovery.pk).order_by("id")
    return list(lines.values_list("message", flat=True))


def ids(recovery: Recovery) -> list[str]:
    """The ids that came back."""
    return [one.split(" (original: ")[0] for one in filter(None, recovery.recovered_resource_ids.split(","))]


def instance(world: World, instance_id: str, region: str = "us-east-1", account: str = DEFAULT_ACCOUNT) -> dict[str, Any]:
    ec2 = world.aws.client("ec2", region, account)
    found: dict[str, Any] = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    return found


def volumes_of(world: World, instance_id: str, region: str = "us-east-1", account: str = DEFAULT_ACCOUNT) -> dict[str, dict[str, Any]]:
    """Volumes by device."""
    filters = [{"Name": "attachment.instance-id", "Values": [instance_id]}]
    found = world.aws.client("ec2", region, account).describe_volumes(Filters=filters)["Volumes"]
    return {volume["Attachments"][0]["Device"]: volume for volume in found}


def tags_of(resource: dict[str, Any]) -> Tags:
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", ())}


def left_over(world: World, *, kept: set[str] = frozenset(), region: str = "us-east-1", account: str = DEFAULT_ACCOUNT) -> list[str]:  # type: ignore[assignment]
    """What recoveries have made and is still there, but for what is kept."""
    ec2 = world.aws.client("ec2", region, account)
    filters = [{"Name": "tag-key", "Values": ["cpm_recovery_id"]}]
    alive = [*filters, {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    reservations = ec2.describe_instances(Filters=alive)["Reservations"]
    found = [i["InstanceId"] for r in reservations for i in r["Instances"]]
    found += [v["VolumeId"] for v in ec2.describe_volumes(Filters=filters)["Volumes"]]
    found += [s["SnapshotId"] for s in ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]]
    found += [i["ImageId"] for i in ec2.describe_images(Owners=["self"], Filters=filters)["Images"]]
    found += [n["NetworkInterfaceId"] for n in ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]]
    return sorted(one for one in found if one not in kept)


def shared_with(world: World, snapshot_id: str, region: str = "us-east-1", account: str = DEFAULT_ACCOUNT) -> list[str]:
    ec2 = world.aws.client("ec2", region, account)
    shown = ec2.describe_snapshot_attribute(SnapshotId=snapshot_id, Attribute="createVolumePermission")
    return [grant["UserId"] for grant in shown["CreateVolumePermissions"]]


class Deaths:
    """Counts AWS calls and guarded writes, and dies at one of them."""

    def __init__(self, die_at: int | None) -> None:
        self.seen, self.die_at = 0, die_at

    def event(self) -> None:
        self.seen += 1
        if self.seen == self.die_at:
            raise Died

    def around(self, function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.event()
            result = function(*args, **kwargs)
            self.event()
            return result

        return wrapped


def run_and_die(world: World, monkeypatch: Any, die_at: int | None) -> int:
    """Work to the end, dying once at that event; the tick then gives the steps to a healthy worker."""
    deaths, died = Deaths(die_at), False
    with monkeypatch.context() as patch:
        patch.setattr(AwsClient, "call", deaths.around(AwsClient.call))
        patch.setattr(leases, "guarded", deaths.around(leases.guarded))
        try:
            world.run()
        except Died:
            died = True
    assert died or die_at is None or deaths.seen < die_at
    world.expire_leases()
    world.run()
    return deaths.seen
