"""Every byte of every file of every supported file system, compared with what was written through the kernel."""

import pytest

from cpm.explore.blocks import Device, RawFile
from cpm.explore.errors import ContentUnreadable, NotADirectory, NotAFile, PathNotFound, VolumeUnreadable
from cpm.explore.sandbox import Session
from tests.explore.conftest import Opener
from tests.explore.images import image, manifest
from tests.explore.mutations import Mutated
from tests.explore.walking import digest, seen, walk

WHOLE = ["ext2", "ext3", "ext4", "ext4-inline", "xfs", "fat12", "fat16", "fat32", "exfat"]
UNIX = ["ext2", "ext3", "ext4", "ext4-inline", "xfs"]
MANY = ["ext4", "xfs", "ntfs"]


@pytest.mark.parametrize("name", WHOLE)
def test_every_file_reads_as_it_was_written(explore: Opener, name: str) -> None:
    session = explore(name)

    found = seen(session, name)

    expected = manifest(name)
    # The empty files of the large folder are counted in a test of their own.
    assert {path for path in found if "/many/" not in path} == set(expected)
    assert {path: facts for path, facts in found.items() if facts != expected[path]} == {}
    assert session.starts == 1


def test_ntfs_reads_compressed_resident_sparse_and_fragmented_files(explore: Opener) -> None:
    session = explore("ntfs")
    expected = manifest("ntfs")
    special = {b"/ntfs/compact.exe", b"/ntfs/link-inside"}

    paths = {path for path, _ in walk(session, b"/ntfs")}
    plain = {
        path: facts
        for path, facts in expected.items()
        if facts[0] == "F" and session.stat(b"/ntfs" + path.encode("latin-1")).size == facts[1]
    }

    assert paths - special == {b"/ntfs" + path.encode("latin-1") for path in expected}
    digests = {path: digest(session, b"/ntfs" + path.encode("latin-1")) for path in plain}
    assert digests == {path: facts[2] for path, facts in plain.items()}
    assert {"/compressed/lines.txt", "/compressed/mixed.bin", "/sparse.bin", "/fragmented-a.bin"} <= set(
        plain
    )


def test_a_file_compressed_by_windows_itself_is_refused_instead_of_read_as_zeros(explore: Opener) -> None:
    session = explore("ntfs")

    with pytest.raises(ContentUnreadable) as refused:
        session.read(b"/ntfs/compact.exe", 0, 100)

    assert refused.value.code == "content_unreadable"
    assert "compressed by Windows (Compact OS)" in str(refused.value)


@pytest.mark.parametrize("name", MANY)
def test_a_folder_of_ten_thousand_files_is_listed_in_pages_by_name(explore: Opener, name: str) -> None:
    session = explore(name)
    folder = f"/{name}/many".encode()

    page = session.listing(folder, offset=9_990, limit=20)
    names = [entry.name for entry in session.entries(folder)]

    assert page.total == 10_000
    assert [entry.name for entry in page.entries] == [
        b"file-%05d.txt" % number for number in range(9_990, 10_000)
    ]
    assert names == [b"file-%05d.txt" % number for number in range(10_000)]
    assert session.read(folder + b"/file-04200.txt", 0, 100) == b"4200\n"


@pytest.mark.parametrize("name", UNIX)
def test_links_are_shown_and_never_followed(explore: Opener, name: str) -> None:
    session = explore(name)
    top = f"/{name}".encode()

    entry = session.stat(top + b"/link-outside")

    assert (entry.kind, entry.what) == ("F", "a symbolic link to ../../../../etc/shadow")
    for link in (b"/link-outside", b"/link-absolute", b"/link-inside"):
        with pytest.raises(NotAFile, match="symbolic link"):
            session.read(top + link, 0, 10)
    with pytest.raises(NotADirectory):
        session.listing(top + b"/link-root")
    with pytest.raises(PathNotFound):
        session.stat(top + b"/link-root/etc/passwd")


@pytest.mark.parametrize("name", UNIX)
def test_pipes_devices_and_sockets_have_no_content(explore: Opener, name: str) -> None:
    session = explore(name)

    for special, what in (("pipe", "a named pipe"), ("device", "a block device"), ("socket", "a socket")):
        with pytest.raises(NotAFile) as refused:
            session.read(f"/{name}/{special}".encode(), 0, 10)
        assert what in str(refused.value)


