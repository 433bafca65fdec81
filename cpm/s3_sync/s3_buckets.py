"""`Buckets` spoken by the gateway's own client for S3.

Copies are asked for by the account of the destination: what it writes belongs to it whatever the bucket says about owners,
and is encrypted as its bucket prescribes. So the source bucket's policy must let that account read. The list, the metadata
and the tags of the source are read by the source's own account.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cpm.aws import errors
from cpm.aws.errors import AwsError
from cpm.aws.identity import Identity
from cpm.aws.s3_copies import Origin, S3Copies
from cpm.s3_sync.buckets import Listed, Page, Stop
from cpm.s3_sync.errors import ARCHIVED, CHANGED, VANISHED, Halted, Refused, Skipped
from cpm.s3_sync.large import LARGEST_AT_ONCE, LargeCopy, Sizes
from cpm.s3_sync.mirror import Mirror

_SKIPPED = {
    "InvalidObjectState": ARCHIVED,
    "ObjectNotInActiveTierError": ARCHIVED,
    "PreconditionFailed": CHANGED,
    "412": CHANGED,
    "NoSuchKey": VANISHED,
    "404": VANISHED,
}
# One object can be the reason of these, again and again; it must not keep all that come after it from being copied.
_OF_ONE = frozenset({"InternalError", "ReadTimeoutError"})
_OF_ALL = (errors.BadCredentials, errors.RegionDisabled, errors.Throttled, errors.Unreachable)


def connect(
    mirror: Mirror,
    *,
    reader: Identity,
    source_region: str,
    writer: Identity,
    destination_region: str,
    storage_class: str = "STANDARD",
) -> "S3Buckets":
    """The buckets of a mirror. ``reader`` belongs to the source's account, ``writer`` to the destination's; within one
    account they are the same. Makes no call."""
    source = S3Copies(reader, source_region, mirror.source_bucket)
    destination = S3Copies(writer, destination_region, mirror.destination_bucket)
    return S3Buckets(source, destination, storage_class=storage_class)


class S3Buckets:
    """``source`` is of the source's account, ``destination`` of the destination's, which may be the same."""

    def __init__(
        self,
        source: S3Copies,
        destination: S3Copies,
        *,
        storage_class: str = "STANDARD",
        sizes: Sizes | None = None,
    ) -> None:
        self._source = source
        self._destination = destination
        self._storage_class = storage_class
        self._sizes = sizes or Sizes()
        if self._sizes.at_once > LARGEST_AT_ONCE:
            raise ValueError("S3 copies at most 5 GiB in one call")

    def list_source(self, prefix: str, after: str | None, token: str | None) -> Page:
        return _listed(self._source, prefix, after, token)

    def list_destination(self, prefix: str, after: str | None, token: str | None) -> Page:
        return _listed(self._destination, prefix, after, token)

    def copy(self, source: Listed, key: str, stop: Stop) -> bool:
        with _told():
            if source.size > self._sizes.at_once:
                return self._copy_large(source, key, stop)
            return self._copy_small(source, key)

    def _copy_small(self, source: Listed, key: str) -> bool:
        origin = Origin(self._source.bucket, source.key, source.etag)
        try:
            self._destination.copy(origin, key, storage_class=self._storage_class, tags=True)
        except errors.Denied as denied:
            # Tags take rights of their own on both sides. An object without them is better than none.
            try:
                self._destination.copy(origin, key, storage_class=self._storage_class, tags=False)
            except errors.Denied:
                raise denied from None
            return False
        return True

    def _copy_large(self, source: Listed, key: str, stop: Stop) -> bool:
        large = LargeCopy(self._destination, self._source.bucket, source, key, self._sizes)
        metadata = self._source.metadata(source.key, source.etag)
        tags = self._tags(source.key)
        found = large.find()
        if found is None:
            try:
                found = large.begin(metadata, tags or {}, self._storage_class), []
            except errors.Denied:
                if not tags:
                    raise
                found, tags = (large.begin(metadata, {}, self._storage_class), []), None
        large.go_on(*found, stop)
        return tags is not None

    def _tags(self, key: str) -> dict[str, str] | None:
        try:
            return self._source.tags(key)
        except errors.Denied:
            return None

    def delete(self, keys: Sequence[str]) -> Sequence[tuple[str, str]]:
        with _told():
            return [(key, error.explain()) for key, error in self._destination.delete(keys)]


def _listed(bucket: S3Copies, prefix: str, after: str | None, token: str | None) -> Page:
    try:
        found, following = bucket.page(prefix, after, token)
    except AwsError as error:
        raise Halted(error.explain(), transient=error.transient) from error
    return Page([Listed(one.key, one.size, one.modified, one.etag, one.archived) for one in found], following)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except AwsError as error:
        if error.code in _SKIPPED:
            raise Skipped(_SKIPPED[error.code]) from error
        of_all = isinstance(error, _OF_ALL) and error.code not in _OF_ONE
        if of_all or error.code == "NoSuchBucket":
            raise Halted(error.explain(), transient=error.transient) from error
        raise Refused(error.explain()) from error
