"""The last step of a recovery: its record gets status, ids, words and end time, whatever happened before."""

from collections.abc import Sequence

from cpm.flows.recoveries import recover_outcome
from cpm.flows.recoveries.recover_base import QUEUE, SUBJECT, recovery_of
from cpm.flows.s3 import restore_plan, restore_record
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind, StepSpec
from cpm.lib.states import CopyStatus, RecoveryStatus, RunIf, StepState
from cpm.models import LogLine, Policy, Recovery, Step


def ends(specs: Sequence[StepSpec]) -> list[StepSpec]:
    """The two steps that end every recovery, after all others and however those end."""
    keys = tuple(spec.key for spec in specs)
    return [
        StepSpec("recover.clean", key="clean", after=keys, run_if=RunIf.ALWAYS),
        StepSpec("recover.finish", key="finish", after=(*keys, "clean"), run_if=RunIf.ALWAYS),
    ]


def finish(context: StepContext) -> Outcome:
    """Settle the record from what the steps have done."""
    found = recover_outcome.read(context)
    cleaned = Step.objects.filter(job_id=context.job_id, kind="recover.clean").first()
    left = cleaned.message if cleaned and cleaned.state == StepState.FAILED else ""
    status, words = _words(found)

    def write() -> None:
        context.log(words, {"R": "Info", "A": "Warning"}.get(status, "Error"))
        ids = ",".join(f"{one} (original: {found.original})" for one in found.came)
        _settle(context, status, " ".join(filter(None, (words, left))), ids)
        _settle_s3(context, found.steps)

    return Done(write=write)


def _words(found: recover_outcome.Outcome) -> tuple[RecoveryStatus, str]:
    why = " ".join(dict.fromkeys(found.problems))
    if found.undo:
        return RecoveryStatus.FAILED, "Aborted; what had been made was removed."
    if found.complete:
        return RecoveryStatus.SUCCESSFUL, f"Recovered {', '.join(found.came)}."
    if found.came:
        return RecoveryStatus.PARTIAL, (
            f"Recovered {', '.join(found.came)} ({len(found.came)} of {found.wanted}), but not everything went well. {why}"
        ).strip()
    return RecoveryStatus.FAILED, f"Nothing was recovered. {why}".strip()


def _settle(context: StepContext, status: RecoveryStatus, words: str, ids: str = "") -> None:
    recovery = recovery_of(context)
    Recovery.objects.filter(pk=recovery.pk).update(
        status=status, end_time=context.now, outcome=words, recovered_resource_ids=ids
    )
    if ids and recovery.policy_id is not None:
        field = "last_dr_recovery_time" if recovery.from_dr else "last_recovery_time"
        Policy.objects.filter(pk=recovery.policy_id).update(**{field: context.now})


def _settle_s3(context: StepContext, steps: Sequence[Step]) -> None:
    """What became of the transfers from S3, if there were any."""
    for what, kinds in (("s3", restore_plan.READS), ("retrieve", (restore_plan.RETRIEVE,))):
        of_kind = [step for step in steps if step.kind in kinds]
        if of_kind:
            came = restore_record.outcome(of_kind, aborted=context.aborted)
            Recovery.objects.filter(pk=context.subject_id).update(**{f"{what}_status": came})


def plan_failed(context: StepContext, message: str) -> None:
    """Nothing could be planned, so nothing was made."""
    Recovery.objects.filter(pk=context.subject_id, from_s3=True).update(s3_status=CopyStatus.FAILED)
    _settle(context, RecoveryStatus.FAILED, f"Nothing was recovered. {message}")


def plan_cancelled(context: StepContext) -> None:
    Recovery.objects.filter(pk=context.subject_id, from_s3=True).update(s3_status=CopyStatus.ABORTED)
    _settle(context, RecoveryStatus.FAILED, "Aborted before anything was made.")
    LogLine.objects.create(
        subject_type=SUBJECT, subject_id=context.subject_id, level="Warning", message="The recovery was aborted."
    )


KINDS = (StepKind("recover.finish", QUEUE, finish),)