def test_dots_in_a_path_lead_nowhere(explore: Opener) -> None:
    session = explore("ext4")

    for path in (
        b"/ext4/deep0/../hello.txt",
        b"/ext4/./hello.txt",
        b"/../etc/passwd",
        b"/ext4/../../etc/passwd",
    ):
        with pytest.raises(PathNotFound):
            session.stat(path)


def test_reads_at_any_offset_are_parts_of_the_file(explore: Opener) -> None:
    session = explore("ext4")
    path = b"/ext4/fragmented-a.bin"

    whole = b"".join(session.stream(path))

    for offset, length in (
        (0, 1),
        (4_095, 2),
        (8_199, 16_400),
        (len(whole) - 3, 10),
        (len(whole), 10),
        (1 << 40, 5),
    ):
        assert session.read(path, offset, length) == whole[offset : offset + length]


def test_an_xfs_with_a_dirty_log_is_detected_and_said(explore: Opener) -> None:
    session = explore("xfs", "xfs-dirty", "xfs-busy")

    warnings = {volume.name: volume.warnings for volume in session.volumes()}

    assert warnings["xfs"] == []
    assert warnings["xfs-busy"] == []
    assert len(warnings["xfs-dirty"]) == 1
    assert "log was not replayed" in warnings["xfs-dirty"][0]
    # The warning is true: files that the kernel would bring back are not to be seen.
    names = [entry.name for entry in session.entries(b"/xfs-dirty")]
    assert names == [b"before"]


@pytest.mark.parametrize("name", ["ext4-dirty", "ext3-dirty", "ext4-data-journal"])
def test_an_ext_of_a_running_instance_is_shown_as_its_journal_says(explore: Opener, name: str) -> None:
    session = explore(name)

    (volume,) = session.volumes()

    assert volume.warnings == []
    # The kernel replayed its own copy of the image for this.
    assert seen(session, name) == manifest(name)


def test_an_ext_whose_journal_is_damaged_is_shown_as_it_stands_and_said() -> None:
    source = RawFile(image("ext4-dirty"))
    journal = image("ext4-dirty").read_bytes().index(bytes.fromhex("c03b399800000004"))
    damaged = Mutated(source, {journal: 0})

    with Device(damaged) as device, Session({"disk": device}) as session:
        (volume,) = session.volumes()
        names = [entry.name for entry in session.entries(b"/disk")]

    assert len(volume.warnings) == 1
    assert "journal could not be replayed (it has no superblock)" in volume.warnings[0]
    assert names == [b"before", b"gone", b"lost+found"]


def test_search_finds_parts_of_names_in_any_case_down_to_a_depth(explore: Opener) -> None:
    session = explore("ext4")

    shallow = session.search(b"/ext4", "LEAF", depth=20)
    deep = session.search(b"/ext4", "LEAF", depth=21)
    cases = session.search(b"/ext4", "Case", depth=1)
    accents = session.search(b"/", "GRÜSS", depth=3)

    assert (shallow.matches, shallow.more) == ([], "")
    assert [path for path, _ in deep.matches] == [
        b"/ext4/" + b"/".join(b"deep%d" % depth for depth in range(20)) + b"/leaf.txt"
    ]
    assert [path for path, _ in cases.matches] == [b"/ext4/CASE", b"/ext4/case"]
    assert [path for path, _ in accents.matches] == ["/ext4/grüße 日本.txt".encode()]


def test_search_says_when_there_is_more(explore: Opener) -> None:
    session = explore("ext4")

    found = session.search(b"/ext4", "file-", depth=2, limit=7)

    assert len(found.matches) == 7
    assert found.more == "more than 7 entries match"


def test_what_is_no_file_system_is_named(explore: Opener) -> None:
    session = explore("gpt", "mbr")

    reasons = {volume.kind: volume.why_not for volume in session.volumes() if volume.why_not}

    assert reasons == {
        "LUKS": "it is encrypted with LUKS",
        "btrfs": "btrfs is not supported",
        "swap": "it is swap space and holds no files",
        "empty": "it holds no file system, its beginning is all zeros",
    }
    with pytest.raises(VolumeUnreadable, match="encrypted with LUKS"):
        session.listing(b"/gpt-part3")
