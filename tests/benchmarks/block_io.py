"""Blocks from EBS direct to an S3 repository and back, by the block I/O client and by what others use.

Every run is a process of its own against the stub of `block_stub`, interleaved, median of the rounds. The pipelines
share the repository's engine and differ only in how blocks and packs travel; as over TLS, bodies are not signed. `--dsnap PYTHON` names an interpreter
that has dsnap, the download tool to compare with.
"""

import argparse
import base64
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import boto3
from botocore.config import Config

from cpm.aws import gateway
from cpm.aws.ebs_direct import BLOCK, EbsDirect
from cpm.aws.identity import Keys
from cpm.aws.linear_checksum import LinearChecksum
from cpm.aws.s3_objects import S3Objects
from cpm.repository.keys import RawKey
from cpm.repository.manifest import Draft, Manifest
from cpm.repository.reader import Reader
from cpm.repository.repository import Repository, create
from cpm.repository.store import Retrying
from cpm.repository.store_boto import BotoObjects
from cpm.repository.store_direct import DirectObjects
from cpm.repository.store_s3 import S3Store
from cpm.repository.writer import CopyWriter

REGION, BUCKET = "us-east-1", "bucket"
KEYS = Keys("AKIDEXAMPLE", "secret", account_number="123456789012")
THREADS = 16
"""Of the boto3 pipelines, as usual; more make them slower."""
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
CORES = os.cpu_count() or 2
AHEAD = 64
READERS = 4
"""Threads that fetch packs for a restore: most of the time they wait for S3."""
GOALS = {"copy / boto3": 2.0, "download / dsnap": 1.2}
FSP_UPLOAD = 239
"""MB/s of AWS's flexible-snapshot-proxy writing into a stub of the same kind on such a machine."""


def main(arguments: Sequence[str]) -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--mib", type=int, default=2048)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--latencies", default="0,20")
    options.add_argument("--dsnap", default=sys.executable)
    options.add_argument("--without-listing", action="store_true")
    given = options.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        image = Path(folder) / "image"
        make_image(image, given.mib)
        names = ["copy", "copy_boto3", "download", "restore", "restore_boto3"]
        names += ["dsnap"] if has_dsnap(given.dsnap) else []
        for latency in given.latencies.split(","):
            with Stub(image, latency) as stub:
                compare(stub, names, given)
        if "dsnap" not in names:
            print("dsnap is not installed: its line is left out")
        if not given.without_listing:
            with Stub(image, "0") as stub:
                show("list 16 TiB", [run(stub, "listing", given)])


# -- runs -------------------------------------------------------------------------------------------------


