"""Making what a worker makes that wakes up late, and having it looked for."""

from datetime import datetime
from typing import Any

from django.utils import timezone

from cpm.flows import tags
from cpm.flows.cleanup import strays
from cpm.lib.states import AmiOption
from cpm.models import Job, Snapshot, Step
from cpm.services import strays as service
from tests.domain.world import World


def begin(*, now: datetime) -> list[Job]:
    """Start the jobs of a day and make them due."""
    jobs = service.look(now=now)
    Step.objects.filter(kind__startswith=strays.STEP, finished_at=None).update(not_before=timezone.now())
    return jobs


def look(world: World, now: datetime | None = None) -> Job | None:
    """The job of one day, run to its end; None if there is none."""
    jobs = begin(now=now or timezone.now())
    world.run()
    return Job.objects.get(pk=jobs[0].pk) if jobs else None


def shown(ec2: Any, aws_id: str) -> dict[str, Any]:
    """A snapshot as AWS shows it."""
    found: dict[str, Any] = ec2.describe_snapshots(SnapshotIds=[aws_id])["Snapshots"][0]
    return found


def made_again(ec2: Any, aws_id: str, volume: str = "", **changed: str) -> str:
    """A snapshot just like the one given, but for the tags that are changed."""
    original = shown(ec2, aws_id)
    labels = {**tags.as_dict(original["Tags"]), **changed}
    made: str = ec2.create_snapshot(
        VolumeId=volume or original["VolumeId"],
        Description=original["Description"],
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": tags.as_list(labels)}],
    )["SnapshotId"]
    return made


def image_of(world: World) -> tuple[str, Snapshot]:
    """An instance and the record of an image that a backup has made of it."""
    instance, _ = world.aws.instance((1, 1))
    policy = world.policy()
    world.target(policy, instance, ami_backup_option=AmiOption.ONLY)
    return instance, Snapshot.objects.get(backup=world.back_up(policy, status="B"), kind="only_amis")


def image_again(world: World, instance: str, row: Snapshot) -> str:
    """An image just like that of the record, which is deregistered before: names of images are unique."""
    ec2 = world.aws.client("ec2")
    first = ec2.describe_images(ImageIds=[row.aws_id])["Images"][0]
    ec2.deregister_image(ImageId=row.aws_id)
    marks = [{"ResourceType": kind, "Tags": first["Tags"]} for kind in ("image", "snapshot")]
    made: str = ec2.create_image(InstanceId=instance, Name=first["Name"], TagSpecifications=marks)["ImageId"]
    return made
