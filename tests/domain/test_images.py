"""The image assistant: the instance's own image, its additional interfaces, and similar images elsewhere."""

import pytest

from cpm.lib.errors import NotFound
from cpm.models import Actor
from cpm.services import images
from tests import factories
from tests.domain.recovering import instance_row

pytestmark = pytest.mark.django_db(transaction=True)

NAME, TEXT = "company-web-2026.11.01", "Web server of the company"


@pytest.fixture
def row(world, aws):
    """The record of an instance that was launched from an image with a name and a description."""
    image = register(aws, NAME, TEXT)
    instance, _ = aws.instance(ImageId=image)
    return instance_row(world.back_up(world.policy(instance), status="B"))


def register(aws, name, description, region="us-east-1", **more):
    ec2 = aws.client("ec2", region)
    snapshot = ec2.create_snapshot(VolumeId=aws.volume(region=region))["SnapshotId"]
    values = {
        "Architecture": "x86_64",
        "RootDeviceName": "/dev/xvda",
        "VirtualizationType": "hvm",
        "EnaSupport": True,
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}],
        **more,
    }
    return ec2.register_image(Name=name, Description=description, **values)["ImageId"]


def test_the_image_of_an_instance_is_described(world, row):
    [shown] = images.ami_of(actor=world.actor, snapshot=row)

    assert shown == {
        "id": row.pk,
        "aws_image_id": row.details["aws_image_id"],
        "aws_region": "us-east-1",
        "aws_owner_id": "123456789012",
        "aws_owner_alias": "",
        "aws_hypervisor": "xen",
        "aws_virtualization_type": "hvm",
        "name": NAME,
        "description": TEXT,
        "root_device_name": "/dev/xvda",
        "root_device_type": "ebs",
    }


def test_an_image_that_is_gone_is_not_found(world, aws, row):
    aws.client("ec2").deregister_image(ImageId=row.details["aws_image_id"])

    with pytest.raises(NotFound):
        images.ami_of(actor=world.actor, snapshot=row)


def test_similar_images_in_another_region_are_ranked_by_how_they_match(world, aws, row):
    there = {
        "E": register(aws, NAME, TEXT, "us-west-2"),
        "D": register(aws, "another name", TEXT, "us-west-2"),
        "A": register(aws, "company-web-2026.12.24", "Something else", "us-west-2"),
        "S": register(aws, "unlike", TEXT + ", v2", "us-west-2"),
    }
    register(aws, "company-db-server", "Database", "us-west-2")
    register(aws, "company-web-arm", TEXT, "us-west-2", Architecture="arm64")

    found = images.find_similar(actor=world.actor, snapshot=row, region="us-west-2", account=None, exact=False)
    exact = images.find_similar(actor=world.actor, snapshot=row, region="us-west-2", account=None, exact=True)

    assert [(one["match_type"], one["aws_image_id"]) for one in found] == [(kind, there[kind]) for kind in "EDAS"]
    assert [one["aws_image_id"] for one in exact] == [there["E"]]
    assert {one["aws_region"] for one in found} == {"us-west-2"}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "E"),
        ({"OwnerId": "999999999999"}, "C"),
        ({"RootDeviceName": "/dev/sda1"}, "C"),
        ({"Description": "other"}, "N"),
        ({"Name": "other"}, "D"),
        ({"Name": NAME + "b", "Description": "other"}, "A"),
        ({"Name": "other", "Description": TEXT + "!"}, "S"),
        ({"Name": "x", "Description": "y"}, ""),
    ],
)
def test_the_kind_of_a_match(change, kind):
    original = {"Name": NAME, "Description": TEXT, "OwnerId": "123456789012", "RootDeviceName": "/dev/xvda"}

    assert images.match_type(original, {**original, **change}) == kind


def test_additional_interfaces_are_those_of_the_backup(db):
    nics = [
        {"id": "eni-1", "subnet": "subnet-1", "groups": [], "private_ip": "10.0.0.5", "device_index": 0},
        {"id": "eni-3", "subnet": "subnet-1", "groups": [], "private_ip": "10.0.0.7", "device_index": 2},
        {"id": "eni-2", "subnet": "subnet-1", "groups": [], "private_ip": "10.0.0.6", "device_index": 1},
    ]
    row = factories.snapshot(kind="instances", details={"network_interfaces": nics})

    found = images.additional_nics(actor=Actor.of(row.backup.user), snapshot=row)

    assert [nic["id"] for nic in found] == ["eni-2", "eni-3"]
    assert "10.0.0.6" in found[0]["display_name"]

