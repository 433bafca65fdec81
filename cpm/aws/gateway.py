"""The only door to AWS: clients by identity, paced, retried where that is safe, failing in our error
families.

``configure`` is called once per process at start-up and touches neither network nor disk. Everything else may
be used from any thread. A forked child gets connections of its own.
"""

import logging
import os
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import botocore.loaders
import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import NoCredentialsError
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies
from urllib3 import HTTPResponse

from cpm.aws import credentials, genuine, proxy
from cpm.aws.client import AwsClient, recording
from cpm.aws.http_connection import Route
from cpm.aws.http_pool import HttpPool
from cpm.aws.identity import AssumedRole, Identity, Keys
from cpm.aws.proxy import Proxy, proxies_for
from cpm.aws.signing import Signer
from cpm.aws.throttle import Rate, Throttle, family

__all__ = [
    "AwsClient",
    "Following",
    "Gateway",
    "GatewayConfig",
    "account_number",
    "apart",
    "caller_arn",
    "client",
    "configure",
    "home_region",
    "pool",
    "recording",
    "regions_enabled",
    "try_proxy",
]

# A region of the partition that every account has; accounts are asked there about themselves and their
# regions.
HOME_REGION = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}


@dataclass(frozen=True)
class GatewayConfig:
    """All settings of the gateway.

    ``endpoint_urls`` (by service) goes before ``endpoint_url``; ``{region}`` in either stands for the region.
    With neither, AWS's own endpoints are used, whatever AWS_ENDPOINT_URL and the profile files say.
    ``longest_wait`` bounds how long one call may wait for its turn before it fails as Throttled, and
    ``attempts`` counts the first. Endpoints on this machine are reached without the proxy unless
    ``proxy_loopback``.
    """

    endpoint_url: str | None = None
    endpoint_urls: Mapping[str, str] = field(default_factory=dict)
    redis_url: str | None = field(default=None, repr=False)
    max_pool_connections: int = 32
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    attempts: int = 4
    longest_wait: float = 10.0
    proxy: Proxy | None = None
    proxy_loopback: bool = False
    user_agent_extra: str = "cpm"
    rates: Mapping[str, Rate] = field(default_factory=dict)
    home_regions: Mapping[str, str] = field(default_factory=lambda: HOME_REGION)
    max_clients: int = 256

    def endpoint(self, service: str, region: str) -> str | None:
        url = self.endpoint_urls.get(service) or self.endpoint_url
        return url.replace("{region}", region) if url else None


@dataclass(frozen=True)
class Following:
    """Where the proxy in force is found, asked when AWS is called and the last answer is ``every`` seconds old."""

    proxy: Callable[[], Proxy | None]
    every: float


