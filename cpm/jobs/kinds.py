"""What a step can be and how it can end: the vocabulary between the runner and the flows.

A step *kind* names the functions that do its work. `run` starts (or resumes) the work and returns an
outcome; `poll` asks about many waiting steps of one group at once; `cancel` removes what a step has made
when its job is aborted. Nothing in here sleeps or waits: an outcome says when to look again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from cpm.lib.states import RunIf

Write: TypeAlias = Callable[[], None]


@dataclass(frozen=True, slots=True)
class StepSpec:
    """A step to be made. `after` names the keys of steps in the same list, or the ids of steps of the job.

    `place` (`cpm.lib.places.at`) is where a step of queue "s3" would best run: it goes to a worker of that account and
    region while one lives, else to any.
    """

    kind: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    after: tuple[str | int, ...] = ()
    run_if: RunIf = RunIf.SUCCESS
    not_before: datetime | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The step has succeeded. `write` and the new steps of `then` are committed together with that."""

    message: str = ""
    then: Sequence[StepSpec] = ()
    write: Write | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for `seconds`. Steps of one `group` are polled together; empty means alone, by `run`."""

    seconds: float
    group: str = ""
    progress: int | None = None
    message: str = ""
    write: Write | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The step has failed for good; `message` tells an operator why."""

    message: str
    write: Write | None = None


Outcome: TypeAlias = Done | Wait | Failed


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the runner treats an exception. `definite` means that AWS (or whoever) surely did nothing."""

    message: str
    retry: bool
    definite: bool = True
    retry_after: float | None = None
    counts: bool = True


@dataclass(frozen=True, slots=True)
class StepKind:
    """The functions behind a step kind, and the queue that its messages go to.

    `run` starts or resumes the work. Once it has answered `Wait(group=...)`, `poll` takes over: it gets all due
    steps of that group and answers for each step id; a step that it leaves out is asked about again later.
    `cancel` removes what the step may have made, also when it has made nothing; it may run again.
    `overtaken` runs in a worker that learns, after its work, that the lease was lost: it takes back what a successor
    could not know of. `failed` runs in the transaction that makes the step FAILED, `cancelled` in the one that makes it CANCELLED.
    """

    name: str
    queue: str
    run: Callable[[Any], Outcome]
    poll: Callable[[Sequence[Any]], Mapping[int, Outcome | Exception]] | None = None
    cancel: Callable[[Any], None] | None = None
    failed: Callable[[Any, str], None] | None = None
    cancelled: Callable[[Any], None] | None = None
    overtaken: Callable[[Any], None] | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """The explicit table of step kinds together with the rule that turns an exception into a verdict."""

    kinds: Mapping[str, StepKind]
    classify: Callable[[Exception], Verdict]


def table(*kinds: StepKind) -> dict[str, StepKind]:
    """The kinds by name; raises ValueError for a name that stands twice."""
    by_name = {kind.name: kind for kind in kinds}
    if len(by_name) != len(kinds):
        raise ValueError("a step kind is listed twice")
    return by_name
