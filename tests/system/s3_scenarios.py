"""Copies to S3, databases among them, their cleanup and archiving for the crash matrix."""

import itertools
from collections.abc import Callable
from datetime import timedelta

from django.utils import timezone

from cpm.flows.s3 import repositories as flow
from cpm.models import Backup, Recovery, S3Copy, S3Repository
from cpm.repository import archiving
from cpm.repository.prune import prune
from cpm.repository.verify import Depth, verify
from cpm.services import backups, cleanup, recoveries
from tests import factories
from tests.domain import copying, exporting, recovering, stored, syncing
from tests.domain.copying import block
from tests.domain.world import World
from tests.repository.world import AT_ONCE
from tests.system.scenario import Scenario, ours, recorded


def s3_copy_scenario(world: World) -> Callable[[], Scenario]:
    """A volume of two parts, changed in each round: the first copy is full, the next ones build on those before."""
    volume = world.aws.volume()
    copying.write(world, volume, _0=1, _1023=2)
    policy = copying.policy_with_s3(world, volume)
    rounds = itertools.count(3)
    expected = {0: block(1), 1023: block(2)}

    def begin() -> None:
        seed = next(rounds)
        for number in (1024, 2047, seed):
            copying.write(world, volume, **{f"_{number}": seed})
            expected[number] = block(seed)
        backups.start(actor=world.actor, policy=policy, now=timezone.now())

    def check() -> None:
        last = Backup.objects.order_by("-pk")[0]
        assert (last.status, last.s3_copy_status) == ("B", "S"), (last.outcome, world.log(last))
        assert ours(world) == recorded()
        assert copying.blocks(last.s3_copies.get(snapshot__source_id=volume)) == expected
        row = S3Repository.objects.get()
        repository = flow.opened(row)
        assert list(repository.store.list("progress/")) == []
        copies = {info.key.removeprefix("copies/") for info in repository.store.list("copies/")}
        assert copies == set(S3Copy.objects.filter(succeeded=True).values_list("copy_id", flat=True))
        assert row.copies_stored == len(copies) == S3Copy.objects.count()
        assert not verify(repository, Depth.FULL).damage

    return lambda: Scenario(begin, check)


def s3_sync_scenario(world: World) -> Callable[[], Scenario]:
    """A bucket of which each round changes, adds and removes objects is mirrored to another region."""
    source = syncing.bucket(world, "crash-source")
    mirror = syncing.bucket(world, "crash-mirror", region=syncing.THERE)
    syncing.put(world, source, a="same", b="same")
    target = syncing.sync(world, source, mirror, world.policy(generations=1000), delete_extra=True)
    rounds = itertools.count(1)

    def begin() -> None:
        number = next(rounds)
        syncing.put(world, source, **{f"new-{number}": f"{number}", "changed": f"{number}"})
        if number > 1:
            world.aws.client("s3").delete_object(Bucket=source, Key=f"new-{number - 1}")
        backups.start(actor=world.actor, policy=target.policy, now=timezone.now())

    def check() -> None:
        last = Backup.objects.order_by("-pk")[0]
        assert last.status == "B", (last.outcome, world.log(last))
        assert syncing.row_of(last).succeeded
        assert syncing.content(world, mirror) == syncing.content(world, source)

    return lambda: Scenario(begin, check)


def s3_cleanup_scenario(world: World) -> Callable[[], Scenario]:
    """Each round brings two backups: of those that leave S3 one is archived, the other one deleted."""
    row = copying.repository(world)
    policy = world.policy(
        s3_repository=row, s3_generations=1, archive_enabled=True, archive_every_unit="D", archive_keep=2
    )
    rounds = itertools.count(1)
    first = timezone.now() - timedelta(days=300)
    seeds: dict[int, list[int]] = {}

    def begin() -> None:
        number = next(rounds)
        for hours in (0, 1):
            backup = stored.backup(policy, start_time=first + timedelta(days=2 * number, hours=hours))
            seeds[backup.pk] = [2, 10 * number + hours]
            stored.copy(row, backup.snapshots.get(kind="volumes"), seeds[backup.pk])
            stored.move(backup)
        cleanup.run_s3(actor=world.actor, now=timezone.now())

    def check() -> None:
        rows = list(Backup.objects.order_by("start_time"))
        ends = [("G", "D", "S"), ("D", "D", "Z")] * (len(rows) // 2)
        ends[-1] = ("M", "S", "Z")
        assert [(one.status, one.s3_copy_status, one.archive_status) for one in rows] == ends
        repository = flow.opened(row)
        living = list(S3Copy.objects.filter(status="completed"))
        assert {info.key for info in repository.store.list("copies/")} == {
            f"copies/{copy.stored_id}" for copy in living
        }
        for _ in range(2):
            prune(repository, delays=AT_ONCE)
        # What a frozen worker has written too late is collected with the rest.
        assert list(repository.store.list("progress/")) == []
        assert not verify(repository, Depth.LIST).damage
        for copy in living:
            if copy.archive_id:
                archive = repository.copy(copy.archive_id)
                archiving.retrieve(repository, archive, tier="Standard", days=1)
            wanted = [stored.block(seed) for seed in seeds[copy.backup_id]]
            assert stored.content(row, copy.stored_id) == wanted

    return lambda: Scenario(begin, check)


def rds_to_s3_scenario(world: World) -> Callable[[], Scenario]:
    """A database is exported and packed; its files come back from the copy of the round before."""
    name, repository = exporting.database(world, "shop"), exporting.repository(world)
    # AWS takes a hundred snapshots of databases, and the long form has more rounds.
    policy = exporting.policy_over(world, repository, name, generations=3)
    factories.bucket(world.aws, "files-of-ours", "us-east-1")
    copying.copied(world, policy)
    rounds = itertools.count(1)

    def begin() -> None:
        source = S3Copy.objects.filter(succeeded=True).order_by("-pk")[0].snapshot
        wanted = {"export_bucket": "files-of-ours", "export_prefix": f"{next(rounds)}/"}
        recoveries.recover_database_from_s3(
            actor=world.actor, snapshot=source, request=wanted, credentials=None, now=timezone.now()
        )
        backups.start(actor=world.actor, policy=policy, now=timezone.now())

    def check() -> None:
        last, recovery = Backup.objects.order_by("-pk")[0], Recovery.objects.order_by("-pk")[0]
        assert (last.status, last.s3_copy_status) == ("B", "S"), (last.outcome, world.log(last))
        assert recovery.status == "R", recovering.log(recovery)
        assert len(exporting.tasks(world)) == S3Copy.objects.count()
        assert exporting.staged(world) == []
        assert exporting.CONTENT in exporting.files(exporting.copy_of(last)).values()
        read = S3Copy.objects.get(snapshot=recovery.snapshot)
        bucket, prefix = "files-of-ours", recovery.request["export_prefix"]
        found = exporting.objects(world, bucket, prefix)
        assert found == {prefix + name: data for name, data in exporting.files(read).items()}
        repository = flow.opened(S3Repository.objects.get())
        assert list(repository.store.list("progress/")) == [] and not verify(repository, Depth.FULL).damage

    return lambda: Scenario(begin, check)
