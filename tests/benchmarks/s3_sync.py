"""A sync of 100,000 objects of which 1 % changed: calls of S3, seconds, peak memory.

`python -m tests.benchmarks s3_sync [--objects 100000] [--latency-ms 20] [--seconds 60]`. S3 is a stub of our own in
another process, which answers each call after the latency: moto sorts a whole bucket for every page of a list. The sync
runs in a child process, in slices of so many seconds.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence

import requests

MIB = 1024 * 1024


def main(arguments: Sequence[str]) -> None:
    options = argparse.ArgumentParser("s3_sync")
    options.add_argument("--objects", type=int, default=100_000)
    options.add_argument("--latency-ms", type=float, default=20.0)
    options.add_argument("--seconds", type=float, default=60.0)
    given = options.parse_args(arguments)
    stub = [sys.executable, "-m", "tests.benchmarks.s3_sync_stub"]
    command = [*stub, "--objects", str(given.objects), "--latency-ms", str(given.latency_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
            for title in ("1 % changed", "nothing changed"):
                measure(title, url, given.objects, given.seconds)
        finally:
            process.terminate()


def measure(title: str, url: str, objects: int, seconds: float) -> None:
    requests.get(f"{url}/_reset", timeout=10).raise_for_status()
    child = [sys.executable, "-m", "tests.benchmarks.s3_sync_run", url, str(seconds)]
    told = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    stats = requests.get(f"{url}/_stats", timeout=10).json()
    calls = stats["calls"]
    print(
        f"{objects:,} objects, {title}: {told['seconds']:.1f} s in {told['slices']} slice(s), complete {told['complete']}"
    )
    print(
        f"  lists {calls.get('list', 0)} (goal at most {-(-objects // 1000) * 2 + 2})   copies {calls.get('copy', 0)}"
        f" (changed {stats['changed']})   other calls {sum(calls.values()) - calls.get('list', 0) - calls.get('copy', 0)}"
    )
    print(f"  peak resident memory {told['peak'] / MIB:.0f} MiB (goal below 200)   CPU {told['cpu']:.1f} s")