class Gateway:
    """The clients of one process under one configuration."""

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self.throttle = Throttle(config.redis_url, config.rates)
        self._lock = threading.RLock()
        self._sessions: OrderedDict[Identity, botocore.session.Session] = OrderedDict()
        self._clients: OrderedDict[tuple[Identity, str, str], AwsClient] = OrderedDict()
        self._pools: OrderedDict[tuple[Identity, str, str, str], HttpPool] = OrderedDict()

    def client(self, identity: Identity, service: str, region: str) -> AwsClient:
        key = (identity, service, region)
        with self._lock:
            found = self._clients.get(key)
            if found is None:
                found = self._clients[key] = self._new_client(identity, service, region)
            self._clients.move_to_end(key)
            while len(self._clients) > self.config.max_clients:
                self._clients.popitem(last=False)
            return found

    def home(self, identity: Identity) -> str:
        return self.config.home_regions.get(identity.partition) or HOME_REGION["aws"]

    def account_number(self, identity: Identity) -> str:
        return str(self._caller(identity)["Account"])

    def caller_arn(self, identity: Identity) -> str:
        return str(self._caller(identity)["Arn"])

    def _caller(self, identity: Identity) -> dict[str, Any]:
        return self.client(identity, "sts", self.home(identity)).call("GetCallerIdentity")

    def pool(self, identity: Identity, service: str, region: str, bucket: str) -> HttpPool:
        key = (identity, service, region, bucket)
        with self._lock:
            found = self._pools.get(key)
            if found is None:
                found = self._pools[key] = self._new_pool(identity, service, region, bucket)
            self._pools.move_to_end(key)
            while len(self._pools) > self.config.max_clients:
                self._pools.popitem(last=False)
            return found

    def _new_pool(self, identity: Identity, service: str, region: str, bucket: str) -> HttpPool:
        config = self.config
        boto = self._connect(identity, service, region)
        url = _bucket_url(boto, bucket) if bucket else str(boto.meta.endpoint_url)
        place, session = urlsplit(url), self._session(identity)
        proxies = proxies_for(
            config.proxy, config.endpoint(service, region), loopback_too=config.proxy_loopback
        )
        if proxies is None:
            proxies = get_environ_proxies(url)
        tls = None
        if place.scheme == "https":
            tls = ssl.create_default_context(
                cafile=session.get_config_variable("ca_bundle") or get_cert_path(True)
            )
        route = Route(
            place.hostname or "",
            place.port or (443 if tls else 80),
            tls,
            proxies.get(place.scheme),
            config.connect_timeout,
            config.read_timeout,
        )

        def credentials() -> Any:
            # Asked each time: botocore renews them when they are due.
            given = session.get_credentials()
            if given is None:
                raise NoCredentialsError
            return given.get_frozen_credentials()

        def turn(action: str) -> float:
            # The rate of block data is found by its own feedback; a look at Redis per block would cost more CPU
            # than the request. S3 has no rate per account.
            name = family(service, action)
            if service != "ebs" or name == "ebs-data":
                return 0.0
            return self.throttle.take(identity.account_key, region, name, config.longest_wait)

        return HttpPool(
            identity,
            service,
            region,
            route=route,
            signer=Signer(credentials, service, region),
            prefix=place.path.rstrip("/"),
            user_agent=config.user_agent_extra,
            turn=turn,
        )

    def _new_client(self, identity: Identity, service: str, region: str) -> AwsClient:
        return AwsClient(
            identity,
            service,
            region,
            connect=lambda: self._connect(identity, service, region),
            pagination=lambda action: self._pagination(identity, service, action),
            prove_credentials=None
            if region == self.home(identity)
            else lambda: self.account_number(identity),
            throttle=self.throttle,
            attempts=self.config.attempts,
            longest_wait=self.config.longest_wait,
        )

    def _connect(self, identity: Identity, service: str, region: str) -> Any:
        config = self.config
        endpoint = config.endpoint(service, region)
        options = Config(
            # Retries are ours: botocore would repeat a CreateSnapshot whose answer was lost.
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=config.max_pool_connections,
            connect_timeout=config.connect_timeout,
            read_timeout=config.read_timeout,
            user_agent_extra=config.user_agent_extra,
            proxies=proxies_for(config.proxy, endpoint, loopback_too=config.proxy_loopback),
            ignore_configured_endpoint_urls=True,
        )
        # Creating clients from one session in several threads at once is not safe in botocore.
        with self._lock:
            made = self._session(identity).create_client(
                service, region, endpoint_url=endpoint, config=options
            )
        made.meta.events.register("before-parse", genuine.check)
        return made

    def _session(self, identity: Identity) -> botocore.session.Session:
        session = self._sessions.get(identity)
        if session is None:
            session = botocore.session.Session()
            session.register_component("data_loader", _loader())
            if isinstance(identity, Keys):
                session.register_component("credential_provider", credentials.for_keys(identity))
            elif isinstance(identity, AssumedRole):
                session.register_component(
                    "credential_provider", credentials.for_role(identity, self._assume)
                )
            self._sessions[identity] = session
        self._sessions.move_to_end(identity)
        while len(self._sessions) > self.config.max_clients:
            self._sessions.popitem(last=False)
        return session

    def _assume(self, identity: AssumedRole) -> dict[str, Any]:
        # A regional STS endpoint gives tokens that are valid in opt-in regions too; the global one does not.
        sts = self.client(identity.source, "sts", self.home(identity.source))
        external = {"ExternalId": identity.external_id} if identity.external_id else {}
        answer = sts.call(
            "AssumeRole",
            RoleArn=identity.role_arn,
            RoleSessionName=identity.session_name,
            DurationSeconds=identity.duration,
            **external,
        )
        given: dict[str, Any] = answer["Credentials"]
        return given

    def _pagination(self, identity: Identity, service: str, action: str) -> Mapping[str, Any] | None:
        with self._lock:
            model = self._session(identity).get_paginator_model(service)
        try:
            found: Mapping[str, Any] = model.get_paginator(action)
        except ValueError:
            return None
        return found


@cache
def _loader() -> botocore.loaders.Loader:
    """Service models are megabytes of JSON; all identities and gateways share one parsed copy."""
    return botocore.loaders.create_loader()


