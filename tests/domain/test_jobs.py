"""The job engine: leases, fencing, order of steps, retries, abort."""

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from cpm.jobs import leases, queue, runner, sweeper
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, StepSpec, Wait
from cpm.lib.states import JobState, RunIf, StepState
from cpm.models import Job, LogLine, Step
from tests.domain.engine import QUEUE, Passing, engine, kind, lose_lease, run, run_to_end, start

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_job_succeeds_when_its_steps_have_run_in_order():
    seen = []
    built = engine(kind("note", lambda context: seen.append(context.payload["n"]) or Done()))
    specs = [
        StepSpec("note", {"n": 3}, key="c", after=("a", "b")),
        StepSpec("note", {"n": 1}, key="a"),
        StepSpec("note", {"n": 2}, key="b", after=("a",)),
    ]

    job = start(built, specs)
    run(built)

    job.refresh_from_db()
    assert seen == [1, 2, 3]
    assert (job.state, job.open_steps) == (JobState.SUCCEEDED, 0)
    assert job.finished_at is not None


def test_a_failed_step_cancels_what_needs_its_success_and_runs_what_must_run_anyway():
    seen = []
    built = engine(
        kind("fail", lambda context: Failed("broken")),
        kind("note", lambda context: seen.append(context.payload["n"]) or Done()),
    )
    specs = [
        StepSpec("fail", key="f"),
        StepSpec("note", {"n": 1}, key="needs", after=("f",)),
        StepSpec("note", {"n": 2}, key="needs-that", after=("needs",)),
        StepSpec("note", {"n": 3}, key="anyway", after=("needs-that", "f"), run_if=RunIf.ENDED),
    ]

    job = start(built, specs)
    run(built)

    job.refresh_from_db()
    assert seen == [3]
    assert job.state == JobState.FAILED
    states = dict(job.steps.values_list("payload__n", "state"))
    assert states == {None: "failed", 1: "cancelled", 2: "cancelled", 3: "succeeded"}
    assert LogLine.objects.get(level="Error").message == "broken"


def test_steps_that_a_step_adds_belong_to_the_job_and_hold_it_open():
    built = engine(
        kind("plan", lambda context: Done(then=[StepSpec("leaf", key="x"), StepSpec("leaf", after=("x",))])),
        kind("leaf", lambda context: Done()),
    )

    job = start(built, [StepSpec("plan")])
    run(built)

    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED
    assert job.steps.filter(state="succeeded").count() == 3


def test_a_zombie_whose_lease_ran_out_writes_nothing():
    built = engine(kind("work", lambda context: Done()))
    start(built, [StepSpec("work")])
    [old] = leases.claim_ready(QUEUE, "first", 1)
    zombie = StepContext(old)

    lose_lease(Step.objects.get())
    [new] = leases.claim_ready(QUEUE, "second", 1)

    zombie.log("I am still here")
    for write in (
        lambda: zombie.remember("late"),
        lambda: zombie.progress(50),
        lambda: zombie.save_cursor(1),
    ):
        with pytest.raises(leases.LeaseLost):
            write()
    with pytest.raises(leases.LeaseLost), zombie.fenced():
        raise AssertionError("must not get here")
    assert old.lost.is_set()
    assert new.epoch > old.epoch
    assert Step.objects.get().token is None
    assert not LogLine.objects.exists()


def test_renewal_keeps_a_lease_and_notices_a_lost_one():
    built = engine(kind("work", lambda context: Done()))
    start(built, [StepSpec("work"), StepSpec("work")])
    kept, lost = leases.claim_ready(QUEUE, "me", 2)
    soon = timezone.now() + timedelta(seconds=1)
    Step.objects.update(lease_until=soon)
    Step.objects.filter(pk=lost.step_id).update(lease_epoch=99)

    leases.keeper.renew()

    assert Step.objects.get(pk=kept.step_id).lease_until > soon
    assert (kept.lost.is_set(), lost.lost.is_set()) == (False, True)
    leases.keeper.release(kept)


def test_a_step_is_claimed_by_one_of_many_workers():
    built = engine(kind("work", lambda context: Done()))
    start(built, [StepSpec("work") for _ in range(40)])
    claimed: list[int] = []
    barrier = threading.Barrier(4)

    def worker() -> None:
        barrier.wait()
        while batch := leases.claim_ready(QUEUE, "w", 3):
            claimed.extend(lease.step_id for lease in batch)
        connection.close()

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claimed) == sorted(Step.objects.values_list("pk", flat=True))


def test_the_last_of_concurrent_steps_settles_the_job():
    built = engine(kind("work", lambda context: Done()))
    jobs = [start(built, [StepSpec("work") for _ in range(30)]) for _ in range(3)]

    def worker() -> None:
        runner.drain(QUEUE, engine=built)
        connection.close()

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(Job.objects.filter(pk__in=[job.pk for job in jobs]).values_list("state", "open_steps")) == {
        ("succeeded", 0)
    }


