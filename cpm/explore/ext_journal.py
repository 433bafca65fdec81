"""An ext3 or ext4 as its journal says it is: committed changes that had not reached their place are shown there.

A snapshot of a running instance nearly always has such changes. They are replayed in memory, as a mount would do on
the disk.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cpm.explore.blocks import Readable

MAGIC = b"\xc0\x3b\x39\x98"
DESCRIPTOR, COMMIT, REVOKE = 1, 2, 5
WIDE_NUMBERS, CHECKSUM_2, CHECKSUM_3, FAST_COMMITS = 0x2, 0x8, 0x10, 0x20
ESCAPED, SAME_ID, LAST = 0x1, 0x2, 0x8
KNOWN = 0x1 | WIDE_NUMBERS | 0x4 | CHECKSUM_2 | CHECKSUM_3
MAX_CHANGES = 2_000_000


class NotReplayed(Exception):
    """The journal cannot be replayed here; the text says why."""


@dataclass(frozen=True, slots=True)
class _Change:
    """A block of the file system whose newest content stands in the journal. `escaped` blocks begin with its magic."""

    journal_block: int
    escaped: bool


@dataclass(frozen=True, slots=True)
class _Journal:
    content: Readable
    block: int
    blocks: int
    first: int
    features: int

    def read(self, index: int) -> bytes:
        data = self.content.read(index * self.block, self.block)
        if len(data) != self.block:
            raise NotReplayed("it ends early")
        return data

    def after(self, index: int, count: int = 1) -> int:
        """The block `count` further in the ring."""
        return self.first + (index - self.first + count) % (self.blocks - self.first)


class Replayed:
    """The volume with the journal's changes over it."""

    def __init__(self, volume: Readable, content: Readable) -> None:
        """`content` is the journal's own. Raises NotReplayed."""
        self._volume = volume
        self._journal, start, sequence = _opened(content)
        self._changes = _changes(self._journal, start, sequence) if start else {}
        self.size = volume.size

    @property
    def changes(self) -> int:
        return len(self._changes)

    def read(self, offset: int, length: int) -> bytes:
        data = self._volume.read(offset, length)
        block = self._journal.block
        changed = [
            at for at in range(offset // block, -(-(offset + len(data)) // block)) if at in self._changes
        ]
        if not changed:
            return data
        patched = bytearray(data)
        for at in changed:
            change = self._changes[at]
            new = self._journal.read(change.journal_block)
            if change.escaped:
                new = MAGIC + new[4:]
            start = at * block - offset
            part = new[max(0, -start) : len(data) - start]
            patched[max(0, start) : max(0, start) + len(part)] = part
        return bytes(patched)


def _opened(content: Readable) -> tuple[_Journal, int, int]:
    head = content.read(0, 1024)
    if len(head) < 1024 or head[:4] != MAGIC:
        raise NotReplayed("it has no superblock")
    kind = struct.unpack_from(">I", head, 4)[0]
    block, blocks, first, sequence, start = struct.unpack_from(">IIIII", head, 12)
    features = struct.unpack_from(">I", head, 40)[0] if kind == 4 else 0
    if features & ~KNOWN:
        raise NotReplayed("it has fast commits" if features & FAST_COMMITS else "it has unknown features")
    if block not in {1024, 2048, 4096, 8192, 16384, 32768, 65536} or not 0 < first < blocks:
        raise NotReplayed("its superblock makes no sense")
    if start >= blocks or blocks * block > content.size:
        raise NotReplayed("it is larger than its file")
    return _Journal(content, block, blocks, first, features), start, sequence


def _changes(journal: _Journal, start: int, sequence: int) -> dict[int, _Change]:
    """The newest change of every block in transactions that were committed."""
    found: dict[int, tuple[int, _Change]] = {}
    revoked: dict[int, int] = {}
    for number, changes, revokes in _transactions(journal, start, sequence):
        found |= {at: (number, change) for at, change in changes}
        revoked |= dict.fromkeys(revokes, number)
        if len(found) > MAX_CHANGES:
            raise NotReplayed("it has too many changes")
    # What was revoked has been freed since; only later transactions may write to it again.
    return {at: change for at, (number, change) in found.items() if revoked.get(at, -1) < number}


def _transactions(
    journal: _Journal, at: int, sequence: int
) -> Iterator[tuple[int, list[tuple[int, _Change]], list[int]]]:
    number = 0
    changes: list[tuple[int, _Change]] = []
    revokes: list[int] = []
    seen = 0
    while seen < journal.blocks:
        block = journal.read(at)
        kind, found = struct.unpack_from(">II", block, 4)
        if block[:4] != MAGIC or found != sequence & 0xFFFF_FFFF:
            return
        at, seen = journal.after(at), seen + 1
        if kind == DESCRIPTOR:
            for target, escaped in _tags(journal, block):
                changes.append((target, _Change(at, escaped)))
                at, seen = journal.after(at), seen + 1
        elif kind == REVOKE:
            revokes += _revoked(journal, block)
        elif kind == COMMIT:
            yield number, changes, revokes
            changes, revokes = [], []
            number, sequence = number + 1, sequence + 1
        else:
            return


def _tags(journal: _Journal, block: bytes) -> Iterator[tuple[int, bool]]:
    wide = journal.features & WIDE_NUMBERS
    third = journal.features & CHECKSUM_3
    length = 16 if third else (12 if wide else 8) + (2 if journal.features & CHECKSUM_2 else 0)
    end = journal.block - (4 if journal.features & (CHECKSUM_2 | CHECKSUM_3) else 0)
    at = 12
    while at + length <= end:
        target = struct.unpack_from(">I", block, at)[0]
        flags = (
            struct.unpack_from(">I", block, at + 4)[0]
            if third
            else struct.unpack_from(">H", block, at + 6)[0]
        )
        if wide:
            target |= struct.unpack_from(">I", block, at + 8)[0] << 32
        at += length + (0 if flags & SAME_ID else 16)
        yield target, bool(flags & ESCAPED)
        if flags & LAST:
            return


def _revoked(journal: _Journal, block: bytes) -> list[int]:
    used = min(struct.unpack_from(">I", block, 12)[0], journal.block)
    width, shape = (8, ">Q") if journal.features & WIDE_NUMBERS else (4, ">I")
    return [struct.unpack_from(shape, block, at)[0] for at in range(16, used - width + 1, width)]