def _bucket_url(boto: Any, bucket: str) -> str:
    """Where botocore would send a request for the bucket: its rules of addressing, not a second set of them.

    The request is prepared and caught before it leaves.
    """
    urls = []

    def catch(request: Any, **_: Any) -> AWSResponse:
        urls.append(request.url)
        return AWSResponse(request.url, 200, {}, HTTPResponse(BytesIO(), preload_content=False))

    boto.meta.events.register("before-send.s3.HeadBucket", catch)
    boto.head_bucket(Bucket=bucket)
    return str(urls[0])


class _Process:
    """The gateway of this process; a fork leaves the parent's connections to the parent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._config: GatewayConfig | None = None
        self._gateway: Gateway | None = None
        self._pid = 0
        self._following: Following | None = None
        self._asked = 0.0

    def configure(self, config: GatewayConfig, following: "Following | None") -> None:
        with self._lock:
            self._config, self._gateway = config, None
            self._following, self._asked = following, float("-inf")

    def config(self) -> GatewayConfig:
        if self._config is None:
            raise RuntimeError("cpm.aws.gateway.configure() has not been called in this process")
        return self._config

    def gateway(self) -> Gateway:
        self._follow()
        with self._lock:
            if self._gateway is None or self._pid != os.getpid():
                self._gateway, self._pid = Gateway(self.config()), os.getpid()
            return self._gateway

    def _follow(self) -> None:
        """Takes up a changed proxy. One that cannot be found out fails the call: going without it may be forbidden."""
        following, now = self._following, time.monotonic()
        if following is None or now - self._asked < following.every:
            return
        proxy = following.proxy()
        with self._lock:
            self._asked = now
            if self._config is not None and self._following is following and proxy != self._config.proxy:
                self._config, self._gateway = replace(self._config, proxy=proxy), None

    def renew_lock(self) -> None:
        self._lock = threading.Lock()


_process = _Process()
# A lock that another thread held at the moment of a fork would stay locked in the child for ever.
os.register_at_fork(after_in_child=_process.renew_lock)


def configure(config: GatewayConfig, following: Following | None = None) -> None:
    """Sets how AWS is reached from now on in this process; clients handed out before keep their settings.

    With ``following`` the proxy is not fixed but asked for from time to time.
    """
    for name in ("botocore", "boto3", "urllib3"):
        # Their debug messages contain signed headers and the credentials that STS answers with.
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
    _process.configure(config, following)


def client(identity: Identity, service: str, region: str) -> AwsClient:
    """The client for this identity, service and region. Makes no call; credentials are checked at first
    use."""
    return _process.gateway().client(identity, service, region)


def pool(identity: Identity, service: str, region: str, bucket: str = "") -> HttpPool:
    """Kept connections for block I/O with this service, or with one bucket of S3. For ``cpm.aws.ebs_direct`` and
    ``cpm.aws.s3_objects``; everything else is called through ``client``."""
    return _process.gateway().pool(identity, service, region, bucket)


def apart(proxy: Proxy | None, *, seconds: float) -> Gateway:
    """A gateway beside the one of this process: through that proxy, or the one in force without one, for trying out.

    Its connections and answers are waited for that long, calls are not repeated, and even endpoints on this machine are
    reached through the proxy.
    """
    in_force = _process.gateway().config
    return Gateway(
        replace(
            in_force,
            proxy=proxy or in_force.proxy,
            proxy_loopback=in_force.proxy_loopback or proxy is not None,
            connect_timeout=seconds,
            read_timeout=seconds,
            attempts=1,
        )
    )


def account_number(identity: Identity) -> str:
    """The number of the account that the identity belongs to, asked of STS GetCallerIdentity."""
    return _process.gateway().account_number(identity)


def caller_arn(identity: Identity) -> str:
    """Who AWS takes the identity for: the ARN of a user, or of the session of a role. Asked of STS GetCallerIdentity."""
    return _process.gateway().caller_arn(identity)


def home_region(identity: Identity) -> str:
    """Where services that have no regions are asked in the identity's partition."""
    return _process.gateway().home(identity)


def regions_enabled(identity: Identity) -> list[str]:
    """The regions that the account may use, sorted."""
    gateway = _process.gateway()
    answer = gateway.client(identity, "ec2", gateway.home(identity)).call("DescribeRegions")
    return sorted(str(region["RegionName"]) for region in answer["Regions"])


def try_proxy(candidate: Proxy, region: str | None = None) -> None:
    """Asks STS something through this proxy, whatever is in force. Raises ``ProxyTrouble`` unless AWS answers."""
    config = _process.config()
    place = region or config.home_regions.get("aws") or HOME_REGION["aws"]
    proxy.attempt(candidate, endpoint=config.endpoint("sts", place), region=place)
