"""Aurora clusters beyond what the suite over all types asks: undoing both stages, the class of the instance, other engines."""

from typing import Any

import pytest

from cpm.lib.errors import ValidationFailed
from cpm.models import Recovery
from cpm.services import recoveries
from tests.domain.whole_examples.base import snapshot_of
from tests.domain.whole_examples.rds_cluster import AuroraExample
from tests.domain.world import World
from tests.simulated_aws import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
EXAMPLE = AuroraExample()


def started(world: World, **request: Any) -> Recovery:
    target = EXAMPLE.protect(world, EXAMPLE.make(world, "orders"))
    world.back_up(target.policy)
    return recoveries.recover_whole(
        actor=world.actor, snapshot=snapshot_of(target), request=EXAMPLE.request("again") | request, credentials=None,
        now=world.now(),
    )  # fmt: skip


def instances(world: World) -> dict[str, dict[str, Any]]:
    found = world.aws.client("rds").describe_db_instances()["DBInstances"]
    return {one["DBInstanceIdentifier"]: one for one in found if one["DBInstanceStatus"] != "deleting"}


def test_a_recovery_that_ends_at_its_instance_leaves_no_cluster(world: World) -> None:
    recovery = started(world)
    world.aws.timing(database_seconds=0.5)
    wait_for(lambda: world.work() >= 0 and "again-first" in instances(world))

    world.abort(recovery)
    world.run()

    recovery.refresh_from_db()
    assert set(instances(world)) == {"orders-1"} and EXAMPLE.resources(world) == {"orders"}, recovery.outcome


def test_the_class_may_be_given_by_either_of_its_names(world: World) -> None:
    started(world, instance_type="db.r6g.large", zone="us-east-1b")

    world.run()

    made = instances(world)["again-first"]
    assert (made["DBInstanceClass"], made["AvailabilityZone"]) == ("db.r6g.large", "us-east-1b")


def test_contradicting_classes_and_taken_ids_are_refused(world: World) -> None:
    with pytest.raises(ValidationFailed) as two_classes:
        started(world, instance_type="db.r6g.large", db_instance_class="db.r5.large")
    snapshot = snapshot_of(EXAMPLE.protect(world, "orders"))
    with pytest.raises(ValidationFailed) as taken:
        recoveries.recover_whole(
            actor=world.actor, snapshot=snapshot, request={"aws_resource_id": "orders", "aws_dbinstance_id": "orders-1"},
            credentials=None, now=world.now(),
        )  # fmt: skip

    assert set(two_classes.value.errors) == {"instance_type"}
    assert set(taken.value.errors) == {"aws_resource_id", "aws_dbinstance_id"}


def test_a_cluster_of_another_engine_is_no_aurora_cluster(world: World) -> None:
    world.aws.client("docdb").create_db_cluster(
        DBClusterIdentifier="papers", Engine="docdb", MasterUsername="shop", MasterUserPassword="not-a-secret"
    )

    with pytest.raises(ValidationFailed, match="papers is a cluster of docdb"):
        EXAMPLE.protect(world, "papers")
