"""What is Redshift's own: DR by grants, copies that AWS makes itself, and recovery as the original was."""

from datetime import timedelta
from typing import Any

import pytest

from cpm.aws import gateway
from cpm.flows.identities import identity_of
from cpm.lib.errors import ValidationFailed
from cpm.lib.states import DrStatus, RecoveryStatus, SnapshotStatus
from cpm.models import Backup, Recovery, Snapshot
from cpm.resources.registry import WHOLE_BY_KEY
from cpm.resources.whole import Held, Place, Restoring
from cpm.services import backup_deletion, recoveries
from tests.domain.whole_examples.base import snapshot_of
from tests.domain.whole_examples.redshift_cluster import RedshiftExample, shown
from tests.domain.world import DR_ACCOUNT, World

pytestmark = pytest.mark.django_db(transaction=True)
EXAMPLE = RedshiftExample()
SUPPORT = "amazon-redshift-support"


def granted(world: World, row: Snapshot) -> set[str]:
    redshift = world.aws.client("redshift")
    found = redshift.describe_cluster_snapshots(SnapshotIdentifier=row.aws_id)["Snapshots"][0]
    return {one["AccountId"] for one in found.get("AccountsWithRestoreAccess", ())}


def backed_up_with_dr(world: World, *regions: str, **cluster: Any) -> tuple[Backup, Snapshot]:
    """A backup whose policy lets the DR account restore it where it is, and wants copies in these regions."""
    account = world.add_account(DR_ACCOUNT, is_dr_account=True)
    source = EXAMPLE.make(world, "orders", **cluster)
    if regions:
        world.aws.client("redshift").enable_snapshot_copy(ClusterIdentifier=source, DestinationRegion=regions[0])
    target = EXAMPLE.protect(
        world, source, dr_enabled=True, dr_account=account, copy_to_snapshot_original_region=True,
        dr_regions=[world.region_id(name) for name in regions],
    )  # fmt: skip
    backup = world.back_up(target.policy, status="B")
    return backup, snapshot_of(target)


def subnet_group(world: World, name: str) -> tuple[str, str]:
    """A subnet group in a VPC of its own; its zone, and a security group of the VPC."""
    ec2 = world.aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    zone = "us-east-1c"
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
    world.aws.client("redshift").create_cluster_subnet_group(
        ClusterSubnetGroupName=name, Description=name, SubnetIds=[subnet]
    )
    group = ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
    return zone, group


def recover(world: World, row: Snapshot, **request: Any) -> str:
    made = recoveries.recover_whole(
        actor=world.actor, snapshot=row, request={"aws_resource_id": "again", **request}, credentials=None,
        now=world.now(),
    )  # fmt: skip
    world.run()
    made.refresh_from_db()
    assert made.status == RecoveryStatus.SUCCESSFUL, made.outcome
    return EXAMPLE.recovered(made.recovered_resource_ids)


def test_the_dr_account_may_restore_the_snapshot_until_it_is_deleted(world: World) -> None:
    backup, row = backed_up_with_dr(world)
    assert backup.dr_status == DrStatus.COMPLETED, world.log(backup)
    assert row.details["granted_to"] == [DR_ACCOUNT] and granted(world, row) == {DR_ACCOUNT}
    # Somebody has shared it by hand, too.
    world.aws.client("redshift").authorize_snapshot_access(
        SnapshotIdentifier=row.aws_id, AccountWithRestoreAccess=SUPPORT
    )

    backup_deletion.delete_snapshot(actor=world.actor, snapshot=row)
    world.run()

    row.refresh_from_db()
    assert (row.status, row.error) == (SnapshotStatus.DELETED, "")
    assert EXAMPLE.snapshots(world) == set()


def test_copies_that_aws_makes_itself_are_said_to_be_so(world: World) -> None:
    backup, row = backed_up_with_dr(world, "eu-west-1", "us-west-2")

    assert backup.dr_status == DrStatus.COMPLETED and granted(world, row) == {DR_ACCOUNT}
    said = " ".join(world.log(backup))
    assert "AWS copies the snapshots of this cluster to eu-west-1 itself" in said
    assert "us-west-2 as its destination in place of eu-west-1" in said