def test_trouble_that_passes_is_retried_and_trouble_that_stays_fails(settings):
    settings.CPM_MAX_STEP_FAILURES = 3
    tries = {"passing": 0, "staying": 0}

    def passing(context):
        tries["passing"] += 1
        if tries["passing"] < 3:
            raise Passing("not now")
        return Done()

    def staying(context):
        tries["staying"] += 1
        raise Passing("never")

    built = engine(kind("passing", passing), kind("staying", staying))
    good, bad = start(built, [StepSpec("passing")]), start(built, [StepSpec("staying")])
    run_to_end(built, good)
    run_to_end(built, bad)

    assert (good.steps.get().state, tries["passing"]) == ("succeeded", 3)
    assert (bad.steps.get().state, tries["staying"]) == ("failed", 3)
    assert bad.steps.get().message == "never"


def test_what_is_made_once_is_made_once_though_the_worker_dies_after_the_call(settings):
    settings.CPM_AWS_LIST_LAG_SECONDS = 0
    made = []

    class Killed(BaseException):
        pass

    def create():
        made.append(f"thing-{len(made)}")
        raise Killed

    def work(context):
        token = context.once(create=create, find=lambda: list(made))
        return Done(message=token)

    built = engine(kind("work", work))
    job = start(built, [StepSpec("work")])
    with pytest.raises(Killed):
        run(built)
    lose_lease(Step.objects.get())
    run_to_end(built, job)

    assert made == ["thing-0"]
    assert Step.objects.get().token == "thing-0"


def test_an_interrupted_creation_waits_for_the_lists_of_aws_before_it_looks(settings):
    settings.CPM_AWS_LIST_LAG_SECONDS = 30
    looked = []
    built = engine(
        kind(
            "work",
            lambda context: Done(context.once(create=lambda: "new", find=lambda: looked.append(1) or [])),
        )
    )
    start(built, [StepSpec("work")])
    Step.objects.update(intent_at=timezone.now())

    run(built)

    step = Step.objects.get()
    assert (step.state, looked) == ("ready", [])
    assert timedelta(seconds=25) < step.not_before - timezone.now() <= timedelta(seconds=30)


def test_trouble_with_looking_does_not_make_an_interrupted_creation_forgotten(settings):
    settings.CPM_AWS_LIST_LAG_SECONDS = 0
    answers = [Passing("slow down"), ["old"]]

    def find():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    built = engine(kind("work", lambda context: Done(context.once(create=lambda: "new", find=find))))
    job = start(built, [StepSpec("work")])
    Step.objects.update(intent_at=timezone.now())

    run_to_end(built, job)

    assert Step.objects.get().token == "old"


def test_duplicates_of_an_interrupted_creation_are_discarded_and_the_oldest_is_kept(settings):
    settings.CPM_AWS_LIST_LAG_SECONDS = 0
    discarded = []
    built = engine(
        kind(
            "work",
            lambda context: Done(
                context.once(create=lambda: "new", find=lambda: ["old", "twin"], discard=discarded.append)
            ),
        )
    )
    job = start(built, [StepSpec("work")])
    Step.objects.update(intent_at=timezone.now())

    run_to_end(built, job)

    assert (Step.objects.get().token, discarded) == ("old", ["twin"])
    assert "twin" in LogLine.objects.get(level="Warning").message


def test_an_uninterrupted_creation_never_looks_up():
    built = engine(
        kind(
            "work",
            lambda context: Done(context.once(create=lambda: "new", find=lambda: pytest.fail("looked"))),
        )
    )
    job = start(built, [StepSpec("work")])

    run_to_end(built, job)

    assert Step.objects.get().token == "new"


def test_waiting_steps_of_one_group_are_polled_by_one_call():
    calls = []

    def poll(contexts):
        calls.append(len(contexts))
        return {context.step_id: Done() for context in contexts}

    built = engine(kind("watch", lambda context: Wait(0.0, group="a:b:c"), poll=poll))
    job = start(built, [StepSpec("watch") for _ in range(300)])

    run_to_end(built, job)

    assert calls == [300]


def test_a_group_poll_that_one_step_spoils_fails_only_that_step():
    def poll(contexts):
        return {
            context.step_id: ValueError("odd") if context.payload["n"] == 1 else Done()
            for context in contexts
        }

    built = engine(kind("watch", lambda context: Wait(0.0, group="g"), poll=poll))
    job = start(built, [StepSpec("watch", {"n": n}) for n in range(3)])

    run_to_end(built, job)

    assert dict(job.steps.values_list("payload__n", "state")) == {0: "succeeded", 1: "failed", 2: "succeeded"}


