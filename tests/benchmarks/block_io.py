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
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import boto3
import zstandard
from blake3 import blake3
from botocore.config import Config
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cpm.aws import gateway
from cpm.aws.ebs_direct import BLOCK, EbsDirect
from cpm.aws.identity import Keys
from cpm.aws.linear_checksum import LinearChecksum
from cpm.aws.s3_objects import S3Objects
from cpm.flows.s3.copy_blocks import AHEAD, Source, Tally, copy_blocks, threads
from cpm.flows.s3.restore_blocks import READERS, restore_part
from cpm.repository.blocks import is_zero
from cpm.repository.keys import RawKey
from cpm.repository.manifest import Draft, Manifest
from cpm.repository.reader import Reader
from cpm.repository.repository import Repository, create, open_repository
from cpm.repository.store_direct import DirectObjects
from cpm.repository.store_s3 import S3Store
from cpm.repository.writer import LEVEL, WORTH_PACKING, CopyWriter
from tests.benchmarks.boto_objects import BotoObjects
from tests.benchmarks.repository_image import Image

REGION, BUCKET = "us-east-1", "bucket"
KEYS = Keys("AKIDEXAMPLE", "secret", account_number="123456789012")
THREADS = 16
"""Of the boto3 pipelines, as usual; more make them slower."""
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
CORES = os.cpu_count() or 2
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
        Image(given.mib * 1024 * 1024 // BLOCK).write(image)
        names = ["copy", "copy_boto3", "download", "restore", "restore_boto3"]
        names += ["dsnap"] if has_dsnap(given.dsnap) else []
        for latency in given.latencies.split(","):
            with Stub(image, latency) as stub:
                compare(stub, names, given)
        floor = median(least_cpu(image) for _ in range(3))
        print(f"hashing, packing and encrypting alone: {floor:.0f} MB per CPU second here")
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
    return create(S3Store(client, "repository"), RawKey(bytes(32)), owner=uuid.UUID(int=1))


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


def copy(repository: Repository, blocks: int) -> int:
    """As the product copies a part of a volume."""
    made, tally = draft(blocks), Tally()
    with CopyWriter(repository, made, threads=threads(), background=threads()) as writer:
        copy_blocks(writer, Source(EbsDirect(KEYS, REGION, ahead=AHEAD), "snap-0"), tally)
    repository.finish_copy(made)
    return tally.read * BLOCK


def volume_blocks() -> int:
    return max(index for index, _ in direct().list_blocks("snap-0")) + 1


def prepare_copy(url: str) -> Callable[[], int]:
    repository, blocks = (
        repository_on(DirectObjects(S3Objects(KEYS, REGION, BUCKET, signed=False))),
        volume_blocks(),
    )
    return lambda: copy(repository, blocks)


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

            with ThreadPoolExecutor(THREADS) as readers:
                list(readers.map(one, refs))

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


def stored_copy(url: str, client: Any) -> tuple[Repository, Manifest]:
    """A copy made by a process of its own, whose memory is none of the restore's."""
    code = f"from tests.benchmarks.block_io import child; child('copy', {url!r})"
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
    repository = open_repository(S3Store(client, "repository"), RawKey(bytes(32)))
    return repository, next(repository.copies())


def prepare_restore(url: str) -> Callable[[], int]:
    repository, manifest = stored_copy(url, DirectObjects(S3Objects(KEYS, REGION, BUCKET, signed=False)))
    ebs = direct()

    def run_it() -> int:
        reader, total, first = Reader(repository, manifest), LinearChecksum(), 0
        begun = ebs.start_snapshot(16, client_token=uuid.uuid4().hex)["SnapshotId"]
        while first < manifest.draft.blocks:
            first = restore_part(reader, ebs, begun, first, total)
        ebs.complete_snapshot(begun, total.count, total.digest())
        return total.count * BLOCK

    return run_it


def prepare_restore_boto3(url: str) -> Callable[[], int]:
    repository, manifest = stored_copy(url, BotoObjects(boto("s3", url), BUCKET))
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

        with ThreadPoolExecutor(THREADS) as writers, reader.gather(threads=READERS) as blocks:
            for index, data in blocks:
                room.acquire()
                writers.submit(one, index, bytes(data))
        size = next(written)
        ebs.complete_snapshot(SnapshotId=begun, ChangedBlocksCount=size)
        return size * BLOCK

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


# -- what cannot be left out ------------------------------------------------------------------------------


def least_cpu(image: Path, most: int = 256) -> float:
    """MB per CPU second of what a copy does to every block, without moving any: EBS's checksum, the id, zstd 3, AES-GCM
    and S3's checksum."""
    squeeze, cipher = zstandard.ZstdCompressor(level=LEVEL), AESGCM(bytes(32))
    target = memoryview(bytearray(BLOCK + 16))
    with image.open("rb") as file:
        blocks = [block for block in (file.read(BLOCK) for _ in range(most)) if not is_zero(block)]
    began = time.thread_time()
    for number, block in enumerate(blocks):
        hashlib.sha256(block).digest()
        blake3(block, key=bytes(32)).digest()
        packed = squeeze.compress(block)
        payload = packed if len(packed) < WORTH_PACKING * BLOCK else block
        stored = target[: len(payload) + 16]
        cipher.encrypt_into(number.to_bytes(12), payload, b"", stored)
        zlib.crc32(stored)
    return len(blocks) * BLOCK / 1e6 / (time.thread_time() - began)
