"""Running claimed steps: calls their handlers, writes the outcome, and survives whatever they raise.

The only place with a bare `except Exception`.
"""

import os
import random
import socket
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import InterfaceError, InternalError, OperationalError, connection, transaction

from cpm.jobs import leases, queue
from cpm.jobs.context import NotYet, StepContext
from cpm.jobs.kinds import Done, Engine, Failed, Outcome, StepKind, Verdict, Wait
from cpm.lib.states import RunIf, StepState
from cpm.models import Step

log = structlog.get_logger(__name__)

LARGEST_BATCH = 16
QUICK_SECONDS = 0.02
GROUP_LIMIT = 1000
DRAIN_SECONDS = 10.0
MOST_CRASHES = 25

# InternalError is what a session gets that PostgreSQL has ended in an idle transaction (cpm.jobs.sessions).
DATABASE_GONE = (OperationalError, InterfaceError, InternalError)


def owner_name() -> str:
    """Names this process in `lease_owner`."""
    return f"{socket.gethostname()}:{os.getpid()}"


def run_message(step_id: int, *, engine: Engine, queue_name: str, budget: float = DRAIN_SECONDS) -> int:
    """Run the step of a message, then further due steps of the queue that it came by; returns how many ran.

    A step that has moved to another queue since then is left to the workers of that one. Stops after about `budget`
    seconds; if more is due then, another message is sent for it.
    """
    leases.keeper.start()
    claimed = leases.claim_one(step_id, queue_name, owner_name())
    return run_leases(claimed, engine=engine) + drain(queue_name, engine=engine, budget=budget)


def drain(queue_name: str, *, engine: Engine, budget: float = DRAIN_SECONDS) -> int:
    """Run due steps of a queue until there are none or the time is up; returns how many ran."""
    owner, ran, size = owner_name(), 0, 1
    ends = time.monotonic() + budget
    while True:
        batch = leases.claim_ready(queue_name, owner, size)
        if not batch:
            group = leases.due_group(queue_name)
            batch = leases.claim_group(group, owner, GROUP_LIMIT) if group else []
        if not batch:
            return ran
        began = time.monotonic()
        ran += run_leases(batch, engine=engine)
        quick = (time.monotonic() - began) / len(batch) < QUICK_SECONDS
        # Quick steps are claimed in growing batches; slow ones singly, so that other workers get the rest.
        size = min(size * 2, LARGEST_BATCH) if quick else 1
        if time.monotonic() > ends:
            _pass_on(queue_name)
            return ran


def run_leases(batch: Sequence[leases.Lease], *, engine: Engine) -> int:
    """Run claimed steps; those of one kind that wait for AWS are polled together. Returns how many."""
    try:
        _run_batch(batch, engine)
    finally:
        # Whatever went wrong: a lease that is renewed for ever could be taken over by nobody.
        for lease in batch:
            leases.keeper.release(lease)
    return len(batch)


def _run_batch(batch: Sequence[leases.Lease], engine: Engine) -> None:
    polls: dict[str, list[StepContext]] = defaultdict(list)
    for lease in batch:
        context = StepContext(lease)
        kind = engine.kinds.get(lease.kind)
        try:
            if kind is None:
                _write(
                    context, Failed(f"This server does not know steps of kind {lease.kind}."), None, engine
                )
            elif not _stopped(context, kind, engine):
                if kind.poll is not None and lease.poll_group:
                    polls[kind.name].append(context)
                    continue
                _conclude(context, _attempt(context, kind, engine), kind, engine)
        except leases.LeaseLost:
            log.info("lease lost", step=lease.step_id)
            _overtaken(context, kind)
        leases.keeper.release(lease)
    for name, contexts in polls.items():
        _poll(contexts, engine.kinds[name], engine)


def _overtaken(context: StepContext, kind: StepKind | None) -> None:
    if kind is None or kind.overtaken is None:
        return
    try:
        kind.overtaken(context)
    except DATABASE_GONE:
        raise
    except Exception:
        log.exception("late work not taken back", step=context.step_id)


def _attempt(context: StepContext, kind: StepKind, engine: Engine) -> Outcome:
    if context.lease.attempts - context.lease.failures > MOST_CRASHES and context.token is None:
        return Failed(f"Given up: the worker died {MOST_CRASHES} times in this step.")
    log.debug("step begins", step=context.step_id, kind=kind.name, attempt=context.lease.attempts)
    try:
        return kind.run(context)
    except Exception as error:  # noqa: BLE001 (whatever a handler raises ends its step, not the worker)
        return _outcome_of(error, context, engine)


def _poll(contexts: list[StepContext], kind: StepKind, engine: Engine) -> None:
    assert kind.poll is not None
    try:
        answers: dict[int, Any] = dict(kind.poll(contexts))
    except leases.LeaseLost:
        answers = {}
    except DATABASE_GONE:
        raise
    except Exception as error:  # noqa: BLE001 (whatever a handler raises ends its step, not the worker)
        answers = {context.step_id: error for context in contexts}
    for context in contexts:
        try:
            answer = answers.get(context.step_id, Wait(settings.CPM_POLL_SECONDS))
            if isinstance(answer, Exception):
                answer = _outcome_of(answer, context, engine)
            _conclude(context, answer, kind, engine)
        except leases.LeaseLost:
            log.info("lease lost", step=context.step_id)
        finally:
            leases.keeper.release(context.lease)


