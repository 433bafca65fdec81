"""Images that are a tar of files: made piece by piece, and read by any program that reads tar."""

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from cpm.repository.blocks import BLOCK_BYTES
from cpm.repository.tar_image import Layout, Range

NAMES = st.text("aé/.-", min_size=1, max_size=130).map(lambda name: f"d/{name.replace('/', '_')}x")
SIZES = st.sampled_from([0, 1, 511, 512, 513, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES - 700])


def made(layout: Layout, files: dict[str, bytes], start: int, end: int) -> bytes:
    pieces = layout.pieces(start, end)
    return b"".join(
        files[one.name][one.start : one.start + one.length] if isinstance(one, Range) else one for one in pieces
    )


@given(st.dictionaries(NAMES, SIZES, max_size=5), st.integers(10_000, 2 * BLOCK_BYTES))
def test_any_piece_of_an_image_can_be_made_alone(sizes: dict[str, int], step: int) -> None:
    files = {name: bytes([number + 1]) * size for number, (name, size) in enumerate(sizes.items())}
    layout = Layout(sizes.items())

    whole = made(layout, files, 0, layout.size)
    pieces = [made(layout, files, at, min(at + step, layout.size)) for at in range(0, layout.size, step)]

    assert b"".join(pieces) == whole and len(whole) == layout.size and layout.size % BLOCK_BYTES == 0
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        members = tar.getmembers()
        assert {one.name: tar.extractfile(one).read() for one in members} == files  # type: ignore[union-attr]
    assert [one.name for one in members] == sorted(files)
    assert all(one.offset_data % BLOCK_BYTES == 0 for one in members if one.size >= BLOCK_BYTES)
