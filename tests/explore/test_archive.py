"""Zips of chosen files: what programs unpack from them, and what they refuse."""

import hashlib
import io
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpm.explore import archive, paths, zip_writer
from cpm.explore.archive import Names, zip_stream
from cpm.explore.blocks import Device, RawFile
from cpm.explore.errors import Damaged, PathNotFound, SourceFailed
from cpm.explore.filesystems import Entry
from cpm.explore.sandbox import PAGE_SIZE, Session
from cpm.explore.zip_writer import ZipWriter
from tests.explore.conftest import Opener
from tests.explore.images import image, manifest


def opened(pieces: Iterator[bytes]) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(b"".join(pieces)))


@pytest.mark.parametrize("name", ["ext4", "xfs", "ntfs", "fat32"])
def test_a_whole_volume_unpacks_as_it_was_written(explore: Opener, name: str) -> None:
    session = explore(name)
    chosen = [
        f"/{name}/".encode() + entry.name
        for entry in session.entries(f"/{name}".encode())
        if entry.name not in {b"many", b"compact.exe", b"link-inside"}
    ]

    with opened(zip_stream(session, chosen)) as unpacked:
        digests = {
            each.filename: hashlib.sha256(unpacked.read(each)).hexdigest()
            for each in unpacked.infolist()
            if not each.is_dir() and each.filename != "LEFT-OUT.txt"
        }
        folders = {each.filename.rstrip("/") for each in unpacked.infolist() if each.is_dir()}

    expected = {
        path.lstrip("/"): facts
        for path, facts in manifest(name).items()
        if not path.startswith("/many") and not path.startswith("/link-inside")
    }
    # Names that are no text or hold a backslash, a line end or a drive are changed on the way out.
    odd = {path for path in expected if any(char in path for char in "\\\n:") or path.startswith("latin-")}
    plain = {path.encode("latin-1").decode(): facts for path, facts in expected.items() if path not in odd}
    assert {path: facts[2] for path, facts in plain.items() if facts[0] == "F"}.items() <= digests.items()
    assert folders == {path for path, facts in plain.items() if facts[0] == "D"}
    assert sorted(set(digests.values())) == sorted(
        {facts[2] for facts in expected.values() if facts[0] == "F"}
    )


def test_links_and_devices_are_left_out_and_listed(explore: Opener) -> None:
    session = explore("ext4")
    chosen = [b"/ext4/link-absolute", b"/ext4/device", b"/ext4/hello.txt"]

    with opened(zip_stream(session, chosen)) as unpacked:
        names = unpacked.namelist()
        listed = unpacked.read("LEFT-OUT.txt").decode()

    assert names == ["hello.txt", "LEFT-OUT.txt"]
    assert listed.splitlines() == [
        "Not in this archive:",
        "/ext4/device: a block device",
        "/ext4/link-absolute: a symbolic link to /etc/passwd",
    ]


def test_files_that_cannot_be_decoded_are_left_out_and_listed(explore: Opener) -> None:
    session = explore("ntfs")

    with opened(zip_stream(session, [b"/ntfs/compact.exe"])) as unpacked:
        assert unpacked.namelist() == ["LEFT-OUT.txt"]
        assert b"compressed by Windows (Compact OS)" in unpacked.read("LEFT-OUT.txt")


def test_the_root_gives_all_volumes_that_can_be_read(explore: Opener) -> None:
    session = explore("gpt")

    with opened(zip_stream(session, [b"/"])) as unpacked:
        names = set(unpacked.namelist())
        listed = unpacked.read("LEFT-OUT.txt").decode()

    assert {"session/gpt-part1/hello.txt", "session/vg.gpt-root/hello.txt"} <= names
    assert "/gpt-part3: gpt-part3 cannot be explored: it is encrypted with LUKS" in listed