def _outcome_of(error: Exception, context: StepContext, engine: Engine) -> Outcome:
    """What an exception means for the step: a wait, a retry with back-off, or the end."""
    if isinstance(error, (leases.LeaseLost, *DATABASE_GONE)):
        raise error
    if isinstance(error, NotYet):
        return error.wait
    verdict = engine.classify(error)
    if verdict.definite:
        context.forget_intent()
    else:
        context.still_unsure()
    log.warning("step raised", step=context.step_id, kind=context.lease.kind, error=verdict.message)
    if verdict.retry and context.lease.failures + 1 < settings.CPM_MAX_STEP_FAILURES:
        return _retry(context, verdict)
    return Failed(verdict.message)


def _retry(context: StepContext, verdict: Verdict) -> Wait:
    if verdict.counts:
        context.lease.failures += 1
    base = settings.CPM_RETRY_BASE_SECONDS
    seconds = verdict.retry_after or base * 2 ** min(context.lease.failures, 6) * random.uniform(0.5, 1)
    context.warn(f"{verdict.message} Trying again in {seconds:.0f} s.")
    return Wait(seconds, message=verdict.message)


def _stopped(context: StepContext, kind: StepKind, engine: Engine) -> bool:
    """Cancel the step if its job was aborted or ran out of time; True if that settled it."""
    lease = context.lease
    if lease.run_if is RunIf.ALWAYS or not (lease.aborted or lease.timed_out):
        return False
    if kind.cancel is not None:
        try:
            kind.cancel(context)
        except Exception as error:  # noqa: BLE001 (whatever a handler raises ends its step, not the worker)
            outcome = _outcome_of(error, context, engine)
            if isinstance(outcome, Wait):
                _write(context, outcome, kind, engine)
                return True
            context.error(f"Could not remove what was made before the stop: {outcome}")
    if lease.aborted:
        _end(context, StepState.CANCELLED, "Aborted.", kind, None)
    else:
        _write(context, Failed("The time limit of the operation has passed."), kind, engine)
    return True


def _conclude(context: StepContext, outcome: Outcome, kind: StepKind, engine: Engine) -> None:
    """Write the outcome. If the flow's own part of the writing raises, the step is retried or fails for that."""
    try:
        _write(context, outcome, kind, engine)
    except (leases.LeaseLost, *DATABASE_GONE):
        raise
    except Exception as error:
        log.exception("outcome not written", step=context.step_id, kind=kind.name)
        instead = _outcome_of(error, context, engine)
        # A step that fails although its hook raises again must not be tried for ever.
        hooks = kind if isinstance(instead, Wait) or not isinstance(outcome, Failed) else None
        _write(context, instead, hooks, engine)


def _write(context: StepContext, outcome: Outcome, kind: StepKind | None, engine: Engine) -> None:
    log.debug("step ends", step=context.step_id, outcome=type(outcome).__name__, message=outcome.message)
    match outcome:
        case Done():
            _end(context, StepState.SUCCEEDED, outcome.message, kind, outcome, engine)
        case Failed():
            context.error(outcome.message)
            _end(context, StepState.FAILED, outcome.message, kind, outcome)
        case Wait():
            with transaction.atomic():
                if outcome.write is not None:
                    outcome.write()
                leases.guarded(
                    context.lease,
                    # What a step has waited for says nothing of dead workers: only crashes in a row are counted.
                    "state = %s, not_before = %s, poll_group = %s, failures = %s, attempts = %s,"
                    " progress = coalesce(%s, progress), message = %s, lease_owner = '', lease_until = NULL,"
                    " offered_until = now()",
                    [
                        StepState.WAITING if outcome.group or context.token is not None else StepState.READY,
                        # Counted from the claim: steps polled together stay together however long writing takes.
                        context.now + timedelta(seconds=outcome.seconds),
                        outcome.group,
                        context.lease.failures,
                        context.lease.failures,
                        outcome.progress,
                        outcome.message,
                    ],
                )
                context.flush_log()


def _end(
    context: StepContext,
    state: StepState,
    message: str,
    kind: StepKind | None,
    outcome: Done | Failed | None,
    engine: Engine | None = None,
) -> None:
    with transaction.atomic():
        if outcome is not None and outcome.write is not None:
            outcome.write()
        if kind is not None and state is StepState.FAILED and kind.failed is not None:
            kind.failed(context, message)
        if kind is not None and state is StepState.CANCELLED and kind.cancelled is not None:
            kind.cancelled(context)
        if isinstance(outcome, Done) and outcome.then and engine is not None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM cpm_job WHERE id = %s FOR UPDATE", [context.job_id])
            queue.add_steps(context.job_id, outcome.then, engine=engine)
        ready = leases.finish(context.lease, state, message)
        context.flush_log()
        queue.offer(ready)


def _pass_on(queue_name: str) -> None:
    due = (
        Step.objects.filter(queue=queue_name, state=StepState.READY, pending_after=0)
        .order_by("not_before")
        .values_list("queue", "id")[:1]
    )
    queue.offer(list(due))
