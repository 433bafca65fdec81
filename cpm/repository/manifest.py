"""A manifest says what one copy of one volume consists of; it is written last. FORMAT.md, "Manifests"."""

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

from cpm.repository.blocks import BLOCK_BYTES, SEGMENT_BLOCKS, block_count, segment_count
from cpm.repository.cipher import ID_BYTES, Ciphers
from cpm.repository.errors import CopyConflict, CopyIncomplete, Damaged, ObjectExists, ObjectMissing
from cpm.repository.index import COMMON, Area
from cpm.repository.store import PutOptions, Store

COPIES, PROGRESS = "copies/", "progress/"
_LENGTH = struct.Struct("<I")

Json: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class Draft:
    """What is known of a copy before its first block is read. ``copy_id`` is 32 hex digits, drawn by the caller."""

    copy_id: str
    volume: str
    size: int
    created: str
    snapshot: str = ""
    parent: str | None = None
    archive: bool = False
    retain_until: str | None = None
    # Account, backup, tags: whatever rebuilds the records of the copy when the database is lost.
    metadata: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.copy_id) != 32 or bytes.fromhex(self.copy_id).hex() != self.copy_id:
            raise ValueError(f"{self.copy_id!r} is no id of a copy: 32 hex digits in lower case.")

    @property
    def area(self) -> Area:
        return Area.of_archive(self.copy_id) if self.archive else COMMON

    @property
    def session(self) -> bytes:
        """The first half of the names of the packs that this copy writes."""
        return bytes.fromhex(self.copy_id[:16])

    @property
    def blocks(self) -> int:
        return block_count(self.size)

    @property
    def segment_count(self) -> int:
        return segment_count(self.blocks)

    @property
    def key(self) -> str:
        return COPIES + self.copy_id