class Stub:
    """The stub as a process."""

    def __init__(self, image: Path, latency: str) -> None:
        self.latency = latency
        command = [sys.executable, "-m", "tests.benchmarks.block_stub"]
        self.process = subprocess.Popen(
            [*command, "--image", str(image), "--latency-ms", latency], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def __enter__(self) -> "Stub":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def ask(self, what: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/{what}", timeout=30) as answer:
            told: dict[str, Any] = json.load(answer)
        return told


def compare(stub: Stub, names: Sequence[str], given: argparse.Namespace) -> None:
    print(f"-- latency {stub.latency} ms, image {given.mib} MiB, {given.rounds} rounds", flush=True)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(given.rounds):
        for name in names:
            results[name].append(run(stub, name, given))
    for name in names:
        show(name, results[name])
    rate = {name: median(one["rate"] for one in found) for name, found in results.items()}
    ratios = {
        "copy / boto3": rate["copy"] / rate["copy_boto3"],
        "restore / boto3": rate["restore"] / rate["restore_boto3"],
    }
    if "dsnap" in rate:
        ratios |= {
            "download / dsnap": rate["download"] / rate["dsnap"],
            "copy / dsnap": rate["copy"] / rate["dsnap"],
        }
    for name, value in ratios.items():
        print(f"  {name:18} {value:5.2f} x" + (f"   (goal {GOALS[name]})" if name in GOALS else ""))
    print(
        f"  restore            {rate['restore'] / FSP_UPLOAD:5.2f} x the {FSP_UPLOAD} MB/s of fsp upload (goal 1.5)"
    )


def run(stub: Stub, name: str, given: argparse.Namespace) -> dict[str, Any]:
    stub.ask("_reset")
    python = given.dsnap if name == "dsnap" else sys.executable
    code = (
        DSNAP
        if name == "dsnap"
        else f"from tests.benchmarks.block_io import child; child({name!r}, {stub.url!r})"
    )
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": stub.url,
        "AWS_ACCESS_KEY_ID": KEYS.access_key,
        "AWS_SECRET_ACCESS_KEY": KEYS.secret_key,
        "AWS_DEFAULT_REGION": REGION,
    }
    # dsnap tells of every block.
    errors = subprocess.DEVNULL if name == "dsnap" else None
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        cwd = folder if name == "dsnap" else None
        done = subprocess.run(
            [python, "-c", code],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=cwd,
            check=True,
        )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    result["most"] = stub.ask("_stats")["most"]
    return result


def show(name: str, found: Sequence[dict[str, Any]]) -> None:
    middle = {key: median(one[key] for one in found) for key in ("rate", "per_cpu", "rss", "most")}
    print(
        f"  {name:14} {middle['rate']:6.0f} MB/s  {middle['per_cpu']:6.0f} MB per CPU second  "
        f"peak memory {middle['rss']:4.0f} MiB  requests in flight {middle['most']:4.0f}",
        flush=True,
    )


def has_dsnap(python: str) -> bool:
    found = shutil.which(python)
    return (
        found is not None
        and subprocess.run([found, "-c", "import dsnap"], capture_output=True, check=False).returncode == 0
    )


DSNAP = """
import json, resource, time, boto3
from dsnap.snapshot import LocalSnapshot
began, cpu = time.monotonic(), time.process_time()
LocalSnapshot(".", "snap-0", boto3.session.Session(region_name="us-east-1")).fetch(force=True)
ebs, size, token = boto3.client("ebs"), 0, {}
wall, cpu = time.monotonic() - began, time.process_time() - cpu
while True:
    page = ebs.list_snapshot_blocks(SnapshotId="snap-0", MaxResults=10000, **token)
    size += len(page["Blocks"]) * 524288
    if not page.get("NextToken"):
        break
    token = {"NextToken": page["NextToken"]}
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps({"rate": size / 1e6 / wall, "per_cpu": size / 1e6 / cpu, "rss": rss}))
"""


# -- in the child -----------------------------------------------------------------------------------------


def child(name: str, url: str) -> None:
    """One measured run; the figures as the last line."""
    gateway.configure(gateway.GatewayConfig(endpoint_url=url))
    prepared = PREPARED[name](url)
    began, cpu = time.monotonic(), time.process_time()
    size = prepared()
    wall, cpu = time.monotonic() - began, time.process_time() - cpu
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"rate": size / 1e6 / wall, "per_cpu": size / 1e6 / cpu, "rss": rss}))


def direct() -> EbsDirect:
    return EbsDirect(KEYS, REGION, ahead=AHEAD)


def boto(service: str, url: str) -> Any:
    options = Config(max_pool_connections=2 * THREADS, s3={"payload_signing_enabled": False})
    return boto3.client(
        service, REGION, endpoint_url=url, aws_access_key_id=KEYS.access_key, aws_secret_access_key=KEYS.secret_key,
        config=options,
    )  # fmt: skip


def repository_on(client: Any) -> Repository:
    return create(Retrying(S3Store(client, "repository")), RawKey(bytes(32)), owner=uuid.UUID(int=1))


def draft(blocks: int) -> Draft:
    return Draft(uuid.uuid4().hex, "vol-1", blocks * BLOCK, "2026-11-21T00:00:00+00:00")


def copied(
    repository: Repository, refs: Sequence[tuple[int, str]], fill: Callable[[CopyWriter], None]
) -> Manifest:
    """The copy of a volume whose listed blocks are written by ``fill``."""
    made = draft(refs[-1][0] + 1)
    with CopyWriter(repository, made, threads=CORES, background=CORES) as writer:
        present = {index for index, _ in refs}
        zeros = bytes(BLOCK)
        for block in writer.plan(0, made.blocks):
            if block not in present:
                writer.write(block, zeros)
        fill(writer)
        writer.checkpoint()
    return repository.finish_copy(made)


def in_threads(work: Callable[[], None]) -> None:
    """The work in as many threads as there are cores; raises what the first of them raised."""
    with ThreadPoolExecutor(CORES) as threads:
        for future in [threads.submit(work) for _ in range(CORES)]:
            future.result()


def copy(repository: Repository) -> tuple[Manifest, int]:
    ebs = direct()
    refs = list(ebs.list_blocks("snap-0"))

    def fill(writer: CopyWriter) -> None:
        with ebs.read_blocks("snap-0", refs) as reading:

            def write() -> None:
                for index, data in reading:
                    writer.write(index, data)

            in_threads(write)

    return copied(repository, refs, fill), len(refs) * BLOCK


def prepare_copy(url: str) -> Callable[[], int]:
    repository = repository_on(DirectObjects(S3Objects(KEYS, REGION, BUCKET, signed=False)))
    return lambda: copy(repository)[1]


