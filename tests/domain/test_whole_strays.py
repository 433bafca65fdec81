"""Backups of tables, which AWS makes twice under one name: only proven duplicates go."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from cpm.aws.gateway import client
from cpm.flows.cleanup import stray_rules, whole_strays
from cpm.flows.identities import identity_of
from cpm.models import LogLine, ServerSettings, Snapshot, Step
from cpm.resources.registry import WHOLE_BY_KEY
from tests import factories
from tests.domain.straying import look
from tests.domain.whole_examples import EXAMPLES
from tests.domain.world import World

pytestmark = pytest.mark.django_db(transaction=True)
TABLES = EXAMPLES["dynamodb_tables"]


@pytest.fixture(autouse=True)
def _at_once(settings: Any) -> None:
    settings.CPM_STRAY_SETTLED_SECONDS = 0


def lines(level: str = "Info") -> list[str]:
    return list(LogLine.objects.filter(subject_type="cleanup", level=level).values_list("message", flat=True))


def backed_up(world: World) -> tuple[Snapshot, Step, str]:
    """A backup of one table, the step that made it, and its name in AWS."""
    backup = world.back_up(TABLES.protect(world, TABLES.make(world, "orders"), name="Daily").policy, status="B")
    row = Snapshot.objects.get(backup=backup)
    step = Step.objects.get(kind="backup.start_whole", payload__snapshot=row.pk)
    shown = world.aws.client("dynamodb").describe_backup(BackupArn=row.aws_id)["BackupDescription"]
    return row, step, shown["BackupDetails"]["BackupName"]


def made_again(world: World, name: str, table: str = "orders") -> str:
    made: dict[str, Any] = world.aws.client("dynamodb").create_backup(TableName=table, BackupName=name)
    return str(made["BackupDetails"]["BackupArn"])


def test_a_duplicate_goes_and_the_one_that_counts_stays(world: World) -> None:
    row, step, name = backed_up(world)
    stray = made_again(world, name)

    job = look(world)

    assert job is not None and job.state == "succeeded"
    assert TABLES.snapshots(world) == {row.aws_id}
    (line,) = lines()
    assert stray in line and f"step {step.pk} (backup.start_whole)" in line and row.aws_id in line
    assert lines("Warning") == []


def test_what_is_named_otherwise_or_is_of_another_table_server_or_step_stays(world: World) -> None:
    row, step, name = backed_up(world)
    server = ServerSettings.current().server_id.hex[:8]
    TABLES.make(world, "others")
    others = [
        made_again(world, name, "others"),
        made_again(world, name.replace(server, "00000000")),
        made_again(world, name.replace("daily", "weekly")),
        made_again(world, f"{name}0"),
        made_again(world, f"cpm-{server}-daily-{row.backup_id + 1}-{step.pk}"),
        made_again(world, "mine"),
    ]

    job = look(world)

    assert job is not None and (job.state, lines()) == ("succeeded", [])
    assert TABLES.snapshots(world) == {row.aws_id, *others}


def test_what_is_young_or_named_by_a_record_or_may_be_the_only_one_stays(
    world: World, settings: Any
) -> None:
    row, step, name = backed_up(world)
    stray = made_again(world, name)
    settings.CPM_STRAY_SETTLED_SECONDS = 3600
    Step.objects.filter(pk=step.pk).update(finished_at=timezone.now() - timedelta(hours=3))

    look(world)
    young = TABLES.snapshots(world)
    settings.CPM_STRAY_SETTLED_SECONDS = 0
    named = factories.snapshot(row.backup, aws_id=stray)
    look(world, timezone.now() + timedelta(days=1))
    recorded = TABLES.snapshots(world)
    named.delete()
    Step.objects.filter(pk=step.pk).update(token=None, state="failed")
    look(world, timezone.now() + timedelta(days=2))

    assert young == recorded == TABLES.snapshots(world) == {row.aws_id, stray}
    assert lines() == [] and len(lines("Warning")) == 1 and stray in lines("Warning")[0]


def test_an_access_error_is_shown_and_nothing_is_removed(world: World) -> None:
    row, _, name = backed_up(world)
    stray = made_again(world, name)
    world.aws.fault(action="DeleteBackup", error="AccessDeniedException", status=403)

    job = look(world)

    world.aws.clear_faults()
    assert job is not None and job.state == "failed"
    assert any("dynamodb:DeleteBackup" in line for line in lines("Error"))
    assert TABLES.snapshots(world) == {row.aws_id, stray}


def test_only_places_with_such_snapshots_are_looked_at_and_what_flows_make_is_known(world: World) -> None:
    row, step, _ = backed_up(world)
    world.back_up(world.policy(world.aws.volume()), status="B")

    look(world)

    looked = Step.objects.filter(kind=whole_strays.STEP).values_list("payload__region", "payload__type")
    assert list(looked) == [("us-east-1", "dynamodb_tables")]
    kind = WHOLE_BY_KEY["dynamodb_tables"]
    aws = client(identity_of(world.account, session="test"), "dynamodb", "us-east-1")
    [thing] = [whole_strays.thing_of(kind, one, world.account, aws.region) for one in kind.listed(aws)]
    assert stray_rules.made_by(step, thing) and stray_rules.counted(step, thing) == row.aws_id
