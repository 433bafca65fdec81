"""Two buckets of S3 with many objects and no bytes: lists, copies and deletions, each after a latency."""

import argparse
import asyncio
import json
from bisect import bisect_right
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from tests.benchmarks.block_stub import JSON, XML, Answer, Protocol, answer, refusal

START = datetime(2026, 11, 21, tzinfo=UTC)
PAGE = 1000


class World:
    """What `Protocol` of the block stub asks for answers. One in a hundred objects is younger than its copy; copies stay
    copied over a reset, which only forgets what was counted."""

    def __init__(self, objects: int) -> None:
        self.under_way = self.most = 0
        self.calls: Counter[str] = Counter()
        young, old, between = START + timedelta(days=2), START, START + timedelta(days=1)
        self.changed = 0
        self.buckets: dict[str, dict[str, datetime]] = {"from": {}, "to": {}}
        for number in range(objects):
            name = f"2026/{number // 10_000:03}/some-service/part-{number:09}.parquet"
            changed = number % 100 == 50
            self.changed += changed
            self.buckets["from"][f"data/{name}"] = young if changed else old
            self.buckets["to"][f"copies/data/{name}"] = between
        self.keys = {bucket: sorted(objects) for bucket, objects in self.buckets.items()}

    def answer(self, method: str, target: str, headers: Any, body: Any) -> Answer:
        path, _, text = target.partition("?")
        if path == "/_reset":
            self.calls.clear()
            return answer(200, JSON, b"{}")
        if path == "/_stats":
            told = {"calls": self.calls, "changed": self.changed}
            self.changed = 0
            return answer(200, JSON, json.dumps(told).encode())
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        query = parse_qs(text, keep_blank_values=True)
        if method == "GET" and "list-type" in query:
            self.calls["list"] += 1
            return self.listed(bucket, query)
        if method == "PUT" and "x-amz-copy-source" in headers and key in self.buckets[bucket]:
            self.calls["copy"] += 1
            self.buckets[bucket][key] = START + timedelta(days=3)
            return answer(200, XML, b'<CopyObjectResult><ETag>"e"</ETag></CopyObjectResult>')
        self.calls[f"other {method}"] += 1
        return refusal("only lists and copies over known keys are expected")

    def listed(self, bucket: str, query: dict[str, list[str]]) -> Answer:
        keys, objects, prefix = self.keys[bucket], self.buckets[bucket], query["prefix"][0]
        after = query.get("continuation-token", query.get("start-after", [prefix]))[0]
        first = bisect_right(keys, after)
        found = [key for key in keys[first : first + PAGE] if key.startswith(prefix)]
        more = first + PAGE < len(keys)
        contents = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>{objects[key]:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            "<ETag>&quot;0123456789abcdef0123456789abcdef&quot;</ETag><Size>1000</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key in found
        )
        following = f"<NextContinuationToken>{found[-1]}</NextContinuationToken>" if more else ""
        return answer(
            200,
            XML,
            f"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{following}{contents}</ListBucketResult>".encode(),
        )


async def serve(objects: int, latency: float) -> None:
    world = World(objects)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Protocol(world, latency), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--objects", type=int, required=True)
    options.add_argument("--latency-ms", type=float, default=0.0)
    given = options.parse_args()
    asyncio.run(serve(given.objects, given.latency_ms / 1000))
