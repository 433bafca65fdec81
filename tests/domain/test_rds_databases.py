"""RDS databases beyond what the suite over all types asks: keys across accounts, what is asked for, what is refused."""

import json
from typing import Any

import pytest

from cpm.lib.errors import ValidationFailed
from cpm.lib.states import BackupStatus, DrStatus, RecoveryStatus
from cpm.models import Account, Recovery, Snapshot
from cpm.services import recoveries
from tests.domain.whole_examples.base import snapshot_of
from tests.domain.whole_examples.rds_database import RdsExample
from tests.domain.world import DR_ACCOUNT, World

pytestmark = pytest.mark.django_db(transaction=True)
EXAMPLE = RdsExample()
ANYBODY = {"Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}]}


def key(world: World, region: str = "us-east-1", account: str | None = None) -> str:
    """A customer managed key with the alias `ours` that other accounts may use."""
    kms = world.aws.client("kms", region, account)
    arn: str = kms.create_key(Policy=json.dumps(ANYBODY))["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName="alias/ours", TargetKeyId=arn)
    return arn


def database(world: World, **more: Any) -> str:
    made = world.aws.client("rds").create_db_instance(
        **{
            "DBInstanceIdentifier": "orders", "DBInstanceClass": "db.t3.micro", "Engine": "postgres", "AllocatedStorage": 100,
            "MasterUsername": "shop", "MasterUserPassword": "not-a-secret", **more,
        }
    )["DBInstance"]  # fmt: skip
    world.aws.fill(made["DBInstanceArn"], b"rows")
    return str(made["DBInstanceIdentifier"])


def shown(world: World, name: str, account: str | None = None, region: str = "us-east-1") -> dict[str, Any]:
    rds = world.aws.client("rds", region, account)
    found: dict[str, Any] = rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]
    return found


def recover(world: World, row: Snapshot, **request: Any) -> Recovery:
    made = recoveries.recover_whole(
        actor=world.actor, snapshot=row, request={"aws_resource_id": "again", **request}, credentials=None, now=world.now()
    )
    world.run()
    made.refresh_from_db()
    assert made.status == RecoveryStatus.SUCCESSFUL, made.outcome
    return made


def refused(world: World, row: Snapshot, **request: Any) -> dict[str, Any]:
    with pytest.raises(ValidationFailed) as error:
        recover(world, row, **request)
    return dict(error.value.errors)


def test_an_encrypted_database_reaches_another_region_of_another_account_with_the_key_there(world: World) -> None:
    there = key(world, "eu-west-1", DR_ACCOUNT)
    target = EXAMPLE.protect(
        world,
        database(world, StorageEncrypted=True, KmsKeyId=key(world)),
        dr_enabled=True,
        dr_account=world.add_account(DR_ACCOUNT, is_dr_account=True),
        dr_account_regions=[world.region_id("eu-west-1")],
    )

    backup = world.back_up(target.policy, status=BackupStatus.SUCCESSFUL, dr_status=DrStatus.COMPLETED)

    copy = Snapshot.objects.get(backup=backup, kind="dr_rds_databases")
    recover(world, copy)
    made = shown(world, "again", DR_ACCOUNT, "eu-west-1")
    assert (made["KmsKeyId"], made["DBSubnetGroup"]["DBSubnetGroupName"]) == (there, "default")
    assert world.aws.content(made["DBInstanceArn"]) == b"rows"
    original = snapshot_of(target, kind="rds_databases").aws_id
    attributes = world.aws.client("rds").describe_db_snapshot_attributes(DBSnapshotIdentifier=original)
    assert attributes["DBSnapshotAttributesResult"]["DBSnapshotAttributes"][0]["AttributeValues"] == []


def test_an_encrypted_snapshot_is_recovered_in_another_account_through_a_copy_that_does_not_stay(world: World) -> None:
    other = Account.objects.get(pk=world.add_account(DR_ACCOUNT).pk)
    key(world, account=DR_ACCOUNT)
    target = EXAMPLE.protect(world, database(world, StorageEncrypted=True, KmsKeyId=key(world)))
    world.back_up(target.policy)

    recover(world, snapshot_of(target), to_account=other.pk)

    assert world.aws.content(shown(world, "again", DR_ACCOUNT)["DBInstanceArn"]) == b"rows"
    assert EXAMPLE.snapshots(world, account=DR_ACCOUNT) == set()


def test_a_temporary_copy_whose_answer_was_lost_does_not_stay_either(world: World) -> None:
    other = Account.objects.get(pk=world.add_account(DR_ACCOUNT).pk)
    key(world, account=DR_ACCOUNT)
    target = EXAMPLE.protect(world, database(world, StorageEncrypted=True, KmsKeyId=key(world)))
    world.back_up(target.policy)
    world.aws.fault(action="CopyDBSnapshot", lost_response=True, count=1)
    recovery = recoveries.recover_whole(
        actor=world.actor, snapshot=snapshot_of(target), credentials=None, now=world.now(),
        request={"aws_resource_id": "again", "to_account": other.pk},
    )  # fmt: skip
    while not EXAMPLE.snapshots(world, account=DR_ACCOUNT):
        assert world.work()

    world.abort(recovery)
    world.run()

    assert EXAMPLE.snapshots(world, account=DR_ACCOUNT) == set()


def test_what_is_not_asked_for_is_as_it_was(world: World) -> None:
    source = database(world, StorageType="io1", Iops=3000, Port=6000, MultiAZ=True, PubliclyAccessible=True)
    target = EXAMPLE.protect(world, source)
    world.back_up(target.policy)

    recover(world, snapshot_of(target))
    recover(
        world, snapshot_of(target), aws_resource_id="Other", db_instance_class="db.m5.large", storage_type="gp2", port=7000,
        multi_az=False, zone="us-east-1b", publicly_accessible=False,
    )  # fmt: skip

    names = ("DBInstanceClass", "StorageType", "Iops", "MultiAZ", "PubliclyAccessible", "VpcSecurityGroups", "DBSubnetGroup")
    was, again, other = (shown(world, name) for name in (source, "again", "other"))
    assert [again.get(name) for name in names] == [was.get(name) for name in names]
    assert again["Endpoint"]["Port"] == 6000
    assert [other.get(name) for name in names[:5]] == ["db.m5.large", "gp2", None, False, False]
    assert (other["Endpoint"]["Port"], other["AvailabilityZone"]) == (7000, "us-east-1b")


def test_what_cannot_be_is_refused_by_field_before_anything_starts(world: World) -> None:
    target = EXAMPLE.protect(world, database(world))
    world.back_up(target.policy)
    row = snapshot_of(target)

    impossible = refused(world, row, aws_resource_id="a--b", port=80, iops=3000, storage_type="gp2")
    contradicting = refused(world, row, multi_az=True, zone="us-east-1a")
    not_there = refused(world, row, db_instance_class="db.z9.huge", subnet_group_name="nowhere")

    assert set(impossible) == {"aws_resource_id", "port", "iops"}
    assert set(contradicting) == {"zone"}
    assert set(not_there) == {"db_instance_class", "subnet_group_name"}
    assert not Recovery.objects.exists()


def test_a_member_of_a_cluster_is_protected_with_its_cluster(world: World) -> None:
    rds = world.aws.client("rds")
    rds.create_db_cluster(DBClusterIdentifier="shop", Engine="aurora-mysql", MasterUsername="u", MasterUserPassword="password")
    rds.create_db_instance(
        DBInstanceIdentifier="shop-1", DBClusterIdentifier="shop", Engine="aurora-mysql", DBInstanceClass="db.r5.large"
    )

    with pytest.raises(ValidationFailed, match="member of the cluster shop: protect the cluster"):
        EXAMPLE.protect(world, "shop-1")


def test_copies_beyond_the_limit_of_aws_queue_and_do_not_fail(world: World) -> None:
    world.aws.limits(concurrent_database_copies=1)
    world.aws.timing(database_snapshot_seconds=0.2)
    policy = world.policy(dr_enabled=True, dr_regions=[world.region_id("eu-west-1")])
    for number in range(3):
        EXAMPLE.protect(world, database(world, DBInstanceIdentifier=f"orders-{number}"), policy)

    world.back_up(policy, dr_status=DrStatus.COMPLETED)
