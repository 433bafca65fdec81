"""What a slice has done, in a form that is added up over slices and stored as JSON between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from cpm.s3_sync.errors import VANISHED

FIRST = 20
"""So many keys of each trouble are remembered; of the rest only the number."""


@dataclass(slots=True)
class Trouble:
    """How many objects had one kind of trouble, and the first of them: key and text."""

    count: int = 0
    first: list[list[str]] = field(default_factory=list)

    def add(self, key: str, text: str = "") -> None:
        self.count += 1
        if len(self.first) < FIRST:
            self.first.append([key, text])

    def __add__(self, other: "Trouble") -> "Trouble":
        return Trouble(self.count + other.count, (self.first + other.first)[:FIRST])


@dataclass(slots=True)
class Counts:
    """``copied``, ``copied_bytes``, ``deleted`` and the calls count what was done. The rest counts objects before the
    cursor only, so that nothing is counted twice when the next slice begins there. ``kept`` are those that were left
    alone, ``seen`` is all names of both sides; ``untagged`` were copied without their tags, because rights were lacking; ``skipped`` go by reason."""

    list_calls: int = 0
    copied: int = 0
    copied_bytes: int = 0
    deleted: int = 0
    untagged: int = 0
    kept: int = 0
    seen: int = 0
    failed: Trouble = field(default_factory=Trouble)
    skipped: dict[str, Trouble] = field(default_factory=dict)

    def __add__(self, other: "Counts") -> "Counts":
        total = Counts()
        for one in fields(Counts):
            if one.name != "skipped":
                setattr(total, one.name, getattr(self, one.name) + getattr(other, one.name))
        for reason in {**self.skipped, **other.skipped}:
            total.skipped[reason] = self.skipped.get(reason, Trouble()) + other.skipped.get(reason, Trouble())
        return total

    @property
    def complete(self) -> bool:
        """Whether the mirror has all that the source has, as far as these slices went."""
        return not self.failed.count and not any(
            trouble.count for reason, trouble in self.skipped.items() if reason != VANISHED
        )

    def stored(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in _PLAIN}
        skipped = {reason: _plain(trouble) for reason, trouble in self.skipped.items()}
        return {**plain, "failed": _plain(self.failed), "skipped": skipped}

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> Self:
        skipped = {reason: Trouble(**each) for reason, each in stored.get("skipped", {}).items()}
        plain = {name: int(stored.get(name, 0)) for name in _PLAIN}
        return cls(**plain, failed=Trouble(**stored.get("failed", {})), skipped=skipped)


_PLAIN = tuple(one.name for one in fields(Counts) if one.name not in ("failed", "skipped"))


def _plain(trouble: Trouble) -> dict[str, Any]:
    return {"count": trouble.count, "first": trouble.first}
