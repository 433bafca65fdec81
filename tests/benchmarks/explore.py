"""The first look into a folder of 10,000 files on a 16 GiB ext4 volume, from blocks that take a while to come."""

import argparse
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cpm.explore.archive import zip_stream
from cpm.explore.blocks import Device, RawFile
from cpm.explore.sandbox import Session

GIB = 1 << 30
MIB = 1 << 20
MANY = 10_000
# The folder does not have the volume to itself.
OTHERS = 30_000
LARGE_FILE = 256 * MIB


@dataclass
class SlowSource:
    """Blocks of an image, each after the time a store takes to answer."""

    image: RawFile
    latency: float

    @property
    def size(self) -> int:
        return self.image.size

    def read_block(self, index: int) -> bytes | None:
        time.sleep(self.latency)
        return self.image.read_block(index)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="explore")
    parser.add_argument("--latency", type=float, default=30, help="milliseconds per block of 512 KiB")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(arguments)
    if not shutil.which("mkfs.ext4"):
        print("mkfs.ext4 (package e2fsprogs) is needed to make the volume; nothing was measured")
        return
    with tempfile.TemporaryDirectory() as folder:
        image = _image(Path(folder))
        runs = [_first_listing(image, options.latency / 1000) for _ in range(options.runs)]
        _show(f"first listing of {MANY:,} files, {options.latency:.0f} ms per block", runs)
        _read(image)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the session's process  {peak:.0f} MiB")


def _image(folder: Path) -> Path:
    content = folder / "content"
    for name, count in (("before", OTHERS // 2), ("many", MANY), ("after", OTHERS // 2)):
        (content / name).mkdir(parents=True)
        for number in range(count):
            (content / name / f"file-{number:05}.txt").write_text(f"{number}\n")
    with (content / "large.bin").open("wb") as file:
        for number in range(LARGE_FILE // MIB):
            file.write(number.to_bytes(8, "big") * (MIB // 8))
    image = folder / "volume.img"
    with image.open("wb") as file:
        file.truncate(16 * GIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", content, image], check=True)
    shutil.rmtree(content)
    return image


def _first_listing(image: Path, latency: float) -> tuple[float, int, float]:
    """Seconds until the whole folder is there, from nothing; bytes fetched; seconds of a second look."""
    source = RawFile(image)
    with Device(SlowSource(source, latency)) as device, Session({"volume": device}) as session:
        began = time.perf_counter()
        listed = sum(1 for _ in session.entries(b"/volume/many"))
        first = time.perf_counter() - began
        began = time.perf_counter()
        session.listing(b"/volume/many", offset=5_000, limit=1_000)
        second = time.perf_counter() - began
        fetched = device.bytes_fetched
    source.close()
    if listed != MANY:
        raise SystemExit(f"{listed} files were listed instead of {MANY}")
    return first, fetched, second


def _show(title: str, runs: list[tuple[float, int, float]]) -> None:
    first, fetched, second = (statistics.median(each) for each in zip(*runs, strict=True))
    print(f"{title}  {first:.2f} s (wanted < 5), {fetched / MIB:.1f} MiB fetched (wanted < 64)")
    print(f"another page of the same folder  {second * 1000:.1f} ms")


def _read(image: Path) -> None:
    source = RawFile(image)
    for title, zipped in (("reading one large file", False), ("the same as a zip", True)):
        with Device(source) as device, Session({"volume": device}) as session:
            began = time.perf_counter()
            path = b"/volume/large.bin"
            for _ in zip_stream(session, [path]) if zipped else session.stream(path):
                continue
            seconds = time.perf_counter() - began
        print(f"{title}  {LARGE_FILE / MIB / seconds:.0f} MiB/s")
    source.close()
