"""Policies whose backups are copied to S3: what tests of copies, archives and recoveries from S3 build on."""

import random
import time
from typing import Any

from django.utils import timezone

from cpm.aws.ebs_direct import BLOCK
from cpm.flows.s3 import repositories as flow
from cpm.flows.table import ENGINE
from cpm.jobs import leases, runner, sweeper
from cpm.models import Backup, Job, Policy, S3Copy, S3Repository
from cpm.repository.reader import Reader
from cpm.services import backups, repositories
from tests import factories
from tests.domain.world import QUEUES, World

BUCKET = "backups-of-ours"


def repository(world: World, **fields: Any) -> S3Repository:
    """A new repository in a bucket of the simulated S3, which is made with the first."""
    bucket = fields.setdefault("aws_bucket_name", BUCKET)
    region = fields.setdefault("aws_region", "us-east-1")
    world.region_id(region)
    if bucket not in {one["Name"] for one in world.aws.client("s3").list_buckets()["Buckets"]}:
        factories.bucket(world.aws, bucket, region)
    given = {"name": f"main{S3Repository.objects.count() or ''}", "account": world.account.pk, **fields}
    return repositories.create(actor=world.actor, **given)


def policy_with_s3(world: World, *volumes: str, **fields: Any) -> Policy:
    """A policy over instances and volumes that copies every backup to a repository, by default a new one."""
    if "s3_repository" not in fields:
        fields["s3_repository"] = repository(world)
    return world.policy(*volumes, **{"s3_enabled": True, "generations": 1000, **fields})


def copied(world: World, policy: Policy) -> Backup:
    """A backup whose copy is complete."""
    return world.back_up(policy, s3_copy_status="S")


def backed_up(world: World, policy: Policy) -> Backup:
    """A backup whose copy waits for a worker: nothing of queue s3 is done."""
    backup = backups.start(actor=world.actor, policy=policy, now=timezone.now())
    ends = time.monotonic() + 20
    while Job.objects.filter(finished_at=None).exclude(kind="s3_copy").exists():
        assert time.monotonic() < ends, "the backup does not end"
        sweeper.sweep(queues=QUEUES)
        if not sum(runner.drain(queue, engine=ENGINE) for queue in QUEUES if queue != "s3"):
            time.sleep(0.02)
    backup.refresh_from_db()
    return backup


def one_step(kind: str) -> None:
    """Run one step of queue s3, which is of that kind."""
    [lease] = leases.claim_ready("s3", "test", 1)
    assert lease.kind == kind
    runner.run_leases([lease], engine=ENGINE)


def block(seed: int) -> bytes:
    """A block of its own bytes for every seed."""
    return random.Random(seed).randbytes(BLOCK)


def write(world: World, volume: str, **seeds: int) -> None:
    """Write blocks into a volume: `write(world, volume, _0=1, _7=2)` puts the block of seed 2 at number 7."""
    for number, seed in seeds.items():
        world.aws.write(volume, block(seed), int(number[1:]) * BLOCK)


def blocks(copy: S3Copy) -> dict[int, bytes]:
    """All blocks of a copied volume that are not zeros, read from its repository."""
    assert copy.repository is not None
    opened = flow.opened(copy.repository)
    with Reader(opened, opened.copy(copy.stored_id)).gather() as found:
        return {number: bytes(data) for number, data in found}
