"""Removing strays of types that AWS snapshots as a whole, where AWS makes a second snapshot of the same name.

The proof is that of `strays`: an hour has passed, the step remembers another one, and no record names this one. What names
tell stands in for tags where AWS takes none.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice

from cpm.aws.errors import AwsError, NotFound
from cpm.aws.gateway import AwsClient, client
from cpm.flows import tags, whole
from cpm.flows.cleanup import stray_rules, strays
from cpm.flows.cleanup.stray_rules import Thing
from cpm.flows.identities import identity_of
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec, Wait
from cpm.models import Account, ServerSettings, Step
from cpm.resources.registry import WHOLE, WHOLE_BY_KEY
from cpm.resources.whole import Held, Listed, WholeResource

STEP = "strays.remove_whole"
TYPES = frozenset(kind.key for kind in WHOLE if kind.names_repeat)
"""The types that are looked at."""


def steps(account: Account, places: Sequence[tuple[str, str]], *, not_before: datetime) -> list[StepSpec]:
    """Steps that look through these regions for strays of these types, given as pairs."""
    return [
        StepSpec(STEP, {"account": account.pk, "region": region, "type": key}, not_before=not_before)
        for region, key in places
    ]


def remove(context: StepContext) -> Outcome:
    """Look through the region and remove the proven duplicates. Fails with AWS's words if it may not look or delete."""
    account = Account.objects.filter(pk=context.payload["account"]).first()
    if account is None:
        return Done("The account is gone.")
    kind = WHOLE_BY_KEY[context.payload["type"]]
    identity = identity_of(account, session=f"cpm-job-{context.job_id}")
    aws = client(identity, kind.snapshots_in, context.payload["region"])
    problems: list[str] = []
    found = kind.listed(aws)
    while batch := list(islice(found, strays.BATCH)):
        if context.refresh_aborted():
            return Wait(0.0, message="Stopping.")
        context.progress(0, f"Looked at {batch[-1].aws_id}.")
        by_id = {one.aws_id: one for one in batch}
        things = [thing_of(kind, one, account, aws.region) for one in batch]
        for thing, step in strays.unneeded(context, things):
            problems += _remove(context, aws, kind, account, by_id[thing.aws_id], step, thing)
    if problems:
        return Failed(f"{len(problems)} duplicates could not be removed. " + " ".join(problems[:5]))
    return Done()


def thing_of(kind: WholeResource, one: Listed, account: Account, region: str) -> Thing:
    """A snapshot as the rules take it; without labels, so that nothing is proven, if it is not of this server."""
    server = ServerSettings.current().server_id
    labels = whole.labels_of(kind, one, server)
    ours = labels.get(tags.SERVER) == str(server) and tags.OUTDATED not in labels
    return Thing(one.aws_id, account.pk, region, one.made, one.name, labels if ours else {}, kind=kind.key)


def _remove(
    context: StepContext, aws: AwsClient, kind: WholeResource, account: Account, one: Listed, step: Step, thing: Thing
) -> list[str]:
    """Write down what goes and why, and remove it; returns what went wrong. Absent is as good as removed."""
    held = Held(one.aws_id, one.source_id, aws.region, account.account_number, {**one.details, **one.shown.details})
    counted = stray_rules.counted(step, thing)
    made = f"an interrupted attempt of step {step.pk} ({step.kind}) made it beside {counted}, and no record names it."
    try:
        with suppress(NotFound):
            if not account.is_dr_account or account.allow_deleting_snapshots:
                context.log(f"Removing {one.aws_id} of account {account.name}: {made}")
                kind.delete(aws, held)
            elif not kind.mark_outdated(aws, held, tags.OUTDATED):
                context.warn(f"{one.aws_id} of account {account.name} stays, where nothing may be deleted: {made}")
    except AwsError as error:
        if error.transient:
            raise
        return [f"{one.aws_id}: {error.explain()}"]
    return []


KINDS = (StepKind(STEP, strays.QUEUE, remove),)