def test_chosen_paths_inside_chosen_folders_come_once_and_equal_names_are_numbered(explore: Opener) -> None:
    session = explore("mbr", "gpt")
    chosen = [
        b"/gpt-part1/hello.txt",
        b"/mbr-part5/hello.txt",
        b"/gpt-part1/deep0/deep1",
        b"/gpt-part1/deep0",
        b"//gpt-part1/hello.txt/",
    ]

    with opened(zip_stream(session, chosen)) as unpacked:
        top = [name for name in unpacked.namelist() if name.count("/") == name.endswith("/")]

    assert top == ["deep0/", "hello.txt", "hello.txt (2)"]


def test_a_path_that_is_not_there_is_refused_before_anything_is_sent(explore: Opener) -> None:
    session = explore("ext4")

    with pytest.raises(PathNotFound, match="/ext4/nothing"):
        zip_stream(session, [b"/ext4/hello.txt", b"/ext4/nothing"])


def test_a_failure_inside_a_file_breaks_the_zip_off_visibly() -> None:
    class Failing:
        def __init__(self) -> None:
            self._image = RawFile(image("ext4"))
            self.size = self._image.size
            self.failing = False

        def read_block(self, index: int) -> bytes | None:
            if self.failing:
                raise ConnectionError("the store is gone")
            return self._image.read_block(index)

    source = Failing()
    with Device(source, cached_blocks=1, read_ahead=0) as device, Session({"ext4": device}) as session:
        stream = zip_stream(session, [b"/ext4/lines.txt", b"/ext4/sparse.bin"])
        sent = [next(stream)]
        source.failing = True

        with pytest.raises(SourceFailed, match="the store is gone"):
            sent.extend(stream)

    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(b"".join(sent)))


def test_a_killed_process_in_the_middle_of_a_zip_does_not_show(explore: Opener) -> None:
    session = explore("ext4")
    chosen = [b"/ext4/lines.txt", b"/ext4/sparse.bin", b"/ext4/noise.bin"]
    pieces = []

    for number, piece in enumerate(zip_stream(session, chosen)):
        pieces.append(piece)
        if number % 5 == 1 and session._process:
            os.kill(session._process.pid, signal.SIGKILL)

    with opened(iter(pieces)) as unpacked:
        assert unpacked.testzip() is None
        assert hashlib.sha256(unpacked.read("lines.txt")).hexdigest() == manifest("ext4")["/lines.txt"][2]
    assert session.starts > 2


def test_closing_the_stream_early_ends_it(explore: Opener) -> None:
    session = explore("ext4")

    stream = zip_stream(session, [b"/ext4"])
    next(stream)
    stream.close()  # type: ignore[attr-defined]

    assert session.read(b"/ext4/hello.txt", 0, 5) == b"Hello"


@given(st.binary(min_size=1, max_size=40).filter(lambda raw: b"/" not in raw and b"\0" not in raw))
def test_no_name_leads_out_of_the_folder_it_is_unpacked_in(raw: bytes) -> None:
    name = Names().inside(raw)

    assert name not in {"", ".", ".."}
    assert not any(char in name for char in "/\\\0\n\r")
    assert not (name[1:2] == ":" and name[0].isalpha())


def test_different_names_stay_different() -> None:
    names = Names()
    raw = [b"a\\b", b"a_b", b"a\nb", b"\xff", b"\xfe", b"\xef\xbf\xbd", b"..", b"__", b"C:x", b"C_x"]

    assert len({names.inside(each) for each in raw}) == len(raw)


@given(st.binary(max_size=60))
def test_friendly_paths_survive_urls_and_come_back(raw: bytes) -> None:
    friendly = paths.friendly(raw)

    assert set(friendly.encode()) <= paths.UNESCAPED | {ord("~")}
    assert paths.from_friendly(friendly) == raw


