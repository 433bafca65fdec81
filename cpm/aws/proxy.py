"""The web proxy between this server and AWS, and finding out whether it works."""

import ipaddress
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import botocore.session
from botocore import UNSIGNED
from botocore import exceptions as boto
from botocore.config import Config
from botocore.parsers import ResponseParserError
from botocore.utils import should_bypass_proxies

from cpm.aws import genuine

CONNECT_SECONDS = 4.0
READ_SECONDS = 4.0
# Names are looked up without a time limit of their own, so the whole test has one.
TEST_SECONDS = 10.0
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where the proxy listens, and as whom it is used."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """For botocore. Holds the password: not for logs."""
        name = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.user else ""
        return f"http://{name}{_bracketed(self.host)}:{self.port}"

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


class ProxyTrouble(Exception):
    """The test of a proxy failed. `code` is one word for programs; the text says what to look at."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(text)


def proxies_for(proxy: Proxy | None, endpoint: str | None, *, loopback_too: bool) -> dict[str, str] | None:
    """What botocore is told for an endpoint; None leaves it to the environment (HTTPS_PROXY, NO_PROXY).

    This machine itself and hosts in NO_PROXY are reached directly.
    """
    if proxy is None:
        return None
    if endpoint and ((is_loopback(endpoint) and not loopback_too) or should_bypass_proxies(endpoint)):
        return {}
    return {"http": proxy.url, "https": proxy.url}


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def attempt(proxy: Proxy, *, endpoint: str | None, region: str) -> None:
    """Asks AWS STS something through the proxy, without credentials. Raises `ProxyTrouble` unless AWS answers.

    Takes ten seconds at most.
    """
    found: list[ProxyTrouble | None] = []
    thread = threading.Thread(target=lambda: found.append(_trouble(proxy, endpoint, region)), daemon=True)
    thread.start()
    thread.join(TEST_SECONDS)
    trouble = found[0] if found else _timeout(proxy)
    if trouble is not None:
        raise trouble


def _trouble(proxy: Proxy, endpoint: str | None, region: str) -> ProxyTrouble | None:
    try:
        options = Config(
            signature_version=UNSIGNED,
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            proxies={"http": proxy.url, "https": proxy.url},
            ignore_configured_endpoint_urls=True,
        )
        session = botocore.session.Session()
        sts = session.create_client("sts", region, endpoint_url=endpoint, config=options)
        sts.meta.events.register("before-parse", genuine.check)
        sts.get_caller_identity()
    except boto.ClientError as error:
        return _answered(proxy, error)
    except (boto.BotoCoreError, ResponseParserError, ValueError, OSError) as error:
        return _unanswered(proxy, error)
    return None


def _answered(proxy: Proxy, error: boto.ClientError) -> ProxyTrouble | None:
    """AWS refuses a call without credentials in its own words; anything else came from the proxy."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    meta = error.response.get("ResponseMetadata", {})
    status = int(meta.get("HTTPStatusCode") or 0)
    if status == 407:
        return _unauthenticated(proxy)
    from_aws = bool(meta.get("RequestId")) and bool(code) and not code.isdigit() and status < 500
    return None if from_aws else _refused_by(proxy, status)


def _unanswered(proxy: Proxy, error: BaseException) -> ProxyTrouble:
    causes = list(_chain(error))
    texts = " ".join(str(cause) for cause in causes)
    if tunnel := _TUNNEL.search(texts):
        status = int(tunnel.group(1))
        return _unauthenticated(proxy) if status == 407 else _refused_by(proxy, status)
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    if names & {"gaierror", "NameResolutionError", "LocationParseError"}:
        return ProxyTrouble(
            "proxy_unknown", f"The name {proxy.host} is not known. Check the address of the proxy."
        )
    if "ConnectionRefusedError" in names:
        text = f"Nothing accepts connections at {proxy}. Check address and port, and whether the proxy runs."
        return ProxyTrouble("proxy_refused", text)
    if any(isinstance(cause, ssl.SSLError) for cause in causes) or "SSLError" in names:
        text = (
            f"The connection to AWS through {proxy} fails at TLS: the certificate cannot be checked. "
            "A proxy that opens TLS needs its authority in AWS_CA_BUNDLE."
        )
        return ProxyTrouble("proxy_tls", text)
    if names & {"TimeoutError", "ConnectTimeoutError", "ReadTimeoutError"}:
        return _timeout(proxy)
    if "ResponseParserError" in names:
        return _refused_by(proxy, 0)
    text = f"There is no usable connection through {proxy}. Check that an HTTP proxy listens there."
    return ProxyTrouble("proxy_failed", text)


def _timeout(proxy: Proxy) -> ProxyTrouble:
    text = (
        f"No answer through {proxy} in time. Check address and port, firewalls, and what the proxy may reach."
    )
    return ProxyTrouble("proxy_timeout", text)


def _unauthenticated(proxy: Proxy) -> ProxyTrouble:
    who = (
        f"does not accept user “{proxy.user}” with this password"
        if proxy.user
        else "asks for a user and a password"
    )
    return ProxyTrouble("proxy_authentication", f"The proxy {proxy} {who} (407).")


def _refused_by(proxy: Proxy, status: int) -> ProxyTrouble:
    said = f" with {status}" if status else ", but not with an answer of AWS"
    text = f"The proxy {proxy} answers{said}. Check that it lets this server reach AWS."
    return ProxyTrouble("proxy_blocked", text)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps; libraries keep causes in different places."""
    waiting: list[Any] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = getattr(one, "kwargs", None)
        wrapped = inner.get("error") if isinstance(inner, dict) else None
        others = (getattr(one, name, None) for name in ("original_error", "reason"))
        waiting += [one.__cause__, one.__context__, wrapped, *others, *one.args]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
