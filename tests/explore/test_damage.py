"""Damaged and hostile images: an answer or a clear error, in bounded time and memory, and never a crash."""

import os
import time

import pytest

from cpm.explore import paths
from cpm.explore.blocks import Device
from cpm.explore.errors import ExploreError, ExplorerDied, ExplorerTimedOut
from cpm.explore.sandbox import Limits, Session
from tests.explore.images import image
from tests.explore.mutations import mutation, used_pages

MUTATIONS = 200 if os.environ.get("CPM_CHAOS") == "long" else 40
AT_ONCE = 20
LIMITS = Limits(think_seconds=5, cpu_seconds=5, request_seconds=20)
MOST_ENTRIES = 60


@pytest.mark.chaos
@pytest.mark.parametrize(
    "name",
    [
        "ext2",
        "ext4",
        "ext4-dirty",
        "ext4-inline",
        "xfs",
        "ntfs",
        "fat12",
        "fat16",
        "fat32",
        "exfat",
        "mbr",
        "gpt",
    ],
)
def test_many_mutations_give_answers_or_errors_and_no_crash(name: str) -> None:
    pages = used_pages(image(name))
    errors: list[str] = []
    answers = 0

    for first in range(0, MUTATIONS, AT_ONCE):
        disks = {
            f"disk{seed}": Device(mutation(image(name), pages, seed))
            for seed in range(first, first + AT_ONCE)
        }
        with Session(disks, LIMITS) as session:
            for volume in session.listing(b"/").entries:
                began = time.monotonic()
                answers += _explore(session, b"/" + volume.name, errors)
                # Each request is limited, and one that was ended is not repeated.
                assert time.monotonic() - began < 60
        for disk in disks.values():
            disk.close()

    assert ExplorerDied.code not in errors
    assert errors.count(ExplorerTimedOut.code) <= MUTATIONS // 20
    # Damage shows, and most of what is not damaged is still read.
    assert errors
    assert answers > MUTATIONS * 3


@pytest.mark.parametrize("name", ["ext4", "xfs", "ntfs", "fat32", "gpt", "lvm-pair-1"])
def test_images_cut_off_anywhere_are_errors_or_answers(name: str) -> None:
    pages = used_pages(image(name))
    sizes = [512, 4096, 65_536, *(pages[len(pages) * part // 8] for part in range(1, 8))]
    errors: list[str] = []

    for number, size in enumerate(sizes):
        cut = mutation(image(name), pages, number)
        cut.bytes_at.clear()
        cut.size = size
        with Device(cut) as disk, Session({"disk": disk}, LIMITS) as session:
            for volume in session.listing(b"/").entries:
                _explore(session, b"/" + volume.name, errors)

    assert errors
    assert ExplorerDied.code not in errors


def _explore(session: Session, top: bytes, errors: list[str]) -> int:
    """Lists and reads some of a volume; how many answers came. Whatever is raised must be an ExploreError."""
    waiting = [top]
    answers = entries = 0
    while waiting and entries < MOST_ENTRIES:
        folder = waiting.pop()
        try:
            listing = session.listing(folder, limit=MOST_ENTRIES)
        except ExploreError as error:
            errors.append(error.code)
            continue
        answers += 1
        for entry in listing.entries:
            entries += 1
            path = paths.join(folder, entry.name)
            if entry.kind == "D" and entry.name != b"many":
                waiting.append(path)
            elif entry.kind == "F" and entry.size and not entry.what:
                answers += _read(session, path, entry.size, errors)
    return answers


def _read(session: Session, path: bytes, size: int, errors: list[str]) -> int:
    try:
        start = session.read(path, 0, 100_000)
        end = session.read(path, max(0, size - 5_000), 5_000)
    except ExploreError as error:
        errors.append(error.code)
        return 0
    assert len(start) == min(size, 100_000)
    assert len(end) == min(size, 5_000)
    return 1