@dataclass(frozen=True, slots=True)
class Manifest:
    """A finished copy. ``segments`` are the ids of the map's segments, 16 bytes each; zeros for an empty one."""

    draft: Draft
    segments: bytes
    figures: dict[str, int] = field(default_factory=dict)

    @property
    def copy_id(self) -> str:
        return self.draft.copy_id

    def segment(self, number: int) -> bytes:
        return self.segments[ID_BYTES * number : ID_BYTES * (number + 1)]

    def segment_blocks(self, number: int) -> int:
        return min(SEGMENT_BLOCKS, self.draft.blocks - number * SEGMENT_BLOCKS)

    def same_content(self, other: "Manifest") -> bool:
        return self.segments == other.segments and (self.draft.volume, self.draft.size) == (
            other.draft.volume,
            other.draft.size,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """What one process has finished of a copy: segments ``first`` to ``first + len(ids) // 16``."""

    draft: Draft
    first: int
    ids: bytes
    figures: dict[str, int]

    @property
    def end(self) -> int:
        return self.first + len(self.ids) // ID_BYTES

    @property
    def key(self) -> str:
        return f"{PROGRESS}{self.draft.copy_id}/{self.first:08x}-{self.end:08x}"


def _encode(head: Json, ids: bytes) -> bytes:
    text = json.dumps(head, sort_keys=True).encode()
    return _LENGTH.pack(len(text)) + text + ids


def _decode(key: str, payload: bytes) -> tuple[Json, bytes]:
    (length,) = _LENGTH.unpack_from(payload)
    start = _LENGTH.size + length
    return json.loads(payload[_LENGTH.size : start]), payload[start:]


def encode(manifest: Manifest) -> bytes:
    return _encode(
        {
            **asdict(manifest.draft),
            "block_size": BLOCK_BYTES,
            "segment_blocks": SEGMENT_BLOCKS,
            "figures": manifest.figures,
        },
        manifest.segments,
    )


def _draft(head: Json, key: str) -> Draft:
    known = {name: head[name] for name in Draft.__dataclass_fields__}
    if head.get("block_size", BLOCK_BYTES) != BLOCK_BYTES:
        raise Damaged(key, "it uses blocks of another size than this version reads")
    return Draft(**known)  # type: ignore[arg-type]  # written by `encode`, authenticated by the seal


def read(store: Store, ciphers: Ciphers, copy_id: str) -> Manifest:
    """Raises `ObjectMissing` or `Damaged`."""
    key = COPIES + copy_id
    head, segments = _decode(key, ciphers.open(key, store.get(key)))
    draft = _draft(head, key)
    if draft.copy_id != copy_id or len(segments) != ID_BYTES * draft.segment_count:
        raise Damaged(key, "it does not describe the copy of its name")
    return Manifest(draft, segments, head.get("figures", {}))  # type: ignore[arg-type]


def ids(store: Store) -> Iterator[str]:
    for info in store.list(COPIES):
        yield info.key.removeprefix(COPIES)


def save_progress(store: Store, ciphers: Ciphers, progress: Progress) -> None:
    """Write it, or find that the same was written before. Raises `CopyConflict`."""
    head = {**asdict(progress.draft), "first": progress.first, "figures": progress.figures}
    try:
        store.put(progress.key, ciphers.seal(progress.key, _encode(head, progress.ids)))
    except ObjectExists:
        if _read_progress(store, ciphers, progress.key).ids != progress.ids:
            raise CopyConflict(
                f"{progress.key} was written by another process with different content. Abort the copy, start anew."
            ) from None


def _read_progress(store: Store, ciphers: Ciphers, key: str) -> Progress:
    head, found = _decode(key, ciphers.open(key, store.get(key)))
    progress = Progress(_draft(head, key), head["first"], found, head["figures"])  # type: ignore[arg-type]
    if progress.key != key:
        raise Damaged(key, "it does not describe the part of its name")
    return progress


def progress_of(store: Store, ciphers: Ciphers, copy_id: str | None = None) -> Iterator[Progress]:
    """All that is stored of unfinished copies. One that vanishes meanwhile was finished or aborted."""
    prefix = PROGRESS if copy_id is None else f"{PROGRESS}{copy_id}/"
    for info in store.list(prefix):
        try:
            yield _read_progress(store, ciphers, info.key)
        except ObjectMissing:
            continue


def drop_progress(store: Store, copy_id: str) -> None:
    store.delete([info.key for info in store.list(f"{PROGRESS}{copy_id}/")])


def assemble(store: Store, ciphers: Ciphers, draft: Draft) -> Manifest:
    """The manifest out of all progress. Raises `CopyIncomplete` or `CopyConflict`."""
    segments = bytearray(ID_BYTES * draft.segment_count)
    have = bytearray(draft.segment_count)
    figures: dict[str, int] = {}
    for part in progress_of(store, ciphers, draft.copy_id):
        for number in range(part.first, part.end):
            at = slice(ID_BYTES * number, ID_BYTES * (number + 1))
            mine = part.ids[ID_BYTES * (number - part.first) :][:ID_BYTES]
            if have[number] and segments[at] != mine:
                raise CopyConflict(
                    f"{part.key} contradicts another part of the copy. Abort the copy, start anew."
                )
            segments[at] = mine
            have[number] = 1
        for name, value in part.figures.items():
            figures[name] = figures.get(name, 0) + value
    if not all(have):
        raise CopyIncomplete(
            f"Copy {draft.copy_id} lacks {have.count(0)} of {len(have)} segments; finish its parts first."
        )
    return Manifest(draft, bytes(segments), figures)


def finish(store: Store, ciphers: Ciphers, draft: Draft, options: PutOptions | None) -> Manifest:
    """Write the manifest if that has not been done; the copy exists from then on. May be repeated at will."""
    try:
        done = read(store, ciphers, draft.copy_id)
    except ObjectMissing:
        try:
            done = assemble(store, ciphers, draft)
        except CopyIncomplete:
            # Another process may have finished the copy meanwhile and cleared the progress away.
            try:
                return read(store, ciphers, draft.copy_id)
            except ObjectMissing:
                pass
            raise
        try:
            store.put(draft.key, ciphers.seal(draft.key, encode(done)), options=options)
        except ObjectExists:
            there = read(store, ciphers, draft.copy_id)
            if not there.same_content(done):
                raise CopyConflict(
                    f"{draft.key} was written by another process with different content."
                ) from None
            done = there
    drop_progress(store, draft.copy_id)
    return done
