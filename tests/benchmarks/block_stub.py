"""EBS direct APIs and S3 in memory, cheap enough that the client is what a benchmark measures.

`python -m tests.benchmarks.block_stub --image FILE --latency-ms 20` prints its port. snap-0 has the image's blocks
that are not all zeros; snap-1 claims every block of 16 TiB and serves only its list. Signatures are not checked,
checksums of written blocks are. `GET /_stats` tells counts, `GET /_reset` forgets what was written.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import mmap
import re
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

BLOCK = 512 * 1024
HUGE_BLOCKS = 16 * 1024**4 // BLOCK
LONGEST_HEAD = 64 * 1024
JSON, XML, BYTES = "application/json", "application/xml", "application/octet-stream"
Answer = tuple[bytes, bytes | bytearray | memoryview]
CODES = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    206: "Partial Content",
    400: "Bad Request",
}


class World:
    """All that the stub knows."""

    def __init__(self, image: Path) -> None:
        with image.open("rb") as file:
            self.image = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        zeros = bytes(BLOCK)
        self.checksums: dict[int, str] = {}
        for index in range(len(self.image) // BLOCK):
            data = self.image[index * BLOCK : (index + 1) * BLOCK]
            if data != zeros:
                self.checksums[index] = base64.b64encode(hashlib.sha256(data).digest()).decode()
        self.objects: dict[str, bytearray] = {}
        self.written: dict[int, str] = {}
        self.under_way = self.most = 0
        self.reset()

    def reset(self) -> None:
        self.objects.clear()
        self.written.clear()
        self.most = 0

    # -- EBS direct ---------------------------------------------------------------------------------------

    def ebs(
        self, method: str, parts: list[str], query: dict[str, list[str]], headers: Any, body: Any
    ) -> Answer:
        if method == "POST" and len(parts) == 1:
            return answer(201, JSON, json.dumps({"SnapshotId": "snap-2", "BlockSize": BLOCK}).encode())
        if method == "POST":
            total = hashlib.sha256(
                b"".join(base64.b64decode(self.written[i]) for i in sorted(self.written))
            ).digest()
            right = headers.get("x-amz-checksum") in (None, base64.b64encode(total).decode())
            right = right and headers["x-amz-changedblockscount"] == str(len(self.written))
            return answer(202, JSON, b'{"Status": "completed"}') if right else refusal("checksum or count")
        if method == "PUT":
            checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
            if headers.get("x-amz-checksum") != checksum:
                return refusal("checksum")
            self.written[int(parts[3])] = checksum
            return answer(
                201, JSON, b"", f"x-amz-Checksum: {checksum}\r\nx-amz-Checksum-Algorithm: SHA256\r\n"
            )
        if len(parts) == 4:
            index = int(parts[3])
            more = (
                f"x-amz-Data-Length: {BLOCK}\r\nx-amz-Checksum: {self.checksums[index]}\r\n"
                "x-amz-Checksum-Algorithm: SHA256\r\n"
            )
            return answer(200, BYTES, self.image[index * BLOCK : (index + 1) * BLOCK], more)
        return self.listing(parts[1], query)

    def listing(self, snapshot: str, query: dict[str, list[str]]) -> Answer:
        start = int(query.get("pageToken", query.get("startingBlockIndex", ["0"]))[0])
        most = int(query.get("maxResults", ["10000"])[0])
        if snapshot == "snap-1":
            indexes = list(range(start, min(HUGE_BLOCKS, start + most + 1)))
        else:
            indexes = [index for index in self.checksums if index >= start][: most + 1]
        # As long as AWS's own tokens.
        blocks = [{"BlockIndex": index, "BlockToken": f"AAAB{index:064d}"} for index in indexes[:most]]
        page: dict[str, Any] = {"Blocks": blocks, "BlockSize": BLOCK, "VolumeSize": 16, "ExpiryTime": 4e9}
        if len(indexes) > most:
            page["NextToken"] = str(indexes[most])
        return answer(200, JSON, json.dumps(page).encode())

    # -- S3 -----------------------------------------------------------------------------------------------

    def s3(self, method: str, path: str, query: dict[str, list[str]], headers: Any, body: Any) -> Answer:
        _, _, key = unquote(path).lstrip("/").partition("/")
        if method == "PUT" and key:
            if headers.get("if-none-match") and key in self.objects:
                return answer(
                    412, XML, b"<Error><Code>PreconditionFailed</Code><Message>taken</Message></Error>"
                )
            self.objects[key] = body
            return answer(200, XML, b"", 'ETag: "stub"\r\n')
        if method == "POST":
            for doomed in re.findall(rb"<Key>(.*?)</Key>", bytes(body)):
                self.objects.pop(doomed.decode(), None)
            return answer(200, XML, b"<DeleteResult/>")
        if not key:
            return self.contents(query) if method == "GET" else answer(200, XML, b"")
        if key not in self.objects:
            return answer(404, XML, b"<Error><Code>NoSuchKey</Code><Message>absent</Message></Error>")
        return part_of(self.objects[key], headers.get("range"))

    def contents(self, query: dict[str, list[str]]) -> Answer:
        prefix = query.get("prefix", [""])[0]
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-21T00:00:00.000Z</LastModified>"
            f'<ETag>"stub"</ETag><Size>{len(data)}</Size><StorageClass>STANDARD</StorageClass></Contents>'
            for key, data in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return answer(
            200, XML, f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()
        )

    def answer(self, method: str, target: str, headers: Any, body: Any) -> Answer:
        path, _, text = target.partition("?")
        if path == "/_reset":
            self.reset()
            return answer(200, JSON, b"{}")
        if path == "/_stats":
            stored = sum(map(len, self.objects.values()))
            told = {
                "most": self.most,
                "stored": stored,
                "written": len(self.written),
                "cpu": time.process_time(),
            }
            return answer(200, JSON, json.dumps(told).encode())
        query = parse_qs(text, keep_blank_values=True)
        if path.startswith("/snapshots"):
            return self.ebs(method, path.strip("/").split("/"), query, headers, body)
        return self.s3(method, path, query, headers, body)


def answer(status: int, kind: str, body: bytes | bytearray | memoryview, more: str = "") -> Answer:
    head = (
        f"HTTP/1.1 {status} {CODES.get(status, 'Refused')}\r\nContent-Length: {len(body)}\r\nContent-Type: {kind}\r\n"
        f"Last-Modified: Sat, 21 Nov 2026 00:00:00 GMT\r\nx-amz-request-id: stub\r\n{more}\r\n"
    )
    return head.encode(), body


def refusal(what: str) -> Answer:
    body = json.dumps({"Message": what, "Reason": "INVALID_PARAMETER_VALUE"}).encode()
    return answer(400, JSON, body, "x-amzn-ErrorType: ValidationException\r\n")


def part_of(data: bytes | bytearray, wanted: str | None) -> Answer:
    if not wanted:
        return answer(200, BYTES, data, 'ETag: "stub"\r\n')
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last) + 1 if last else len(data), len(data))
    if start >= len(data):
        return answer(416, XML, b"<Error><Code>InvalidRange</Code><Message>past the end</Message></Error>")
    more = f'ETag: "stub"\r\nContent-Range: bytes {start}-{end - 1}/{len(data)}\r\n'
    return answer(206, BYTES, memoryview(data)[start:end], more)


class Protocol(asyncio.BufferedProtocol):
    """One connection. Bodies are received where they are kept, so that the stub takes little of the machine."""

    def __init__(self, world: World, latency: float) -> None:
        self.world, self.latency = world, latency
        self.heads = memoryview(bytearray(LONGEST_HEAD))
        self.head: tuple[str, str, dict[str, str]] | None = None
        self.body = bytearray()
        self.have = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(4 << 20)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.heads[self.have :] if self.head is None else memoryview(self.body)[self.have :]

    def buffer_updated(self, count: int) -> None:
        self.have += count
        if self.head is None:
            self.take_head()
        if self.head is not None and self.have == len(self.body):
            self.take_body()

    def take_head(self) -> None:
        received = bytes(self.heads[: self.have])
        head, end, rest = received.partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        method, target, _ = first.split(" ")
        self.head, self.have = (method, target, headers), len(rest)
        self.body = bytearray(int(headers.get("content-length", 0)))
        self.body[: len(rest)] = rest
        if "expect" in headers:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def take_body(self) -> None:
        assert self.head is not None
        method, target, headers = self.head
        chunked = headers.get("x-amz-content-sha256", "").startswith("STREAMING")
        body = unchunked(self.body) if chunked else self.body
        self.head, self.body, self.have = None, bytearray(), 0
        self.world.under_way += 1
        self.world.most = max(self.world.most, self.world.under_way)
        reply = self.world.answer(method, target, headers, body)
        asyncio.get_running_loop().call_later(self.latency, self.say, reply, method)

    def say(self, reply: Answer, method: str) -> None:
        self.world.under_way -= 1
        # Apart: written together they would be copied into one.
        self.transport.write(reply[0])
        if method != "HEAD":
            self.transport.write(reply[1])


def unchunked(body: bytearray) -> bytearray:
    """The bytes of an aws-chunked body, as boto3 may send them."""
    out, at = bytearray(), 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end].split(b";")[0], 16)
        if not size:
            return out
        out += body[end + 2 : end + 2 + size]
        at = end + 4 + size


async def serve(image: Path, latency: float) -> None:
    world = World(image)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Protocol(world, latency), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--image", type=Path, required=True)
    options.add_argument("--latency-ms", type=float, default=0.0)
    given = options.parse_args()
    asyncio.run(serve(given.image, given.latency_ms / 1000))
