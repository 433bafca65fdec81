"""Which objects a mirror must copy or delete: two lists, read side by side in constant memory.

What is changed is decided from the lists alone:

- Sizes differ: changed.
- The copy is not younger than its source: changed. S3 dates a copy when it begins, and what is copied is the version
  that was listed (its ETag is a condition of the copy). So a copy of the present version is never older than it. Both
  dates are S3's own, not those of any machine of ours, and are cut to seconds; within the same second nobody can tell
  which came first, and copying once too often does no harm.
- The ETag proves nothing: it depends on the parts of an upload and on the encryption, which differ for a true copy. One
  thing it does tell: a dash stands in the ETag of what was uploaded in parts, and S3 dates that to the *beginning* of
  its upload. Such an object may have appeared after a copy of its predecessor that looks younger. So it counts as
  changed until its copy is younger by ``longest_upload``; it may be copied again meanwhile, but is not missed.

Tags and rights of an object can change without a new date; such changes alone are not noticed.

What is left out: a version of equal size whose upload in parts took longer than that and enclosed the copy of its
predecessor. Only a request per object could find it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from cpm.s3_sync.buckets import Listed

LONGEST_UPLOAD = timedelta(hours=1)


class Action(Enum):
    KEEP = "keep"
    COPY = "copy"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about one name. ``source`` is None for what only the destination has."""

    name: str
    action: Action
    source: Listed | None


Named = tuple[str, Listed]


def decisions(
    source: Iterator[Named], destination: Iterator[Named], *, delete_extra: bool, longest_upload: timedelta
) -> Iterator[Decision]:
    """One decision for every name, in order. Both sides come in order of name.

    A name counts as extra only when the source's list has gone past it or has come to its end, which are both proven by
    pages that S3 gave. A list that fails raises here, and what it would have shown is not decided. A source that is
    truly empty empties its mirror.
    """
    ours, theirs = next(source, None), next(destination, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and ours[0] < theirs[0]):
            assert ours is not None
            yield Decision(ours[0], Action.COPY, ours[1])
            ours = next(source, None)
        elif ours is None or theirs[0] < ours[0]:
            # The empty name is the folder of the mirror itself, which some consoles make an object of.
            extra = delete_extra and theirs[0] != ""
            yield Decision(theirs[0], Action.DELETE if extra else Action.KEEP, None)
            theirs = next(destination, None)
        else:
            changed = is_changed(ours[1], theirs[1], longest_upload)
            yield Decision(ours[0], Action.COPY if changed else Action.KEEP, ours[1])
            ours, theirs = next(source, None), next(destination, None)


def is_changed(source: Listed, copy: Listed, longest_upload: timedelta = LONGEST_UPLOAD) -> bool:
    """Whether ``copy`` may be of another version than ``source``; the reasons are above."""
    if source.size != copy.size:
        return True
    uncertain = longest_upload if "-" in source.etag else timedelta()
    return copy.modified <= source.modified + uncertain
