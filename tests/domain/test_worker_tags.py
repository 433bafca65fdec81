"""Worker tags in the work of flows."""

import pytest

from cpm.flows import tags
from cpm.flows.s3 import restore, restore_blocks
from cpm.flows.table import ENGINE
from cpm.jobs import leases, runner
from cpm.models import Step, WorkerTag
from tests import factories
from tests.domain.restoring import start
from tests.domain.test_recover_from_s3 import copy_of_volume

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_temporary_snapshot_of_a_recovery_carries_the_tags_that_there_were_at_its_start(
    world, aws, monkeypatch
):
    _, row, _ = copy_of_volume(world, aws)
    factories.worker_tag(world.account, key="cost centre", value="42")
    monkeypatch.setattr(restore, "SLICE_SECONDS", 0)
    monkeypatch.setattr(restore_blocks, "PART_BLOCKS", 1)

    recovery = start(world, row)
    while not Step.objects.filter(kind="recover.s3_write", cursor__snapshot__startswith="snap-").exists():
        runner.drain("recovery", engine=ENGINE)
        runner.run_leases(leases.claim_ready("s3", "me", 1), engine=ENGINE)
    WorkerTag.objects.update(value="43")
    [snapshot] = aws.client("ec2").describe_snapshots(
        OwnerIds=["self"], Filters=[{"Name": f"tag:{tags.RECOVERY}", "Values": [str(recovery.pk)]}]
    )["Snapshots"]
    carried = tags.as_dict(snapshot["Tags"])
    assert carried["cost centre"] == "42"
    assert {tags.SERVER, tags.STEP} <= set(carried)
    world.run()
    recovery.refresh_from_db()
    assert recovery.status == "R"
