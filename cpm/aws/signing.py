"""Signatures of requests that botocore does not send itself: its SigV4, with the day's key computed once.

botocore parses and copies a request to sign it, which costs more than sending a block. Here the caller hands
over path and query in canonical form already.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from botocore.auth import SigV4Auth

UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY = hashlib.sha256(b"").hexdigest()
_UNRESERVED = "-._~"


def path_of(*parts: str) -> str:
    """A path of these parts, quoted once; slashes inside a part stay."""
    return "/" + "/".join(quote(part, safe=f"/{_UNRESERVED}") for part in parts)


def query_of(values: Sequence[tuple[str, str]]) -> str:
    """The canonical query string, which is sent as it is signed."""
    quoted = sorted((quote(name, safe=_UNRESERVED), quote(value, safe=_UNRESERVED)) for name, value in values)
    return "&".join(f"{name}={value}" for name, value in quoted)


@dataclass
class Signer:
    """``credentials`` answers botocore's frozen credentials, renewed when they are due."""

    credentials: Callable[[], Any]
    service: str
    region: str
    clock: Callable[[], float] = time.time
    _key: tuple[tuple[str, str], bytes] = field(default=(("", ""), b""), repr=False)

    def headers(
        self, method: str, path: str, query: str, host: str, headers: Mapping[str, str], payload: str
    ) -> dict[str, str]:
        """``headers`` and those that sign them; ``payload`` is the body's SHA-256 in hex, or ``UNSIGNED``."""
        given = self.credentials()
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.clock()))
        whole = {**headers, "X-Amz-Date": moment, "X-Amz-Content-SHA256": payload}
        if given.token:
            whole["X-Amz-Security-Token"] = given.token
        signed = sorted(
            [(name.lower(), " ".join(value.split())) for name, value in whole.items()] + [("host", host)]
        )
        names = ";".join(name for name, _ in signed)
        lines = "".join(f"{name}:{value}\n" for name, value in signed)
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}"
        auth = SigV4Auth(given, self.service, self.region)
        request = SimpleNamespace(context={"timestamp": moment})
        text = auth.string_to_sign(request, canonical)
        key = self._day_key(given.secret_key, moment[:8])
        proof = hmac.digest(key, text.encode(), "sha256").hex()
        whole["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={names}, Signature={proof}"
        )
        return whole

    def _day_key(self, secret: str, day: str) -> bytes:
        known, key = self._key
        if known != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self.region, self.service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = ((secret, day), key)
        return key
