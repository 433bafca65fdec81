"""Steps that name a place: they go to the workers of that place while there are some, and to everybody otherwise."""

import os
from datetime import timedelta

import pytest
from django.utils import timezone
from typer.testing import CliRunner

from cpm.commands import stack
from cpm.jobs import fleet, queue, runner, sweeper
from cpm.jobs.kinds import Done, StepKind, StepSpec, Wait
from cpm.lib import places
from cpm.lib.states import FleetKind, JobState
from cpm.models import FleetMember, Job, Step
from tests.domain import engine

pytestmark = pytest.mark.django_db(transaction=True)

PLACE = places.at("123456789012", "eu-west-1")
THERE = "s3@123456789012:eu-west-1"


def worker(*queues: str, silent: float = 0.0, name: str = "near") -> FleetMember:
    seen = timezone.now() - timedelta(seconds=silent)
    return FleetMember.objects.create(
        name=name, kind=FleetKind.WORKER, queues=[*queues], started_at=seen, last_seen_at=seen
    )


def falls_silent(member: FleetMember) -> None:
    FleetMember.objects.filter(pk=member.pk).update(
        last_seen_at=timezone.now() - timedelta(seconds=fleet.GONE_AFTER_SECONDS + 1)
    )


def moving(run=lambda context: Done()):
    return engine.engine(StepKind("move", "s3", run), StepKind("watch", "recovery", run))


def start(*steps: StepSpec) -> Job:
    return engine.start(moving(), steps)


def queues_of(job: Job) -> list[str]:
    return list(job.steps.order_by("id").values_list("queue", flat=True))


def test_a_step_goes_to_the_worker_of_its_place():
    worker("s3", THERE)

    job = start(
        StepSpec("move", place=PLACE),
        StepSpec("move"),
        StepSpec("move", place=places.at("1" * 12, "eu-west-1")),
    )

    assert queues_of(job) == [THERE, "s3", "s3"]


def test_without_a_living_worker_of_the_place_everybody_does_it():
    worker(THERE, silent=fleet.GONE_AFTER_SECONDS + 1)

    job = start(StepSpec("move", place=PLACE))

    assert queues_of(job) == ["s3"]


def test_only_queues_that_move_blocks_have_places():
    worker(THERE)

    job = start(StepSpec("watch", place=PLACE))

    assert queues_of(job) == ["recovery"]
    assert job.steps.get().place == ""


def test_steps_that_are_added_later_are_routed_too():
    worker(THERE)
    built = moving(lambda context: Done(then=[StepSpec("move", place=PLACE)] if context.payload else ()))
    job = engine.start(built, [StepSpec("watch", {"more": True})])

    runner.drain("recovery", engine=built)

    assert queues_of(job) == ["recovery", THERE]


def test_when_the_worker_of_a_place_dies_its_steps_move_to_everybody():
    near = worker(THERE)
    job = start(StepSpec("move", key="first", place=PLACE), StepSpec("move", after=("first",), place=PLACE))
    falls_silent(near)

    swept = sweeper.sweep(queues=["s3"])

    assert (swept.moved, swept.offered) == (2, 1)
    assert queues_of(job) == ["s3", "s3"]
    built = moving()
    assert runner.drain("s3", engine=built) == 2
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED


def test_a_step_that_died_with_the_worker_is_taken_back_and_moves_too():
    near = worker(THERE)
    job = start(StepSpec("move", place=PLACE))
    [lease] = runner.leases.claim_ready(THERE, "near", 1)
    runner.leases.keeper.release(lease)
    Step.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    falls_silent(near)

    swept = sweeper.sweep(queues=["s3"])

    assert (swept.taken_back, swept.moved, swept.offered) == (1, 1, 1)
    assert queues_of(job) == ["s3"]


def test_waiting_steps_move_to_a_worker_that_comes_up():
    job = start(StepSpec("move", place=PLACE))
    worker(THERE)

    swept = sweeper.sweep(queues=["s3"])

    assert (swept.moved, swept.offered) == (1, 1)
    assert queues_of(job) == [THERE]
    assert sweeper.sweep(queues=["s3"]) == sweeper.Sweep(0, 0, 0)


def test_a_step_in_hand_stays_where_it_is():
    job = start(StepSpec("move", place=PLACE))
    [lease] = runner.leases.claim_ready("s3", "far", 1)
    worker(THERE)

    assert sweeper.sweep(queues=["s3"]).moved == 0
    assert queues_of(job) == ["s3"]

    runner.run_leases([lease], engine=moving(lambda context: Wait(0.0)))
    assert sweeper.sweep(queues=["s3"]).moved == 1


def test_the_tick_offers_steps_of_places(settings):
    settings.CPM_OFFER_SECONDS = 60
    worker(THERE)
    start(StepSpec("move", place=PLACE))
    Step.objects.update(offered_until=timezone.now() - timedelta(seconds=1))

    assert [sweeper.sweep(queues=["s3"]).offered for _ in range(2)] == [1, 0]


def test_a_message_by_another_queue_leaves_the_step_to_its_place():
    worker(THERE)
    job = start(StepSpec("move", place=PLACE))
    step = job.steps.get()

    assert runner.run_message(step.pk, engine=moving(), queue_name="s3", budget=0) == 0
    assert runner.run_message(step.pk, engine=moving(), queue_name=THERE, budget=0) == 1


def test_a_job_that_is_retried_after_its_worker_died_is_not_stuck():
    near = worker(THERE)
    built = engine.engine(StepKind("move", "s3", lambda context: 1 / 0))
    job = engine.start(built, [StepSpec("move", place=PLACE)])
    runner.drain(THERE, engine=built)
    falls_silent(near)

    queue.retry_failed(job.pk)
    sweeper.sweep(queues=["s3"])

    assert runner.drain("s3", engine=moving()) == 1
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED


@pytest.mark.parametrize(
    "text", ["", "eu-west-1", "123:eu-west-1", "123456789012:", "123456789012:eu-west-1,s3"]
)
def test_what_is_no_place_is_refused(text):
    with pytest.raises(ValueError, match="ACCOUNT_NUMBER:REGION"):
        places.checked(text)


@pytest.mark.parametrize("region", ["eu-west-1", "us-gov-west-1", "ap-southeast-2", "us-isob-east-1"])
def test_every_region_makes_a_place(region):
    assert places.checked(places.at("123456789012", region)) == f"123456789012:{region}"


def test_an_account_whose_number_is_not_known_has_no_place():
    assert places.at("", "eu-west-1") == ""


@pytest.mark.parametrize(
    "arguments", [["--place", "eu-west-1"], ["--queues", ""], ["--queues", "s3@123456789012:eu-west-1"]]
)
def test_the_command_refuses_what_no_worker_can_serve(arguments, monkeypatch):
    monkeypatch.setattr(stack, "_become", lambda command: pytest.fail("it started"))

    assert CliRunner().invoke(stack.app, ["worker", *arguments]).exit_code == 2


def test_the_command_serves_the_queues_of_the_place_besides_those_asked_for(monkeypatch):
    begun = []
    monkeypatch.setattr(stack, "_become", begun.extend)
    monkeypatch.setenv("CPM_WORKER_PLACE", "")

    result = CliRunner().invoke(stack.app, ["worker", "--queues", "s3,dr", "--place", PLACE])

    assert result.exit_code == 0, result.output
    assert begun[begun.index("--queues") + 1] == f"s3,dr,{THERE}"
    assert os.environ["CPM_WORKER_PLACE"] == PLACE
