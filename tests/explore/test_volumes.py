"""Partition tables, logical volumes, and what volumes are called."""

import struct

import pytest

from cpm.explore.blocks import BLOCK_SIZE, Device, RawFile
from cpm.explore.errors import VolumeUnreadable
from cpm.explore.lvm_metadata import MetadataDamaged, parse
from cpm.explore.partition_tables import partitions
from cpm.explore.partitions import find_volumes
from tests.explore.conftest import Opener
from tests.explore.images import image, manifest
from tests.explore.walking import seen


class Bytes:
    """A disk in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def read(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]


def test_an_mbr_gives_primary_and_logical_partitions_by_their_numbers(explore: Opener) -> None:
    session = explore("mbr")

    volumes = session.volumes()

    assert [(volume.name, volume.kind, volume.offset, volume.size) for volume in volumes] == [
        ("mbr-part1", "FAT12", 2048 * 512, 8192 * 512),
        ("mbr-part5", "ext2", 12288 * 512, 12288 * 512),
        ("mbr-part6", "swap", 26624 * 512, 4096 * 512),
    ]
    assert volumes[1].label == "logical"
    assert session.read(b"/mbr-part1/on-fat.txt", 0, 100) == b"on the first partition\n"
    assert seen(session, "mbr-part5") == manifest("mbr-part5")


def test_a_gpt_gives_its_partitions_and_the_logical_volumes_inside(explore: Opener) -> None:
    session = explore("gpt")

    volumes = {volume.name: volume for volume in session.volumes()}

    assert {name: volume.kind for name, volume in volumes.items()} == {
        "gpt-part1": "ext4",
        "gpt-part3": "LUKS",
        "gpt-part4": "btrfs",
        "gpt-part7": "empty",
        "vg.gpt-root": "ext4",
        "vg.gpt-none": "empty",
    }
    assert volumes["gpt-part1"].label == "system files"
    assert volumes["vg.gpt-root"].label == "in-lvm"
    assert seen(session, "gpt-part1") == manifest("gpt-part1")
    assert seen(session, "vg.gpt-root") == manifest("vg.gpt-root")


@pytest.mark.parametrize("disks", [("lvm-pair-1", "lvm-pair-2"), ("lvm-pair-2", "lvm-pair-1")])
def test_logical_volumes_over_two_disks_are_put_together_in_any_order(
    explore: Opener, disks: tuple[str, str]
) -> None:
    session = explore(*disks)

    assert {volume.name for volume in session.volumes()} == {"pair-striped", "pair-linear"}
    assert seen(session, "pair-striped") == manifest("pair-striped")
    assert seen(session, "pair-linear") == manifest("pair-linear")


def test_a_logical_volume_without_all_its_disks_says_so(explore: Opener) -> None:
    session = explore("lvm-pair-2")

    with pytest.raises(VolumeUnreadable) as refused:
        session.listing(b"/pair-linear")

    assert "1 of the 2 physical volumes under it are not in this session" in str(refused.value)


def test_logical_partitions_that_point_at_each_other_end() -> None:
    disk = bytearray(64 * 512)
    disk[446:462] = _entry(0x05, 1, 60)
    disk[510:512] = b"\x55\xaa"
    disk[512 + 446 : 512 + 462] = _entry(0x83, 1, 2)
    disk[512 + 462 : 512 + 478] = _entry(0x05, 9, 10)
    disk[512 + 510 : 512 + 512] = b"\x55\xaa"
    disk[10 * 512 + 446 : 10 * 512 + 462] = _entry(0x83, 1, 2)
    disk[10 * 512 + 462 : 10 * 512 + 478] = _entry(0x05, 9, 10)
    disk[10 * 512 + 510 : 10 * 512 + 512] = b"\x55\xaa"

    found = partitions(Bytes(bytes(disk)))

    assert found is not None
    assert [(each.number, each.offset // 512) for each in found] == [(5, 2), (6, 11)]


def test_the_copy_of_a_gpt_is_used_when_the_first_is_gone() -> None:
    disk = Device(_WithoutFirstGpt())

    with disk:
        found = partitions(disk)

    assert found is not None
    assert [each.number for each in found] == [1, 2, 3, 4, 7]


def test_disks_with_the_same_content_have_volumes_of_different_names() -> None:
    empty = Bytes(bytes(BLOCK_SIZE))

    volumes = find_volumes({"a/b": empty, "a_b": empty, "": empty})

    assert [volume.name for volume in volumes] == ["a_b", "a_b-2", "volume"]
    assert {volume.kind for volume in volumes} == {"empty"}


@pytest.mark.parametrize(
    "text",
    ["vg {", "vg { a = }", "vg { a = [1, 2 }", "vg = {", "}", "vg { 5 }", "a " * 9, "v {" * 20, 'v { a = "x'],
)
def test_damaged_metadata_of_lvm_is_refused(text: str) -> None:
    with pytest.raises(MetadataDamaged):
        parse(text)


def test_metadata_of_lvm_is_read_with_comments_and_lists() -> None:
    text = '# made by hand\nvg.1 {\n id = "a-b" # why\n seqno = 3\n status = ["READ", "WRITE"]\n none = []\n in { x = 0.5 } }'

    assert parse(text) == {
        "vg.1": {"id": "a-b", "seqno": 3, "status": ["READ", "WRITE"], "none": [], "in": {"x": 0}}
    }


def _entry(kind: int, first: int, count: int) -> bytes:
    return struct.pack("<BBBBBBBBII", 0, 0, 0, 0, kind, 0, 0, 0, first, count)


class _WithoutFirstGpt:
    def __init__(self) -> None:
        self._image = RawFile(image("gpt"))
        self.size = self._image.size

    def read_block(self, index: int) -> bytes | None:
        block = self._image.read_block(index)
        return block if index or not block else block[:512] + bytes(34 * 512) + block[35 * 512 :]
