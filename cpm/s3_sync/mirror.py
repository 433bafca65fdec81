"""What is mirrored to where: names of objects on both sides, and what may not be mirrored."""

from dataclasses import dataclass

from cpm.s3_sync.errors import Unsuitable

STORAGE_CLASSES = {"S": "STANDARD", "R": "REDUCED_REDUNDANCY", "I": "STANDARD_IA"}
"""The letters of the contract, and what S3 calls them."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """Source and destination of one S3 sync.

    Prefixes are folders: a slash is added where it lacks, so that ``logs`` does not take ``logs-of-others/`` along. An
    object has one *name* on both sides, which is its key without `source_base` or `destination_base`; both put the
    same text before all names, so names come in the order in which S3 lists keys on either side.

    Prefixes are taken literally otherwise: S3 knows keys that begin with a slash, and a prefix that no key has is an
    empty source, of which a mirror with ``delete_extra`` is empty, too.

    Extra objects are only looked for below `destination_base`: with ``keep_source_prefix`` what lies beside the kept
    prefix may be the mirror of another source.
    """

    source_bucket: str
    destination_bucket: str
    source_prefix: str = ""
    destination_prefix: str = ""
    keep_source_prefix: bool = False
    delete_extra: bool = False

    def __post_init__(self) -> None:
        if self.source_bucket != self.destination_bucket:
            return
        source, destination = self.source_base, self.destination_base
        if destination.startswith(source):
            raise Unsuitable(
                "The destination lies inside of the source, so that each run would copy the copies of the run before."
            )
        if source.startswith(destination):
            raise Unsuitable(
                "The source lies inside of the destination, so that the sync would overwrite or delete objects of its "
                "own source."
            )

    @property
    def source_base(self) -> str:
        return _folder(self.source_prefix)

    @property
    def destination_base(self) -> str:
        kept = self.source_base if self.keep_source_prefix else ""
        return _folder(self.destination_prefix) + kept

    def source_key(self, name: str) -> str:
        return self.source_base + name

    def destination_key(self, name: str) -> str:
        return self.destination_base + name


def _folder(prefix: str) -> str:
    return prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
