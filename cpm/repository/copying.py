"""Copying a whole volume, or a part of it, from anything that can be read by blocks."""

import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Protocol

from cpm.repository.blocks import BLOCK_BYTES, SEGMENT_BLOCKS, block_count
from cpm.repository.manifest import Draft, Manifest
from cpm.repository.packs import LEAST_PACK_BYTES
from cpm.repository.repository import Repository
from cpm.repository.writer import MOST_OPEN_SEGMENTS, CopyWriter

# 2 GiB of volume between checkpoints: what a crash costs at most, beside packs that are found again.
SLICE_BLOCKS = 4 * SEGMENT_BLOCKS
_CHUNK = 8


class Source(Protocol):
    """Where the blocks come from; read by several threads."""

    size: int

    def read_into(self, block: int, target: memoryview) -> int:
        """Fill ``target`` with the block; returns its length, which is short for the last block only."""


class FileSource:
    """A file or a block device."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.lseek(self._handle, 0, os.SEEK_END)

    def read_into(self, block: int, target: memoryview) -> int:
        done, start = 0, block * BLOCK_BYTES
        while done < len(target):
            count = os.preadv(self._handle, [target[done:]], start + done)
            if not count:
                break
            done += count
        return done

    def close(self) -> None:
        os.close(self._handle)


def copy_part(
    writer: CopyWriter,
    source: Source,
    *,
    changed: Sequence[int] | None = None,
    slice_blocks: int = SLICE_BLOCKS,
    on_checkpoint: Callable[[dict[str, object]], None] = lambda cursor: None,
) -> None:
    """Everything from the writer's place to its end, with a checkpoint after every slice.

    ``changed``, in order, is as in `CopyWriter.plan`. A slice ends when so many blocks have been read for it, or when
    its map has become long.
    """
    while writer.first < writer.end:
        segment, todo = writer.first, 0
        while segment < writer.end and segment - writer.first < MOST_OPEN_SEGMENTS and todo < slice_blocks:
            start, end = segment * SEGMENT_BLOCKS, min((segment + 1) * SEGMENT_BLOCKS, writer.draft.blocks)
            wanted = writer.plan(start, end, _between(changed, start, end))
            _copy_blocks(writer, source, wanted)
            todo += len(wanted)
            segment += 1
        on_checkpoint(writer.checkpoint(segment * SEGMENT_BLOCKS))


def _between(changed: Sequence[int] | None, start: int, end: int) -> Sequence[int] | None:
    return None if changed is None else changed[bisect_left(changed, start) : bisect_left(changed, end)]


def _copy_blocks(writer: CopyWriter, source: Source, wanted: Sequence[int]) -> None:
    if not wanted:
        return
    turns = iter(range(0, len(wanted), _CHUNK))
    turn = threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        # A bytearray compares with zeros at memory speed; the view lends it to the source.
        buffer = bytearray(BLOCK_BYTES)
        view = memoryview(buffer)
        try:
            while not failures:
                with turn:
                    start = next(turns, None)
                if start is None:
                    return
                for block in wanted[start : start + _CHUNK]:
                    count = source.read_into(block, view)
                    writer.write(block, buffer if count == BLOCK_BYTES else bytes(view[:count]))
        except BaseException as failure:  # noqa: BLE001  # raised again by the caller's thread
            failures.append(failure)

    helpers = [threading.Thread(target=work, name="repository-copy") for _ in range(writer.threads - 1)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]


def copy_volume(
    repository: Repository,
    draft: Draft,
    source: Source,
    *,
    parent: Manifest | None = None,
    changed: Sequence[int] | None = None,
    cursor: dict[str, object] | None = None,
    threads: int = 2,
    background: int = 0,
    pack_bytes: int = LEAST_PACK_BYTES,
    slice_blocks: int = SLICE_BLOCKS,
    on_checkpoint: Callable[[dict[str, object]], None] = lambda cursor: None,
) -> Manifest:
    """Copy the volume in this process and finish the copy. With a ``cursor`` of an earlier attempt, go on there.

    ``changed``, in order, are the blocks that differ from the ``parent``; without a parent, those that are not zeros.
    Without ``changed`` every block is read and compared by hash.
    """
    if draft.size != source.size or block_count(draft.size) == 0:
        raise ValueError("The volume and its source differ in size, or are empty.")
    first = int(str(cursor["next"])) if cursor else 0
    with CopyWriter(
        repository,
        draft,
        first=first,
        parent=parent,
        threads=threads,
        background=background,
        pack_bytes=pack_bytes,
    ) as writer:
        writer.adopt_orphans()
        copy_part(writer, source, changed=changed, slice_blocks=slice_blocks, on_checkpoint=on_checkpoint)
    return repository.finish_copy(draft)
