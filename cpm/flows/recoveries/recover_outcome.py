"""What came of a recovery, read from its steps: which resources came back, and what went wrong."""

from dataclasses import dataclass, field

from cpm.flows.recoveries.recover_base import recovery_of
from cpm.flows.s3.restore_plan import FILES, LOAD
from cpm.jobs.context import StepContext
from cpm.lib.states import RecoveryType, StepState
from cpm.models import Step

ENDING = ("recover.clean", "recover.finish")


@dataclass(slots=True)
class Outcome:
    """`came` are the ids of recovered resources; `undo` says that all of it is to be removed again."""

    wanted: int
    original: str
    undo: bool
    came: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return len(self.came) >= self.wanted and not self.problems


def read(context: StepContext) -> Outcome:
    """The outcome as it stands. Once cleaning up has begun, its decision whether to undo everything holds."""
    recovery = recovery_of(context)
    everything = list(Step.objects.filter(job_id=context.job_id).order_by("id"))
    steps = [step for step in everything if step.kind not in ENDING]
    unfinished = any(step.state != StepState.SUCCEEDED for step in steps)
    decided = next((step.token for step in everything if step.kind == "recover.clean" and step.token), None)
    undo = decided["undo"] if decided else context.aborted and unfinished
    outcome = Outcome(
        wanted=recovery.request.get("num_instances_to_recover", 1),
        original=recovery.snapshot.source_id if recovery.snapshot else "",
        undo=undo,
        problems=[
            *(step.message for step in steps if step.state == StepState.FAILED),
            *(words for step in steps for words in step.payload.get("missing", ())),
        ],
        steps=steps,
    )
    if not undo:
        ways = {RecoveryType.INSTANCE: _instances, RecoveryType.VOLUME: lambda steps: _tokens(steps, "recover.volume")}
        of_type = _from_files if recovery.from_s3 else _whole
        outcome.came = ways.get(RecoveryType(recovery.recovery_type), of_type)(steps)
        if recovery.request.get("ami_handling") == "O":
            outcome.wanted, outcome.came = 1, _tokens(steps, "recover.image")
    return outcome


def _tokens(steps: list[Step], kind: str) -> list[str]:
    return [str(step.token) for step in steps if step.kind == kind and step.state == StepState.SUCCEEDED]


def _whole(steps: list[Step]) -> list[str]:
    """The resource that was asked for, if it is there; what belongs to it may still be missing."""
    first = next((step for step in steps if step.kind == "recover.whole"), None)
    if first is None or first.state != StepState.SUCCEEDED:
        return []
    return [str((first.cursor or {}).get("id") or first.token)]


def _from_files(steps: list[Step]) -> list[str]:
    """Where the files of an exported database are, or the database that has their rows."""
    return [str(step.token) for step in steps if step.kind in (FILES, LOAD) and step.state == StepState.SUCCEEDED]


def _instances(steps: list[Step]) -> list[str]:
    """Instances that run from the backup's root volume."""
    up = next((step for step in steps if step.kind == "recover.up"), None)
    launched = (up.token if up else None) or []
    roots = {
        step.payload["instance"]["number"]: step.state == StepState.SUCCEEDED
        for step in steps
        if step.kind == "recover.attach" and step.payload.get("root")
    }
    return [one["id"] for number, one in enumerate(launched) if one["up"] and roots.get(number, True)]
