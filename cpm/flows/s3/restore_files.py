"""The files of an exported database on their way out of a repository into a bucket, one after the other and byte by byte.

The cursor counts files; whoever goes on begins the file anew at which the last one stopped. What is put there carries the
mark of its recovery, so that an aborted one removes what is its own and nothing else.
"""

import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import islice
from typing import Any

from cpm.aws.errors import NotFound
from cpm.aws.gateway import AwsClient
from cpm.flows.recoveries.recover_base import aws, place_of
from cpm.flows.s3 import restore_record
from cpm.flows.s3.restore import damaged, expired, reader_of
from cpm.flows.s3.restore_plan import FILES
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, Wait
from cpm.lib.states import SnapshotStatus
from cpm.models import S3Copy, Step
from cpm.repository import tar_image
from cpm.repository.errors import Damaged, ObjectArchived

QUEUE = "s3"
SLICE_SECONDS = 60.0
MARK = "cpm-recovery"
PART_BYTES = 64 * 1024 * 1024
"""Larger files go in parts; S3 takes 10,000 of them."""
BATCH = 1000


@contextmanager
def image(context: StepContext, copy: S3Copy) -> Iterator[tarfile.TarFile]:
    """The files of a copy. Raises `Damaged` and `ObjectArchived`, also while they are read."""
    assert copy.repository is not None
    opened = tar_image.opened(reader_of(context, copy, copy.repository))
    assert opened.fileobj is not None
    with closing(opened.fileobj), opened:
        yield opened


def copy_of(context: StepContext) -> S3Copy | None:
    """The copy that is read; None if it was deleted meanwhile."""
    copy = S3Copy.objects.select_related("repository__account").filter(pk=context.payload["copy"]).first()
    gone = copy is None or copy.repository is None or copy.status != SnapshotStatus.COMPLETED
    return None if gone else copy


def put(context: StepContext) -> Outcome:
    """One slice. Payload: copy, original, index, account, region, bucket, prefix."""
    copy = copy_of(context)
    if copy is None:
        return Failed(f"The copy of {context.payload['original']} in S3 was deleted meanwhile.")
    try:
        with image(context, copy) as tar:
            if not _Slice(context, copy, tar).run():
                return Wait(0.0, message=f"{context.cursor['done']} files are there.")
    except Damaged as damage:
        return damaged(context, copy, damage)
    except ObjectArchived as error:
        return expired(copy, error)
    bucket, prefix = context.payload["bucket"], context.payload["prefix"]
    context.log(f"Put the {context.cursor['done']} files of {context.payload['original']} into s3://{bucket}/{prefix}.")
    context.remember(f"s3://{bucket}/{prefix}")
    return Done()


class _Slice:
    """One turn at the files of an image."""

    def __init__(self, context: StepContext, copy: S3Copy, tar: tarfile.TarFile) -> None:
        self._context = context
        self._tar = tar
        self._size = max(1, copy.image_bytes or 1)
        self._s3 = aws(context, place_of(context.payload), "s3")
        self._told = restore_record.Progress(context)
        self._ends = time.monotonic() + SLICE_SECONDS
        if context.cursor is None:
            context.save_cursor({"began": context.now.isoformat(), "done": 0, "upload": None})

    def run(self) -> bool:
        """Whether all files are there; False when the slice is over or the job shall stop."""
        context = self._context
        self._drop_upload()
        for number, member in enumerate(self._tar):
            if number < context.cursor["done"]:
                continue
            if time.monotonic() > self._ends or context.refresh_aborted():
                return False
            self._put(member)
            context.save_cursor({**context.cursor, "done": number + 1, "upload": None})
            context.lease.failures = 0
        self._told.at(100, "All files are there.", now=True)
        return True

    def _put(self, member: tarfile.TarInfo) -> None:
        source = self._tar.extractfile(member)
        assert source is not None
        what = {"Bucket": self._context.payload["bucket"], "Key": self._context.payload["prefix"] + member.name}
        mark = {MARK: str(self._context.subject_id)}
        if member.size <= PART_BYTES:
            self._s3.call("PutObject", **what, Body=source.read(), Metadata=mark)
        else:
            self._put_parts(source, member, what, mark)
        self._tell(member, member.size)

    def _put_parts(self, source: Any, member: tarfile.TarInfo, what: dict[str, str], mark: dict[str, str]) -> None:
        upload = {**what, "UploadId": self._s3.call("CreateMultipartUpload", **what, Metadata=mark)["UploadId"]}
        self._context.save_cursor({**self._context.cursor, "upload": upload})
        parts: list[dict[str, Any]] = []
        while data := source.read(PART_BYTES):
            number = len(parts) + 1
            etag = self._s3.call("UploadPart", **upload, PartNumber=number, Body=data)["ETag"]
            parts.append({"PartNumber": number, "ETag": etag})
            self._tell(member, number * PART_BYTES)
        self._s3.call("CompleteMultipartUpload", **upload, MultipartUpload={"Parts": parts})

    def _drop_upload(self) -> None:
        """The upload at which the last slice was broken off."""
        cursor = self._context.cursor
        if cursor["upload"] is not None:
            with suppress(NotFound):
                self._s3.call("AbortMultipartUpload", **cursor["upload"])
            self._context.save_cursor({**cursor, "upload": None})

    def _tell(self, member: tarfile.TarInfo, done: int) -> None:
        self._told.at(min(99, 100 * (member.offset_data + done) // self._size), f"{member.name} is put into the bucket.")


def remove(context: StepContext, step: Step) -> None:
    """Remove what that step has put into the bucket."""
    cursor: dict[str, Any] = step.cursor or {}
    if not cursor:
        return
    s3, bucket = aws(context, place_of(step.payload), "s3"), step.payload["bucket"]
    if cursor["upload"] is not None:
        with suppress(NotFound):
            s3.call("AbortMultipartUpload", **cursor["upload"])
    ours = (
        {"Key": one["Key"]}
        for one in s3.paginate("ListObjectsV2", "Contents", Bucket=bucket, Prefix=step.payload["prefix"])
        if _is_ours(context, s3, bucket, one["Key"])
    )
    count = 0
    while batch := list(islice(ours, BATCH)):
        s3.call("DeleteObjects", Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
        count += len(batch)
    if count:
        context.log(f"Removed {count} files from s3://{bucket}/{step.payload['prefix']}: the recovery did not succeed.")


def _is_ours(context: StepContext, s3: AwsClient, bucket: str, key: str) -> bool:
    try:
        shown = s3.call("HeadObject", Bucket=bucket, Key=key)
    except NotFound:
        return False
    return bool(shown.get("Metadata", {}).get(MARK) == str(context.subject_id))


KINDS = (StepKind(FILES, QUEUE, put),)
