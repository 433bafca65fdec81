"""Copies of large objects, part by part: in parallel, given up halfway, found again and continued by whoever comes next.

Nothing is stored about an unfinished copy but the upload itself. Its parts tell which version of the source they are of:
their size is `usual_part` and a bit more, and the bit is drawn from the source's bucket, key, ETag, date and size. So parts
of an older version, or of a stranger's upload to the same key, do not fit and are not taken; the upload that they belong
to is aborted, because S3 keeps and charges it for ever else, and a key of a mirror belongs to the mirror.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cpm.aws.errors import AwsError, NotFound
from cpm.aws.parallel import Parallel
from cpm.aws.s3_copies import Origin, Part, S3Copies, Upload
from cpm.s3_sync.buckets import Listed, Stop
from cpm.s3_sync.errors import Interrupted

MIB = 1024 * 1024
MOST_PARTS = 10_000
LARGEST_AT_ONCE = 5 * 1024 * MIB
"""What CopyObject takes."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Objects above ``at_once`` are copied in parts. S3 would copy five times as much in one call, but not in a time in
    which a connection stays silent; parts also let a slice end. ``spread`` bounds what identifies a version."""

    at_once: int = 1024 * MIB
    usual_part: int = 256 * MIB
    spread: int = MIB
    parts_at_once: int = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """Where an object is cut."""

    size: int
    part: int

    @property
    def numbers(self) -> range:
        return range(1, -(-self.size // self.part) + 1)

    def start(self, number: int) -> int:
        return (number - 1) * self.part

    def length(self, number: int) -> int:
        return min(self.part, self.size - self.start(number))


def plan(bucket: str, source: Listed, sizes: Sizes) -> Plan:
    version = repr((bucket, source.key, source.etag, source.modified.timestamp(), source.size))
    drawn = int.from_bytes(hashlib.sha256(version.encode()).digest()[:8], "big") % sizes.spread
    usual = max(sizes.usual_part, -(-source.size // MOST_PARTS))
    return Plan(source.size, usual + drawn)


class LargeCopy:
    """One object on its way. ``metadata`` and ``tags`` are what the copy is to have."""

    def __init__(self, target: S3Copies, bucket: str, source: Listed, key: str, sizes: Sizes) -> None:
        self._target = target
        self._origin = Origin(bucket, source.key, source.etag)
        self._plan = plan(bucket, source, sizes)
        self._key = key
        self._sizes = sizes

    def find(self) -> tuple[Upload, list[Part]] | None:
        """The upload that has most of this version already. All others to this key are aborted."""
        candidates = []
        for upload in self._target.uploads(self._key):
            try:
                parts = self._target.parts(upload)
            except NotFound:
                continue
            fitting = [part for part in parts if self._fits(part)]
            candidates.append((len(fitting) if len(fitting) == len(parts) else 0, upload, fitting))
        candidates.sort(key=lambda each: each[0], reverse=True)
        found = candidates[0][1:] if candidates and candidates[0][0] else None
        for _, upload, _ in candidates[1 if found else 0 :]:
            self._target.abort(upload)
        return found

    def _fits(self, part: Part) -> bool:
        return part.number in self._plan.numbers and part.size == self._plan.length(part.number)

    def begin(self, metadata: Mapping[str, str], tags: Mapping[str, str], storage_class: str) -> Upload:
        return self._target.begin(self._key, metadata=metadata, tags=tags, storage_class=storage_class)

    def go_on(self, upload: Upload, have: list[Part], stop: Stop) -> None:
        """Copies what is missing, one part at least. Raises `Interrupted` when ``stop`` says so before the last.

        What passes leaves the upload for the next try; after any other error it is aborted.
        """
        known = {part.number for part in have}
        missing = [number for number in self._plan.numbers if number not in known]
        try:
            parts = [*have, *self._copied(upload, missing, stop)]
            if len(parts) < len(self._plan.numbers):
                raise Interrupted(self._key)
            self._target.complete(upload, parts)
        except AwsError as error:
            if not error.transient:
                self._target.abort(upload)
            raise

    def _copied(self, upload: Upload, missing: list[int], stop: Stop) -> list[Part]:
        def wanted() -> Iterator[int]:
            for place, number in enumerate(missing):
                if place and stop():
                    return
                yield number

        def copy(number: int) -> Part:
            return self._target.copy_part(
                upload, self._origin, number, self._plan.start(number), self._plan.length(number)
            )

        at_once = self._sizes.parts_at_once
        with Parallel(copy, wanted(), threads=lambda: at_once, ahead=at_once, name="s3-sync-part") as parts:
            return list(parts)
