"""The packed file systems of the demo are what their descriptions say."""

import pytest

from cpm.demo import images
from cpm.demo.world import DEVICES


def unpacked(image: images.Image) -> bytearray:
    content = bytearray(image.bytes)
    for offset, data in images.pieces(image):
        content[offset : offset + len(data)] = data
    return content


@pytest.mark.parametrize("name", sorted(set(DEVICES.values())))
def test_every_file_lies_where_the_description_says(name):
    image = images.load(name)

    content = unpacked(image)

    assert content[1080:1082] == b"\x53\xef"  # the magic number of ext4
    assert images.damaged(image.files, lambda offset, length: bytes(content[offset : offset + length])) == []


def test_one_wrong_byte_in_a_file_names_that_file():
    image = images.load("orders")
    content = unpacked(image)
    victim = image.settled_files[7]

    content[victim.pieces[0][0]] ^= 1

    assert images.damaged(image.files, lambda offset, length: bytes(content[offset : offset + length])) == [
        victim.path
    ]


def test_the_ledger_is_large_and_in_one_piece():
    for name in DEVICES.values():
        image = images.load(name)

        offset, length = image.ledger

        assert length == 4 * 1024 * 1024 and offset + length < image.bytes