def test_sizes_beyond_32_bits_use_zip64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_writer, "ZIP64_FROM", 1000)
    writer = ZipWriter()
    content = [bytes(600), bytes(600)]

    pieces = [*writer.add_file("large", 1200, 1.5e9, content), *writer.add_file("small", 3, None, [b"abc"])]
    raw = b"".join([*pieces, *writer.finish()])

    with zipfile.ZipFile(io.BytesIO(raw)) as unpacked:
        assert unpacked.testzip() is None
        assert unpacked.read("large") == bytes(1200)
        assert unpacked.read("small") == b"abc"
        # Its name is 5 characters, its extra fields are the time (9) and the sizes (20).
    assert struct.unpack_from("<HH", raw, 26) == (5, 29)
    assert struct.unpack_from("<II", raw, 18) == (0xFFFF_FFFF, 0xFFFF_FFFF)


def test_more_entries_than_old_zips_can_count_are_all_there() -> None:
    writer = ZipWriter()
    pieces = [piece for number in range(70_000) for piece in writer.add_folder(f"{number}", None)]

    raw = b"".join([*pieces, *writer.finish()])

    with zipfile.ZipFile(io.BytesIO(raw)) as unpacked:
        assert len(unpacked.namelist()) == 70_000


def test_a_zip_of_five_gigabytes_takes_little_memory_and_opens(tmp_path: Path) -> None:
    program = """
import sys
from cpm.explore.zip_writer import ZipWriter
writer, size = ZipWriter(), 5 << 30
piece = bytes(1 << 20)
with open(sys.argv[1], "wb") as file:
    for part in writer.add_file("zeros", size, 0.0, (piece for _ in range(5 << 10))):
        file.write(part)
    for part in writer.add_file("after", 2, 0.0, [b"ok"]):
        file.write(part)
    for part in writer.finish():
        file.write(part)
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "large.zip")],
        capture_output=True,
        text=True,
        check=True,
    )

    with zipfile.ZipFile(tmp_path / "large.zip") as unpacked:
        assert [each.file_size for each in unpacked.infolist()] == [5 << 30, 2]
        assert unpacked.read("after") == b"ok"
    assert int(done.stdout) < 80 * 1024


def test_content_of_another_size_than_said_ends_the_zip() -> None:
    writer = ZipWriter()

    with pytest.raises(ValueError, match="4 bytes came instead of 5"):
        list(writer.add_file("name", 5, None, [b"abcd"]))


def test_the_list_of_what_was_left_out_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_LISTED", 30)
    left_out = archive._LeftOut()
    for number in range(5):
        left_out.add(b"/%d" % number, "a socket")

    assert left_out.text().decode().splitlines() == [
        "Not in this archive:",
        "/0: a socket",
        "/1: a socket",
        "and 3 more",
    ]


def test_deep_folders_of_many_entries_keep_few_of_them_in_memory() -> None:
    class Deep:
        """Every folder has a folder and many files."""

        def __init__(self) -> None:
            self.pages: list[int] = []

        def stat(self, path: bytes) -> Entry:
            return Entry(b"", "D", 0, None, 1)

        def entries(self, path: bytes, *, page_size: int) -> Iterator[Entry]:
            self.pages.append(page_size)
            node = len(self.pages) + 1
            yield Entry(b"d", "D", 0, None, node)

    session = Deep()

    with pytest.raises(Damaged, match="nested too deeply"):
        list(zip_stream(session, [b"/volume"]))  # type: ignore[arg-type]

    assert len(session.pages) > archive.MAX_DEPTH
    assert sum(session.pages) < 10 * PAGE_SIZE


def test_many_chosen_paths_of_many_folders_are_looked_through_quickly() -> None:
    deep = b"/volume" + b"/a" * 10_000
    chosen = [deep + b"/%d" % number for number in range(200)]
    began = time.monotonic()

    kept = archive._without_nested([*chosen, deep + b"/7/b", b"/volume/z/y", b"/volume/z"])

    assert time.monotonic() - began < 5
    assert sorted(kept) == sorted([*chosen, b"/volume/z"])
