"""The blocks of an EBS snapshot on their way into a repository: many requests at once, in bounded memory.

Knows snapshots and repositories, but neither records nor steps. A group of segments is listed, read and written, then
made durable; what a crash costs at most is one group.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from cpm.aws.ebs_direct import BLOCK, EbsDirect, Ref
from cpm.aws.errors import Invalid, InvalidState, NotFound
from cpm.aws.parallel import Parallel
from cpm.lib.errors import PreconditionFailed
from cpm.repository.blocks import SEGMENT_BLOCKS
from cpm.repository.writer import MOST_OPEN_SEGMENTS, CopyWriter

AHEAD = 64
"""Blocks of one copy in memory that are being read, or have been and are not written yet."""
MOST_THREADS = 4
"""Threads that hash, pack and encrypt, and as many that store: a pack of 16 MiB for each of these, and one that is filled."""
GROUP_BLOCKS = 4 * SEGMENT_BLOCKS
"""Blocks to be read between two checkpoints: 2 GiB."""
ZEROS = bytes(BLOCK)

Reading: TypeAlias = Parallel[Ref, tuple[int, Any]]


class NoBase(Exception):
    """AWS cannot compare the snapshot with its base: that is gone, or the two do not come from one volume."""


@dataclass(frozen=True, slots=True)
class Source:
    """A snapshot to be copied. With a `base`, whose copy is the writer's parent, only what differs from it is read."""

    ebs: EbsDirect
    snapshot: str
    base: str = ""


@dataclass(slots=True)
class Tally:
    """Blocks so far: those that AWS listed, of these new and gone since the base, and those to be read."""

    listed: int = 0
    gained: int = 0
    gone: int = 0
    read: int = 0


class _Entry(NamedTuple):
    """A listed block. Without a token it is not in the snapshot any more and reads as zeros."""

    block: int
    token: str | None
    gained: bool


def threads() -> int:
    """How many threads write, and how many store."""
    return min(os.cpu_count() or 2, MOST_THREADS)


def copy_blocks(
    writer: CopyWriter,
    source: Source,
    tally: Tally,
    *,
    enough: Callable[[], bool] = lambda: False,
    tell: Callable[[int], None] = lambda block: None,
    checkpointed: Callable[[dict[str, object]], None] = lambda cursor: None,
) -> None:
    """Copy from the writer's place to its end, or to the first end of a segment where it is `enough`.

    `tell` gets the block that the listing has come to, often; `checkpointed` the writer's cursor when `tally` counts
    all up to there. Both are called in this thread, `enough` in any. At least one segment is copied. Raises `NoBase`,
    `PreconditionFailed` for a snapshot that is larger than the draft says, `AwsError`, `RepositoryError` and what
    these functions raise; what was checkpointed is safe then.
    """
    listing = _Listing(source, writer.first * SEGMENT_BLOCKS)
    while writer.first < writer.end:
        group = _Group(writer, source, listing, tally, enough)
        with source.ebs.read_blocks(source.snapshot, group.refs()) as reading:
            _write(writer, source.ebs, reading, group, tell)
        checkpointed(writer.checkpoint(group.block))
        if enough():
            return


class _Group:
    """The segments between two checkpoints, planned as the reading comes to them. `block` is where it has come to."""

    def __init__(
        self,
        writer: CopyWriter,
        source: Source,
        listing: "_Listing",
        tally: Tally,
        enough: Callable[[], bool],
    ) -> None:
        self._writer = writer
        self._source = source
        self._listing = listing
        self._tally = tally
        self._enough = enough
        self.block = writer.first * SEGMENT_BLOCKS

    def refs(self) -> Iterator[Ref]:
        """The blocks to be read, in order. Taken by one thread at a time, beside those that write."""
        writer, todo = self._writer, 0
        first = writer.first
        for number in range(first, min(writer.end, first + MOST_OPEN_SEGMENTS)):
            if number > first and (todo >= GROUP_BLOCKS or self._enough()):
                return
            end = min((number + 1) * SEGMENT_BLOCKS, writer.draft.blocks)
            wanted = self._planned(number * SEGMENT_BLOCKS, end)
            todo += len(wanted)
            yield from wanted
            self.block = end
        if writer.end == writer.draft.segment_count and self.block == writer.draft.blocks:
            self._listing.ends(self.block)

    def _planned(self, start: int, end: int) -> list[Ref]:
        entries = self._listing.before(end)
        tokens = {entry.block: entry.token for entry in entries}
        needed = self._writer.plan(start, end, list(tokens))
        lost = [block for block in needed if block not in tokens]
        if lost:
            tokens |= _tokens(self._source, lost)
        wanted: list[Ref] = []
        for block in needed:
            token = tokens.get(block)
            if token is None:
                self._writer.write(block, ZEROS)
            else:
                wanted.append((block, token))
        tally = self._tally
        tally.listed += len(entries)
        tally.gained += sum(entry.gained for entry in entries)
        tally.gone += sum(entry.token is None for entry in entries)
        tally.read += len(wanted)
        return wanted


class _Listing:
    """What has to be looked at of a snapshot from a block on, in order."""

    def __init__(self, source: Source, start: int) -> None:
        self._entries = _changed(source, start) if source.base else _all(source, start)
        self._next: _Entry | None = None
        self._begun = False

    def before(self, end: int) -> list[_Entry]:
        """The next entries, up to that block. Raises `NoBase`."""
        if not self._begun:
            self._begun = True
            self._next = next(self._entries, None)
        found: list[_Entry] = []
        while self._next is not None and self._next.block < end:
            found.append(self._next)
            self._next = next(self._entries, None)
        return found

    def ends(self, end: int) -> None:
        """Raises `PreconditionFailed` when there is anything from that block on."""
        if self._next is not None:
            raise PreconditionFailed(
                "snapshot_too_large",
                f"Block {self._next.block} lies behind the known end of the volume, {end}.",
            )


def _all(source: Source, start: int) -> Iterator[_Entry]:
    for index, token in source.ebs.list_blocks(source.snapshot, start):
        yield _Entry(index, token, True)


def _changed(source: Source, start: int) -> Iterator[_Entry]:
    try:
        for block in source.ebs.list_changed_blocks(source.base, source.snapshot, start):
            yield _Entry(block.index, block.second, block.first is None)
    except (NotFound, Invalid, InvalidState) as error:
        # If it is the snapshot itself that is gone, listing all its blocks says so.
        raise NoBase(error.explain()) from error


def _tokens(source: Source, blocks: Sequence[int]) -> dict[int, str | None]:
    """Tokens of blocks that did not change but are not in the repository any more; zeros have none."""
    wanted = set(blocks)
    found: dict[int, str | None] = {}
    for index, token in source.ebs.list_blocks(source.snapshot, blocks[0]):
        if index > blocks[-1]:
            break
        if index in wanted:
            found[index] = token
    return found


def _write(
    writer: CopyWriter, ebs: EbsDirect, reading: Reading, group: _Group, tell: Callable[[int], None]
) -> None:
    """All that is read, by several threads; this one tells of it. Raises what went wrong first in any of them."""

    def work(tell: Callable[[int], None]) -> None:
        try:
            for block, data in reading:
                writer.write(block, data)
                ebs.recycle(data)
                tell(group.block)
        except BaseException:
            # The others end too.
            reading.close()
            raise

    with ThreadPoolExecutor(max(1, writer.threads - 1), "s3-copy") as helpers:
        others = [helpers.submit(work, lambda block: None) for _ in range(writer.threads - 1)]
        work(tell)
        for other in others:
            other.result()