def test_slices_and_waits_are_not_taken_for_dead_workers():
    turns = runner.MOST_CRASHES + 5
    seen = []
    built = engine(
        kind("slice", lambda context: seen.append(1) or (Done() if len(seen) == turns else Wait(0.0)))
    )

    job = run_to_end(built, start(built, [StepSpec("slice")]))

    assert (job.state, len(seen)) == (JobState.SUCCEEDED, turns)


def test_a_group_whose_worker_died_is_polled_again_together():
    built = engine(
        kind("watch", lambda context: Wait(0.0, group="g"), poll=lambda cs: {c.step_id: Done() for c in cs})
    )
    job = start(built, [StepSpec("watch") for _ in range(5)])
    for lease in leases.claim_ready(QUEUE, "me", 5):
        runner.run_leases([lease], engine=built)
    dead = leases.claim_group("g", "dead", 100)
    for lease in dead:
        leases.keeper.release(lease)
    Step.objects.update(lease_until=timezone.now() - timedelta(seconds=1))

    sweeper.sweep(queues=[QUEUE])

    assert set(job.steps.values_list("state", flat=True)) == {StepState.WAITING}
    run_to_end(built, job)
    assert job.state == JobState.SUCCEEDED


def test_abort_cancels_open_steps_removes_what_they_made_and_still_takes_stock():
    removed, stock = [], []
    built = engine(
        kind(
            "work",
            lambda context: context.remember("made") and Wait(99.0),
            cancel=lambda c: removed.append(c.token),
        ),
        kind("never", lambda context: Done()),
        kind("stock", lambda context: stock.append(context.aborted) or Done()),
    )
    job = start(
        built,
        [
            StepSpec("work", key="w"),
            StepSpec("never", key="n", after=("w",)),
            StepSpec("stock", after=("w", "n"), run_if=RunIf.ALWAYS),
        ],
    )
    run(built)

    assert queue.request_abort(job.pk)
    assert not queue.request_abort(job.pk)
    run_to_end(built, job)

    assert (removed, stock) == (["made"], [True])
    assert job.state == JobState.CANCELLED


def test_a_job_past_its_deadline_fails_and_says_so():
    built = engine(kind("work", lambda context: Done()))
    job = start(built, [StepSpec("work")], deadline=timezone.now() - timedelta(seconds=1))

    run(built)

    assert job.steps.get().state == "failed"
    assert "time limit" in job.steps.get().message


def test_the_tick_offers_due_steps_once_until_the_offer_lapses(settings):
    settings.CPM_OFFER_SECONDS = 60
    built = engine(kind("work", lambda context: Done()))
    start(built, [StepSpec("work"), StepSpec("work")])
    Step.objects.update(offered_until=timezone.now() - timedelta(seconds=1))

    first, second = sweeper.sweep(queues=[QUEUE]), sweeper.sweep(queues=[QUEUE])

    assert (first.offered, second.offered) == (2, 0)


def test_the_secret_of_a_job_is_gone_when_the_job_is_over():
    seen = []
    built = engine(kind("work", lambda context: seen.append(context.job_secret()) or Done()))
    job = start(built, [StepSpec("work")], secret="sealed")

    run_to_end(built, job)

    assert (seen, job.secret) == (["sealed"], "")


def test_retrying_a_failed_job_repeats_what_failed_and_what_came_after_it():
    broken, seen = [True], []
    built = engine(
        kind("good", lambda context: seen.append("good") or Done()),
        kind("work", lambda context: Failed("no") if broken[0] else Done()),
        kind("next", lambda context: seen.append("next") or Done()),
        kind("stock", lambda context: seen.append("stock") or Done()),
    )
    job = start(
        built,
        [
            StepSpec("good", key="g"),
            StepSpec("work", key="w", after=("g",)),
            StepSpec("next", key="n", after=("w",)),
            StepSpec("stock", after=("g", "w", "n"), run_if=RunIf.ALWAYS),
        ],
    )
    run_to_end(built, job)
    broken[0] = False

    assert queue.retry_failed(job.pk) == 3
    run_to_end(built, job)

    assert job.state == JobState.SUCCEEDED
    assert seen == ["good", "stock", "next", "stock"]


def test_an_outcome_that_cannot_be_written_is_retried_and_fails_in_the_end(settings):
    settings.CPM_MAX_STEP_FAILURES = 3
    tries = []

    def write() -> None:
        tries.append(1)
        raise Passing("the record is broken")

    built = engine(kind("work", lambda context: context.remember("made") and Done(write=write)))
    job = start(built, [StepSpec("work")])

    run_to_end(built, job)

    assert (job.state, len(tries)) == (JobState.FAILED, 3)
    assert job.steps.get().message == "the record is broken"
