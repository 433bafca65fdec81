"""The step that packs exported files into the repository as one image, in slices like a part of a volume.

What the image consists of follows from the names and sizes of the files alone, so whoever takes over goes on at the cursor.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cpm.flows.s3 import copy_parts, export
from cpm.flows.s3.copy_blocks import Tally
from cpm.flows.s3.copy_parts import PACK, QUEUE, Slice
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, Wait
from cpm.models import S3Copy
from cpm.repository.blocks import BLOCK_BYTES, SEGMENT_BLOCKS, block_count, segment_count
from cpm.repository.store import Store
from cpm.repository.tar_image import Layout
from cpm.repository.writer import CopyWriter

READERS = 4
"""Threads beside the one that tells of it: each reads a block's worth of files and hands it to the writer."""


def pack(context: StepContext) -> Outcome:
    """A slice of the image. Payload: copy."""
    copy = copy_parts.of_payload(context)
    if over := copy_parts.ended(copy):
        return over
    repository = copy_parts.opened(context, copy)
    folder = f"{export.STAGING}{export.task_of(export.export_step(context).pk)}/"
    files = [(info.key.removeprefix(folder), info.size) for info in repository.store.list(folder)]
    if not files:
        return Failed(f"The export of {copy.snapshot.source_id} has no files in {folder} of the repository.")
    layout = Layout(files)
    if copy.image_bytes is None:
        copy.image_bytes = layout.size
        with context.fenced():
            S3Copy.objects.filter(pk=copy.pk).update(image_bytes=layout.size)
    elif copy.image_bytes != layout.size:
        return Failed(f"Somebody has changed the exported files of {copy.snapshot.source_id} while they were packed.")
    image = Image(repository.store, folder, layout)
    slice_ = Slice(context, copy, repository, segment_count(block_count(layout.size)))
    slice_.fill(image.fill)
    if slice_.next < slice_.end:
        context.lease.failures = 0
        return Wait(0.0, progress=slice_.percent, message=slice_.words())
    return Done(slice_.words())


class Image:
    """The bytes of an image, made of the files below a folder."""

    def __init__(self, store: Store, folder: str, layout: Layout) -> None:
        self._store = store
        self._folder = folder
        self._layout = layout

    def block(self, number: int) -> bytes:
        """Raises `RepositoryError`, also for a file that has gone or has become shorter."""
        start = number * BLOCK_BYTES
        pieces = self._layout.pieces(start, min(start + BLOCK_BYTES, self._layout.size))
        return b"".join(
            one if isinstance(one, bytes) else self._store.get(self._folder + one.name, one.start, one.length)
            for one in pieces
        )

    def fill(
        self,
        writer: CopyWriter,
        tally: Tally,
        *,
        enough: Callable[[], bool],
        tell: Callable[[int], None],
        checkpointed: Callable[[dict[str, Any]], None],
    ) -> None:
        """Write segment after segment until it is `enough`."""
        while writer.first < writer.end:
            first = writer.first * SEGMENT_BLOCKS
            end = min(first + SEGMENT_BLOCKS, writer.draft.blocks)
            wanted = writer.plan(first, end)
            self._write(writer, wanted, tell)
            tally.read += len(wanted)
            tally.listed += len(wanted)
            checkpointed(writer.checkpoint(end))
            if enough():
                return

    def _write(self, writer: CopyWriter, wanted: list[int], tell: Callable[[int], None]) -> None:
        turn, rest = threading.Lock(), iter(wanted)
        failed = threading.Event()

        def following() -> Iterator[int]:
            while not failed.is_set():
                with turn:
                    block = next(rest, None)
                if block is None:
                    return
                yield block

        def work(tell: Callable[[int], None]) -> None:
            try:
                for block in following():
                    writer.write(block, self.block(block))
                    tell(block)
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(READERS, "s3-pack") as threads:
            others = [threads.submit(work, lambda block: None) for _ in range(READERS)]
            work(tell)
            for other in others:
                other.result()


KINDS = (StepKind(PACK, QUEUE, pack, failed=copy_parts.failed, overtaken=copy_parts.part_overtaken),)
