"""The blocks of a copy on their way into an EBS snapshot: many requests at once, in bounded memory.

Knows snapshots and repositories, but neither records nor steps.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from cpm.aws.ebs_direct import BLOCK, EbsDirect
from cpm.aws.http_connection import Buffer
from cpm.aws.linear_checksum import LinearChecksum
from cpm.repository.blocks import SEGMENT_BLOCKS
from cpm.repository.reader import Reader

PART_BLOCKS = 4 * SEGMENT_BLOCKS
"""Blocks that are written between two cursors, 2 GiB: what a worker that dies has done in vain at most."""
READERS = 4
"""Threads that fetch packs: most of the time they wait for S3."""


def restore_part(
    reader: Reader,
    ebs: EbsDirect,
    snapshot: str,
    first: int,
    checksum: LinearChecksum,
    tell: Callable[[int], None] = lambda block: None,
) -> int:
    """Write the next part of a copy, from block ``first`` on; the block to go on with.

    Within a part they are written in no order, as they lie in the packs. ``checksum`` has them all at the end, and is
    of no use after an error: then the part is written again. ``tell`` gets about where it is, often. Raises `Damaged`
    before a wrong byte is written, `RepositoryError` and `AwsError`.
    """
    wanted, end = _part(reader, first)
    for index in wanted:
        checksum.begin(index)
    with (
        reader.gather(first, end, threads=READERS) as blocks,
        ebs.write_blocks(snapshot, _whole(blocks)) as writing,
    ):
        for done, (index, digest) in enumerate(writing):
            checksum.end(index, digest)
            tell(wanted[done])
    return end


def _part(reader: Reader, first: int) -> tuple[list[int], int]:
    """The next blocks that are not zeros, and the block behind them."""
    wanted = list(islice(reader.allocated(first), PART_BLOCKS))
    return wanted, wanted[-1] + 1 if len(wanted) == PART_BLOCKS else reader.manifest.draft.blocks


def _whole(blocks: Iterable[tuple[int, Buffer]]) -> Iterator[tuple[int, Buffer]]:
    """EBS takes whole blocks only; the last one of a volume may be shorter."""
    for index, data in blocks:
        yield index, data if len(data) == BLOCK else bytes(data).ljust(BLOCK, b"\0")
