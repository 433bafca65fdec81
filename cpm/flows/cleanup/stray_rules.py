"""Which snapshots and images with our step tag are proven to be duplicates: the rules alone, without AWS and without rows.

A tag alone proves nothing: people copy tags, recovered volumes hand theirs down to foreign snapshots, and after the
loss of the database an id may name another step. So a thing must also look like what its step makes (place, time,
volume or name), and the step must have made another one that counts. What a step without a token has left is reported
and left alone, because nobody can say whether it is the only one.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, TypeAlias
from uuid import UUID

from cpm.flows import tags, whole
from cpm.models import Step

# EC2 cuts the time of an image to seconds, and its clock is not the database's.
CLOCKS_DIFFER = timedelta(minutes=1)
# Tags that a step's payload gives and nobody changes later.
LASTING = (tags.BACKUP, tags.SOURCE, tags.KIND)


class Verdict(Enum):
    """KEEP: it counts, or nothing is known against it. UNSURE: nothing names it, but it may be the only one."""

    KEEP = 1
    UNSURE = 2
    STRAY = 3


@dataclass(frozen=True, slots=True)
class Thing:
    """A snapshot or image as AWS shows it; `text` is a snapshot's description or an image's name, `kind` the type of what AWS
    snapshots as a whole, where `text` is the snapshot's name."""

    aws_id: str
    account: int
    region: str
    made: datetime
    text: str
    labels: Mapping[str, str] = field(repr=False)
    volume: str = ""
    snapshots: tuple[str, ...] = ()
    kind: str = ""

    @property
    def sort(self) -> str:
        return self.kind or self.aws_id.partition("-")[0]

    @property
    def step(self) -> int:
        """The step that its tag names; 0 for what is no number."""
        text = self.labels.get(tags.STEP, "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


Looks: TypeAlias = Callable[[Step, Thing], bool]


def _text(pattern: str) -> Looks:
    """Things whose description or name has this form; {step} stands for the id of the step."""
    return lambda step, thing: re.fullmatch(pattern.format(step=step.pk), thing.text, re.DOTALL) is not None


def _named(step: Step, thing: Thing) -> bool:
    return thing.text == f"{step.payload['name']}-{step.pk}"


def _of_volume(step: Step, thing: Thing) -> bool:
    return bool(thing.volume == step.payload["volume"])


def _of_planned_volume(step: Step, thing: Thing) -> bool:
    return thing.volume in step.payload["snapshots"]


def _of_whole(step: Step, thing: Thing) -> bool:
    payload = step.payload
    given = payload["tags"]
    server, backup = UUID(given[tags.SERVER]), int(given[tags.BACKUP])
    return bool(
        payload["type"] == thing.kind and thing.text == whole.name_of(server, given[tags.POLICY], backup, step.pk)
    )


# Names of images are unique in an account and region, so two of one step never live at the same time.
SNAPSHOTS: Mapping[str, Looks] = {
    "backup.start_volume": _of_volume,
    "backup.start_instance": _of_planned_volume,
    "backup.start_unless_vss": _of_planned_volume,
    "dr.copy_snapshot": _text(r"CPM DR copy of snap-\w+ \(.*\)"),
    "recover.copy": _text(r"CPM recovery \d+: temporary copy of snap-\w+"),
    "recover.s3_write": _text(r"CPM recovery \d+: \S+ from S3"),
    "server.store": _text(r"The database of a CPM server \(cpmdata\)"),
}
IMAGES: Mapping[str, Looks] = {
    "backup.start_image": _named,
    "dr.copy_image": _text(r"CPM-DR-ami-\w+-{step}"),
    "recover.image": _text(r"CPM-recovery-\d+-{step}-\w+"),
    "recover.copy_image": _text(r"CPM-recovery-\d+-{step}-\w+"),
}
WHOLE: Mapping[str, Looks] = {"backup.start_whole": _of_whole}
BY_VOLUME = frozenset({"backup.start_volume", "backup.start_instance", "backup.start_unless_vss"})


def judge(thing: Thing, step: Step | None, *, now: datetime, settled: timedelta) -> Verdict:
    """The verdict on a thing by its step alone; whether a record names it is the caller's to ask.

    `settled` has passed since thing and step: then a worker that was still at it, a list that lagged and a record that
    was about to be written are all over.
    """
    if step is None or step.finished_at is None or max(step.finished_at, thing.made) > now - settled:
        return Verdict.KEEP
    if not made_by(step, thing) or thing.aws_id in json.dumps(step.token):
        return Verdict.KEEP
    return Verdict.STRAY if counted(step, thing) else Verdict.UNSURE


def made_by(step: Step, thing: Thing) -> bool:
    """Whether a thing with the tag of a step is what such a step makes, in its place and since it began."""
    payload = step.payload
    looks = (WHOLE if thing.kind else IMAGES if thing.sort == "ami" else SNAPSHOTS).get(step.kind)
    if looks is None or step.started_at is None or thing.made < step.started_at - CLOCKS_DIFFER:
        return False
    if (payload.get("account"), payload.get("region")) != (thing.account, thing.region):
        return False
    given: Mapping[str, str] = payload.get("tags", {})
    return all(thing.labels.get(key) == given[key] for key in LASTING if key in given) and looks(step, thing)


def counted(step: Step, thing: Thing) -> str:
    """What the step has made and remembered in the place of this thing; empty if there is none."""
    token: Any = step.token
    if thing.kind:
        return token if isinstance(token, str) else ""
    if step.kind in BY_VOLUME:
        token = token.get(thing.volume) if isinstance(token, dict) else None
    found = re.search(rf"\b{thing.sort}-\w+", json.dumps(token))
    return found.group() if found else ""
