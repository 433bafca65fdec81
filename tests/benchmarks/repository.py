"""The repository beside restic and borg: one image, a directory, everything on tmpfs, runs interleaved.

`python -m tests.benchmarks repository [--mib 2048] [--rounds 3] [--folder /dev/shm]`. Peers that are not installed
are skipped and named. MB are millions of bytes. Ratios are medians over the rounds; machine noise is in all of them.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cpm.repository.blocks import BlockIndex, is_zero
from cpm.repository.index import COMMON, IndexedPack, View
from cpm.repository.packs import ENTRY
from tests.benchmarks.repository_image import BLOCK, Image

PYTHON = sys.executable
ENGINE = [PYTHON, "-m", "tests.benchmarks.repository_engine"]
# Peak memory is inherited over exec, so a small process of our own stands between and reports.
LAUNCH = """
import os, resource, sys, time
start = time.monotonic()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(pid, 0)
with open(sys.argv[1], "w") as report:
    report.write(f"{time.monotonic() - start} {used.ru_utime + used.ru_stime} {used.ru_maxrss}")
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Cost:
    wall: float
    cpu: float
    rss: int


def run(command: list[str], environment: dict[str, str] | None = None, cwd: Path | None = None) -> Cost:
    with tempfile.NamedTemporaryFile("r") as report:
        done = subprocess.run(
            [PYTHON, "-S", "-c", LAUNCH, report.name, *command],
            env={**os.environ, "PYTHONPATH": os.getcwd(), **(environment or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr.decode()[-2000:]}")
        wall, cpu, rss = report.read().split()
    return Cost(float(wall), float(cpu), int(rss) // 1024)


def stored(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Ours:
    name = "cpm"

    def __init__(self, work: Path) -> None:
        self.folder = work / "cpm"
        self.ids = [f"{number:032x}" for number in range(1, 4)]

    def start(self) -> None:
        run([*ENGINE, "init", str(self.folder)])

    def first(self, image: Path) -> Cost:
        return run([*ENGINE, "copy", str(self.folder), str(image), self.ids[0]])

    def tracked(self, image: Path, changed: Path) -> Cost:
        return run([*ENGINE, "copy", str(self.folder), str(image), self.ids[1], self.ids[0], str(changed)])

    def untracked(self, image: Path) -> Cost:
        # As if the changes were not known, and before they are stored: onto a copy of the repository.
        twin = self.folder.with_name("cpm-untracked")
        shutil.copytree(self.folder, twin)
        cost = run([*ENGINE, "copy", str(twin), str(image), self.ids[2], self.ids[0]])
        shutil.rmtree(twin)
        return cost

    def restore(self, target: Path) -> tuple[Cost, Path]:
        return run(
            [*ENGINE, "restore", str(self.folder), self.ids[1], str(target / "image")]
        ), target / "image"

    def check(self) -> Cost:
        return run([*ENGINE, "check", str(self.folder)])

    def startup(self) -> Cost:
        return run([*ENGINE, "nothing"])


class Restic:
    name = "restic"

    def __init__(self, work: Path) -> None:
        self.folder = work / "restic"
        self.environment = {
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_REPOSITORY": str(self.folder),
            "RESTIC_CACHE_DIR": str(work / "restic-cache"),
        }

    def start(self) -> None:
        run(["restic", "init"], self.environment)

    def first(self, image: Path) -> Cost:
        return run(["restic", "backup", "--ignore-inode", image.name], self.environment, image.parent)

    def tracked(self, image: Path, changed: Path) -> Cost:
        return self.first(image)

    def restore(self, target: Path) -> tuple[Cost, Path]:
        cost = run(["restic", "restore", "latest", "--target", str(target)], self.environment)
        return cost, next(target.rglob("image"))

    def check(self) -> Cost:
        return run(["restic", "check", "--read-data"], self.environment)

    def startup(self) -> Cost:
        return run(["restic", "version"], self.environment)


class Borg:
    """With fixed blocks of our size and our compression, its fastest way with images."""

    name = "borg"

    def __init__(self, work: Path) -> None:
        self.folder = work / "borg"
        self.environment = {"BORG_PASSPHRASE": "benchmark", "BORG_BASE_DIR": str(work / "borg-home")}
        (work / "borg-home").mkdir()
        self.archives = 0

    def start(self) -> None:
        run(["borg", "init", "-e", "repokey-blake2", str(self.folder)], self.environment)

    def first(self, image: Path) -> Cost:
        self.archives += 1
        options = ["-C", "zstd,3", "--chunker-params", "fixed,524288"]
        target = f"{self.folder}::{self.archives}"
        return run(["borg", "create", *options, target, image.name], self.environment, image.parent)

    def tracked(self, image: Path, changed: Path) -> Cost:
        return self.first(image)

    def restore(self, target: Path) -> tuple[Cost, Path]:
        archive = f"{self.folder}::{self.archives}"
        return run(["borg", "extract", "--sparse", archive], self.environment, target), target / "image"

    def check(self) -> Cost:
        return run(["borg", "check", "--verify-data", str(self.folder)], self.environment)

    def startup(self) -> Cost:
        return run(["borg", "--version"], self.environment)


@dataclass
class Figures:
    costs: dict[str, list[Cost]] = field(default_factory=dict)
    growth: list[float] = field(default_factory=list)

    def add(self, what: str, cost: Cost) -> None:
        self.costs.setdefault(what, []).append(cost)


def one_core_limit(image: Path, most: int = 512) -> float:
    """MB/s of one core for zero test, hash, zstd 3 and AES-GCM on blocks of this image."""
    squeeze, cipher = zstandard.ZstdCompressor(level=3), AESGCM(bytes(32))
    target = memoryview(bytearray(BLOCK + 4096))
    with open(image, "rb") as file:
        blocks = [file.read(BLOCK) for _ in range(most)]
    start = time.thread_time()
    for number, block in enumerate(blocks):
        if is_zero(block):
            continue
        blake3(block, key=bytes(32)).digest()
        packed = squeeze.compress(block)
        payload = packed if len(packed) < 0.97 * BLOCK else block
        cipher.encrypt_into(number.to_bytes(12), payload, b"", target[: len(payload) + 16])
    return most * BLOCK / (time.thread_time() - start) / 1e6


def packed_size(image: Path, numbers: list[int]) -> int:
    """What the changed blocks take up compressed."""
    squeeze = zstandard.ZstdCompressor(level=3)
    total = 0
    with open(image, "rb") as file:
        for number in numbers:
            file.seek(number * BLOCK)
            total += min(BLOCK, len(squeeze.compress(file.read(BLOCK))))
    return total


def one_round(
    work: Path, engines: list[Callable[[Path], Ours | Restic | Borg]], image: Image, mib: int
) -> dict[str, Figures]:
    path, changed = work / "image", work / "changed.json"
    # A fresh image each round: the blocks changed in the last one are put back.
    numbers = image.changed(0.05)
    image.change(path, numbers, generation=0)
    changed.write_text(json.dumps(numbers))
    found: dict[str, Figures] = {}
    runs = [make(Path(tempfile.mkdtemp(dir=work))) for make in engines]
    for engine in runs:
        found[engine.name] = Figures()
        engine.start()
        found[engine.name].add("startup", engine.startup())
        found[engine.name].add("first", engine.first(path))
    image.change(path, numbers)
    ideal, truth = packed_size(path, numbers), digest(path)
    for engine in runs:
        figures = found[engine.name]
        if isinstance(engine, Ours):
            figures.add("untracked", engine.untracked(path))
        before = stored(engine.folder)
        figures.add("changed", engine.tracked(path, changed))
        figures.growth.append((stored(engine.folder) - before) / ideal)
    for engine in runs:
        target = Path(tempfile.mkdtemp(dir=work))
        cost, restored = engine.restore(target)
        if digest(restored) != truth:
            raise SystemExit(f"{engine.name} restored something else")
        shutil.rmtree(target)
        found[engine.name].add("restore", cost)
    for engine in runs:
        found[engine.name].add("check", engine.check())
    for engine in runs:
        shutil.rmtree(engine.folder.parent)
    return found


def median(rounds: list[dict[str, Figures]], name: str, what: str, figure: str = "wall") -> float:
    values = [getattr(cost, figure) for each in rounds for cost in each[name].costs[what]]
    return statistics.median(values)


def net(rounds: list[dict[str, Figures]], name: str, what: str) -> float:
    """Seconds without start-up and imports."""
    return statistics.median(
        max(0.01, each[name].costs[what][0].wall - each[name].costs["startup"][0].wall) for each in rounds
    )


def report(rounds: list[dict[str, Figures]], mib: int, limit: float) -> None:
    size = mib * 2**20 / 1e6
    print(
        f"{'':8}{'first MB/s':>11}{'CPU s':>7}{'+5% s':>7}{'growth':>8}{'restore MB/s':>14}{'check s':>9}{'RSS MiB':>9}"
    )
    for name in rounds[0]:
        growth = statistics.median(each[name].growth[0] for each in rounds)
        rss = max(cost.rss for each in rounds for costs in each[name].costs.values() for cost in costs)
        print(
            f"{name:8}{size / median(rounds, name, 'first'):11.0f}{median(rounds, name, 'first', 'cpu'):7.2f}"
            f"{net(rounds, name, 'changed'):7.2f}{growth:8.3f}{size / median(rounds, name, 'restore'):14.0f}"
            f"{median(rounds, name, 'check'):9.2f}{rss:9}"
        )
    first = size / median(rounds, "cpm", "first")
    print(
        f"one core, zero test + hash + zstd 3 + GCM: {limit:.0f} MB/s; first copy is {first / limit / 2:.2f} of twice that (goal 0.5)"
    )
    print(f"+5 % without change tracking: {net(rounds, 'cpm', 'untracked'):.2f} s")
    for peer, goals in (("restic", (2.5, 6, 2, 2.3, 3)), ("borg", (2, 2.5, None, 2.3, None))):
        if peer not in rounds[0]:
            print(f"{peer} is not installed here: no comparison")
            continue

        def ratio(what: str, ours: str | None = None, peer: str = peer) -> float:
            return statistics.median(
                each[peer].costs[what][0].wall / each["cpm"].costs[ours or what][0].wall for each in rounds
            )

        def net_ratio(ours: str, peer: str = peer) -> float:
            return net(rounds, peer, "changed") / net(rounds, "cpm", ours)

        cpu = median(rounds, "cpm", "first", "cpu") / median(rounds, peer, "first", "cpu")
        lines = [
            ("first copy", ratio("first"), goals[0]),
            ("+5 % known", net_ratio("changed"), goals[1]),
            ("+5 % unknown", net_ratio("untracked"), goals[2]),
            ("restore", ratio("restore"), goals[3]),
            ("full check", ratio("check"), goals[4]),
        ]
        text = ", ".join(
            f"{what} {value:.2f}x" + (f" (goal {goal})" if goal else "") for what, value, goal in lines
        )
        print(f"against {peer}: {text}; CPU of the first copy {cpu:.2f} of its")


def index_memory(blocks: int = 2_000_000) -> None:
    """What the index takes for as many distinct ids, in packs of 32 blocks."""
    rng = np.random.default_rng(5)
    view = View(COMMON, 0.0)
    before = resident()
    start = time.perf_counter()
    for number in range(blocks // 32):
        table = np.zeros(32, ENTRY)
        table["high"] = rng.integers(0, 2**64, 32, dtype=np.uint64)
        table["low"] = rng.integers(0, 2**64, 32, dtype=np.uint64)
        view.add_pack(IndexedPack(number.to_bytes(16), 17 << 20, table), 0)
    view.blocks.settle()
    loaded = time.perf_counter() - start
    index: BlockIndex = view.blocks
    held = index.nbytes + len(view.packs) * 29
    probes = [rng.bytes(16) for _ in range(20_000)]
    start = time.perf_counter()
    hits = sum(bool(index.find(probe)) for probe in probes)
    took = time.perf_counter() - start
    print(
        f"index of {len(index):,} distinct blocks in {len(view.packs):,} packs: {held / 2**20:.1f} MiB "
        f"({held / len(index):.1f} bytes each, goal 40 MiB; resident +{resident() - before:.0f} MiB), filled in "
        f"{loaded:.1f} s, {len(probes) / took:,.0f} look-ups/s, {hits} false"
    )


def resident() -> float:
    """MiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="repository")
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    given = parser.parse_args(arguments)
    index_memory()
    engines: list[Callable[[Path], Ours | Restic | Borg]] = [Ours]
    engines += [peer for peer in (Restic, Borg) if shutil.which(peer.name)]
    image = Image(given.mib * 2)
    work = Path(tempfile.mkdtemp(prefix="cpm-bench-", dir=given.folder))
    try:
        run([*ENGINE, "init", str(work / "huge")])
        cost = run([*ENGINE, "huge", str(work / "huge")])
        print(
            f"16 TiB with 32,768 blocks in use, copied and listed: peak {cost.rss} MiB (goal 256), {cost.wall:.0f} s"
        )
        image.write(work / "image")
        rounds = []
        for number in range(given.rounds):
            # Whoever goes first meets cold memory, so the order turns.
            turned = engines[number % len(engines) :] + engines[: number % len(engines)]
            rounds.append(one_round(work, turned, image, given.mib))
        rounds[0] = {
            engine.name: rounds[0][engine.name] for engine in (Ours, Restic, Borg) if engine.name in rounds[0]
        }
        report(rounds, given.mib, one_core_limit(work / "image"))
    finally:
        shutil.rmtree(work)