def prepare_copy_boto3(url: str) -> Callable[[], int]:
    repository = repository_on(BotoObjects(boto("s3", url), BUCKET))
    ebs = boto("ebs", url)

    def run_it() -> int:
        refs: list[tuple[int, str]] = []
        more: dict[str, str] = {}
        while True:
            page = ebs.list_snapshot_blocks(SnapshotId="snap-0", MaxResults=10000, **more)
            refs += [(block["BlockIndex"], block["BlockToken"]) for block in page["Blocks"]]
            if not page.get("NextToken"):
                break
            more = {"NextToken": page["NextToken"]}

        def fill(writer: CopyWriter) -> None:
            def one(ref: tuple[int, str]) -> None:
                got = ebs.get_snapshot_block(SnapshotId="snap-0", BlockIndex=ref[0], BlockToken=ref[1])
                data = got["BlockData"].read()
                check(data, got["Checksum"])
                writer.write(ref[0], data)

            with ThreadPoolExecutor(THREADS) as threads:
                list(threads.map(one, refs))

        copied(repository, refs, fill)
        return len(refs) * BLOCK

    return run_it


def prepare_download(url: str) -> Callable[[], int]:
    ebs = direct()

    def run_it() -> int:
        size = 0
        reading = ebs.read_blocks("snap-0", ebs.list_blocks("snap-0"))
        with tempfile.TemporaryFile(dir=MEMORY) as file, reading:
            for index, data in reading:
                size += os.pwrite(file.fileno(), data, index * BLOCK)
        return size

    return run_it


def prepare_restore(url: str) -> Callable[[], int]:
    repository = repository_on(DirectObjects(S3Objects(KEYS, REGION, BUCKET, signed=False)))
    manifest, size = copy(repository)
    ebs = direct()

    def run_it() -> int:
        reader, total = Reader(repository, manifest), LinearChecksum()
        begun = ebs.start_snapshot(16, client_token=uuid.uuid4().hex)["SnapshotId"]
        with ebs.write_blocks(begun, reader.blocks(threads=READERS), total) as writing:
            written = sum(1 for _ in writing)
        ebs.complete_snapshot(begun, total.count, total.digest())
        assert written * BLOCK == size
        return size

    return run_it


def prepare_restore_boto3(url: str) -> Callable[[], int]:
    repository = repository_on(BotoObjects(boto("s3", url), BUCKET))
    manifest, size = copy(repository)
    ebs = boto("ebs", url)

    def run_it() -> int:
        reader = Reader(repository, manifest)
        begun = ebs.start_snapshot(VolumeSize=16)["SnapshotId"]
        room, written = threading.Semaphore(2 * THREADS), count()

        def one(index: int, data: bytes) -> None:
            try:
                told = {"DataLength": BLOCK, "Checksum": checksum(data), "ChecksumAlgorithm": "SHA256"}
                ebs.put_snapshot_block(SnapshotId=begun, BlockIndex=index, BlockData=data, **told)
                next(written)
            finally:
                room.release()

        with ThreadPoolExecutor(THREADS) as threads:
            for index, data in reader.blocks(threads=READERS):
                room.acquire()
                threads.submit(one, index, data)
        ebs.complete_snapshot(SnapshotId=begun, ChangedBlocksCount=next(written))
        return size

    return run_it


def prepare_listing(url: str) -> Callable[[], int]:
    ebs = direct()
    return lambda: sum(1 for _ in ebs.list_blocks("snap-1")) * BLOCK


PREPARED = {
    "copy": prepare_copy,
    "copy_boto3": prepare_copy_boto3,
    "download": prepare_download,
    "restore": prepare_restore,
    "restore_boto3": prepare_restore_boto3,
    "listing": prepare_listing,
}


def checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def check(data: bytes, told: str) -> None:
    if checksum(data) != told:
        raise AssertionError("a block arrived damaged")


# -- image ------------------------------------------------------------------------------------------------


def make_image(path: Path, mib: int) -> None:
    """Half random, a quarter zeros, a quarter like log files."""
    words = ["".join(random.Random(n).choices("etaoinshrdlu", k=2 + n % 9)) for n in range(6000)]
    with path.open("wb") as file:
        for index in range(mib * 1024 * 1024 // BLOCK):
            file.write(content(index, words))


def content(index: int, words: Sequence[str]) -> bytes:
    draw = random.Random(index)
    if index % 4 == 2:
        return bytes(BLOCK)
    if index % 4 != 3:
        return draw.randbytes(BLOCK)
    lines, size = [], 0
    while size < BLOCK:
        chosen = " ".join(draw.choices(words, k=6))
        line = f"{1_700_000_000 + draw.randrange(10**7)} host-{draw.randrange(40):02} {chosen} id={draw.getrandbits(32):08x}\n"
        lines.append(line)
        size += len(line)
    return "".join(lines).encode()[:BLOCK]
