"""Workers that stand still for longer than their lease, and then go on."""

import select

import pytest
from django.db import InternalError, connection, transaction

from cpm.jobs import leases, runner, sessions
from cpm.jobs.kinds import Done, StepSpec
from cpm.models import LogLine, Step
from tests.domain import recovering
from tests.domain.engine import engine, kind, lose_lease, run, run_to_end, start

pytestmark = pytest.mark.django_db(transaction=True)


class Cloud:
    """Things that were made and not discarded; `while_creating` is what happens in the middle of a call."""

    def __init__(self):
        self.things, self.calls, self.while_creating = [], 0, lambda: None

    def step(self, context):
        context.once(create=self.create, find=lambda: list(self.things), discard=self.things.remove)
        return Done()

    def create(self):
        self.calls += 1
        name = f"thing-{self.calls}"
        happening, self.while_creating = self.while_creating, lambda: None
        happening()
        self.things.append(name)
        return name


@pytest.fixture
def cloud(settings):
    settings.CPM_AWS_LIST_LAG_SECONDS = 0
    return Cloud()


def test_what_is_made_after_a_successor_has_finished_is_discarded_by_who_made_it(cloud):
    built = engine(kind("make", cloud.step))
    job = start(built, [StepSpec("make")])

    def overtaken():
        lose_lease(Step.objects.get(job=job))
        run_to_end(built, job)

    cloud.while_creating = overtaken
    run(built)

    step = Step.objects.get(job=job)
    assert (step.state, step.token, cloud.things) == ("succeeded", "thing-2", ["thing-2"])


def test_what_is_made_while_a_successor_is_creating_is_discarded_by_the_successor(cloud):
    built = engine(kind("make", cloud.step))
    job = start(built, [StepSpec("make")])

    cloud.while_creating = lambda: lose_lease(Step.objects.get(job=job))
    first = leases.claim_ready("control", "frozen", 1)
    runner.run_leases(first, engine=built)
    assert Step.objects.get(job=job).payload == {"strays": ["thing-1"]}
    # The successor's look-up does not show it yet; it shows while the successor creates.
    stray = cloud.things.pop()
    cloud.while_creating = lambda: cloud.things.append(stray)
    run_to_end(built, job)

    step = Step.objects.get(job=job)
    assert (step.token, cloud.things, step.payload) == ("thing-2", ["thing-2"], {})
    assert LogLine.objects.filter(message__contains="Removing what a worker made").exists()


def test_an_interrupted_intent_counts_from_when_the_lease_was_lost(cloud, settings):
    settings.CPM_AWS_LIST_LAG_SECONDS = 60
    built = engine(kind("make", cloud.step))
    job = start(built, [StepSpec("make")])
    cloud.while_creating = lambda: (_ for _ in ()).throw(SystemExit)
    with pytest.raises(SystemExit):
        run(built)
    Step.objects.filter(job=job).update(intent_at="2020-01-01T00:00Z")

    lose_lease(Step.objects.get(job=job))
    Step.objects.filter(job=job).update(not_before="2020-01-01T00:00Z")
    run(built)

    step = Step.objects.get(job=job)
    assert step.state == "ready" and "Interrupted" in step.message and cloud.calls == 1


def test_a_session_that_stands_still_in_a_transaction_is_ended(settings):
    settings.CPM_LEASE_SECONDS = 0.1
    options = connection.settings_dict["OPTIONS"]
    before = options["options"]
    connection.close()
    try:
        sessions.bound()
        sessions.bound()

        assert options["options"].count("idle_in_transaction") == 1
        with pytest.raises(InternalError, match="idle-in-transaction"), transaction.atomic():  # noqa: PT012
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
            # The server has hung up when there is something to read.
            assert select.select([connection.connection.pgconn.socket], [], [], 10)[0]
            Step.objects.exists()
    finally:
        connection.close()
        options["options"] = before



def test_lists_may_lag_behind_what_only_a_second_attempt_has_made(world, aws):
    volume = aws.volume()
    row = recovering.volume_row(world.back_up(world.policy(volume), status="B"))
    aws.fault(service="ec2", action="CreateVolume", error="InternalError", status=500, count=6)
    aws.fault(service="ec2", action="DescribeVolumes", list_lag_seconds=0.4)
    recovery = recovering.start(world, row)
    while not Step.objects.filter(kind="recover.volume", failures__gt=0).exists():
        world.work()
    aws.fault(service="ec2", action="CreateVolume", latency_seconds=0.6, count=1)

    world.run()

    recovery.refresh_from_db()
    assert recovery.status == "R", recovery.outcome
