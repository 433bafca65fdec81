"""Which backups have outlived their policy's generations. Pure: no Django, no clock.

The rule (see DESIGN.md, "Retention"): only *clean* backups count, that is successful ones whose DR copies, if any
were due, are complete too. The newest `generations` clean backups are kept, and so is everything newer than the
oldest of them, whatever its outcome. What is older goes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backup as retention sees it. `held` means that something still needs it (it runs, is copied or recovered)."""

    id: int
    start: datetime
    clean: bool
    live: bool = True
    held: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """`expired` ids, oldest first; `stuck_since` is when unclean runs began to keep retention from working."""

    expired: tuple[int, ...]
    stuck_since: datetime | None


def judge(candidates: Iterable[Candidate], generations: int) -> Verdict:
    """Apply the rule to the backups of one policy; frozen ones must not be among them.

    Raises ValueError for fewer than one generation: that would delete the only copy.
    """
    if generations < 1:
        raise ValueError("a policy keeps at least one generation")
    newest_first = sorted(candidates, key=lambda c: (c.start, c.id), reverse=True)
    clean = [candidate for candidate in newest_first if candidate.clean]
    if len(clean) < generations:
        return Verdict((), _stuck_since(newest_first, generations))
    boundary = clean[generations - 1]
    old = [c for c in newest_first if (c.start, c.id) < (boundary.start, boundary.id) and not c.held]
    kept = [c for c in newest_first if (c.start, c.id) >= (boundary.start, boundary.id)]
    return Verdict(tuple(c.id for c in reversed(old)), _stuck_since(kept, generations))


def _stuck_since(kept: list[Candidate], generations: int) -> datetime | None:
    """When the unclean runs began, once there are as many live backups too many as there are generations."""
    live = [candidate for candidate in kept if candidate.live]
    unclean = []
    for candidate in live:
        if candidate.clean:
            break
        if not candidate.held:
            unclean.append(candidate)
    return unclean[-1].start if unclean and len(live) > generations and len(unclean) >= generations else None
