"""The measured process: runs a sync against a stub, slice after slice, and prints what it took as JSON."""

import json
import re
import sys
import time
from pathlib import Path

from cpm.aws import gateway
from cpm.aws.identity import Keys
from cpm.s3_sync import s3_buckets, slices
from cpm.s3_sync.counts import Counts
from cpm.s3_sync.mirror import Mirror


def peak() -> int:
    """Bytes. Unlike the figure of getrusage this one does not begin with what the parent had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def main(url: str, seconds: float) -> None:
    gateway.configure(gateway.GatewayConfig(endpoint_url=url))
    mirror = Mirror("from", "to", "data", "copies/data", delete_extra=True)
    keys = Keys("stub-access", "stub-secret")
    buckets = s3_buckets.connect(
        mirror, reader=keys, source_region="us-east-1", writer=keys, destination_region="eu-west-1"
    )
    began, counts, cursor, number, finished = time.monotonic(), Counts(), None, 0, False
    while not finished:
        deadline = time.monotonic() + seconds
        done = slices.run(mirror, buckets, cursor=cursor, stop=lambda end=deadline: time.monotonic() > end)
        if done.halted:
            raise SystemExit(str(done.halted))
        counts, cursor, finished, number = counts + done.counts, done.cursor, done.finished, number + 1
    told = {
        "seconds": time.monotonic() - began,
        "slices": number,
        "complete": counts.complete,
        "peak": peak(),
        "cpu": time.process_time(),
    }
    print(json.dumps({**told, **counts.stored()}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