def test_what_the_default_key_encrypts_is_not_granted_and_the_reason_is_told(world: World) -> None:
    backup, row = backed_up_with_dr(world, KmsKeyId="alias/aws/redshift")

    assert backup.dr_status == DrStatus.FAILED and granted(world, row) == set()
    assert "aws/redshift, which AWS does not let other accounts use" in " ".join(world.log(backup))


def test_a_cluster_comes_back_as_it_was_unless_asked_otherwise(world: World) -> None:
    zone, group = subnet_group(world, "orders")
    place = {"ClusterSubnetGroupName": "orders", "VpcSecurityGroupIds": [group], "PubliclyAccessible": True}
    source = EXAMPLE.make(world, "orders", Port=5440, EnhancedVpcRouting=True, **place)
    elsewhere, _ = subnet_group(world, "elsewhere")
    target = EXAMPLE.protect(world, source)
    world.back_up(target.policy, status="B")
    # A cluster may be busy for a moment when it has just come into being.
    world.aws.fault(action="CreateTags", error="InvalidClusterState", count=1)

    same = shown(world, recover(world, snapshot_of(target)))
    moved = shown(
        world,
        recover(
            world, snapshot_of(target), aws_resource_id="moved", subnet_group_name="elsewhere", zone=elsewhere,
            port=5450, publicly_accessible=False,
        ),
    )  # fmt: skip

    assert same["Endpoint"]["Port"] == 5440 and same["PubliclyAccessible"] and same["EnhancedVpcRouting"]
    assert (same["ClusterSubnetGroupName"], same["AvailabilityZone"]) == ("orders", zone)
    assert [one["VpcSecurityGroupId"] for one in same["VpcSecurityGroups"]] == [group]
    assert moved["ClusterSubnetGroupName"] == "elsewhere" and moved["Endpoint"]["Port"] == 5450
    assert not moved["PubliclyAccessible"]
    assert [one["VpcSecurityGroupId"] for one in moved["VpcSecurityGroups"]] not in ([], [group])


def test_a_security_group_that_is_gone_does_not_keep_a_cluster_from_coming_back(world: World) -> None:
    _, group = subnet_group(world, "orders")
    source = EXAMPLE.make(world, "orders", ClusterSubnetGroupName="orders", VpcSecurityGroupIds=[group])
    target = EXAMPLE.protect(world, source)
    world.back_up(target.policy, status="B")
    world.aws.client("ec2").delete_security_group(GroupId=group)

    made = shown(world, recover(world, snapshot_of(target)))

    assert [one["VpcSecurityGroupId"] for one in made["VpcSecurityGroups"]] not in ([], [group])


def test_what_aws_would_refuse_is_refused_before_anything_starts(world: World) -> None:
    target = EXAMPLE.protect(world, EXAMPLE.make(world, "orders"))
    world.back_up(target.policy, status="B")

    def refused(**asked: Any) -> set[str]:
        with pytest.raises(ValidationFailed) as found:
            recover(world, snapshot_of(target), **asked)
        return set(found.value.errors)

    assert refused(aws_resource_id="two--hyphens", port=80) == {"aws_resource_id", "port"}
    assert refused(subnet_group_name="nowhere") == {"subnet_group_name"}
    assert refused(aws_resource_id="orders", zone="us-east-1z") == {"aws_resource_id", "zone"}
    assert not Recovery.objects.exists()


def test_only_what_was_restored_under_the_name_since_then_is_taken_for_ours(world: World) -> None:
    kind = WHOLE_BY_KEY["redshift_clusters"]
    target = EXAMPLE.protect(world, EXAMPLE.make(world, "orders"))
    world.back_up(target.policy, status="B")
    row = snapshot_of(target)
    made = shown(world, recover(world, row))
    held = Held(row.aws_id, row.source_id, row.region, row.aws_account_number, row.details)
    client = gateway.client(identity_of(world.account, session="test"), "redshift", "us-east-1")

    def found(name: str, later: timedelta) -> list[str]:
        restoring = Restoring(
            row.aws_id, held, {"aws_resource_id": name}, Place(row.aws_account_number, row.region), {}, "",
            since=made["ClusterCreateTime"] + later,
        )  # fmt: skip
        return kind.find_restored(client, restoring, "cluster")

    assert found("again", -timedelta(minutes=1)) == ["again"]
    assert found("again", timedelta(minutes=5)) == []
    assert found("orders", -timedelta(minutes=1)) == []
