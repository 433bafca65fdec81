"""Pacing of AWS calls: a token bucket per account, region and API family, shared by the fleet through Redis.

Taking a token never fails because of Redis: while it is away each process paces itself with its share of the
rate. A bucket may go into debt: a caller is told how long to wait for its own token, so callers queue up
without polling.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
import structlog

log = structlog.get_logger(__name__)

SLOW_FOR = 30.0
"""Seconds that a halved rate stays halved after the last Throttled answer; then it doubles, step by step."""
SLOWEST = 1 / 16
HALVE_AGAIN_AFTER = 1.0
"""Answers to calls that were already under way when the rate was halved do not halve it once more."""
REDIS_RETRY_AFTER = 5.0
_IDLE_EXPIRY_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` calls at once, then ``per_second``."""

    burst: float
    per_second: float

    def __post_init__(self) -> None:
        if self.burst < 1 or self.per_second <= 0:
            raise ValueError("a rate needs a burst of at least 1 and more than 0 per second")


# EC2's documented buckets per account and region are 100 tokens refilled by 20/s for reading and 50 by 5/s
# for changing and for resource-intensive calls; EBS direct allows 1,000/s for block data, 50/s for lists and
# 10/s for starting and completing snapshots. We share those with the customer's own tools, and the rest are
# modest choices.
DEFAULT_RATES: Mapping[str, Rate] = {
    "ec2-describe": Rate(100, 20),
    "ec2-snapshot": Rate(50, 5),
    "ec2-copy": Rate(50, 5),
    "ec2-modify": Rate(50, 5),
    "ec2-run": Rate(50, 5),
    "ebs-data": Rate(1000, 1000),
    "ebs-list": Rate(50, 50),
    "ebs-write": Rate(10, 10),
    "sts": Rate(50, 50),
    "kms": Rate(50, 20),
    "ssm": Rate(20, 10),
    "other": Rate(20, 10),
}

_EC2_FAMILIES = {
    "CreateSnapshot": "ec2-snapshot",
    "CreateSnapshots": "ec2-snapshot",
    "CreateImage": "ec2-snapshot",
    "CopySnapshot": "ec2-copy",
    "CopyImage": "ec2-copy",
    "RunInstances": "ec2-run",
    "StartInstances": "ec2-run",
    "StopInstances": "ec2-run",
    "TerminateInstances": "ec2-run",
}
_EBS_FAMILIES = {
    "GetSnapshotBlock": "ebs-data",
    "PutSnapshotBlock": "ebs-data",
    "ListSnapshotBlocks": "ebs-list",
    "ListChangedBlocks": "ebs-list",
}


def family(service: str, action: str) -> str:
    """The API family whose bucket a call draws from."""
    if service == "ec2":
        reads = action.startswith(("Describe", "Get", "List", "Search"))
        return _EC2_FAMILIES.get(action, "ec2-describe" if reads else "ec2-modify")
    if service == "ebs":
        return _EBS_FAMILIES.get(action, "ebs-write")
    return service if service in DEFAULT_RATES else "other"


@dataclass(slots=True)
class Bucket:
    """One bucket in memory. ``now`` is any clock that does not run backwards, in seconds.

    Invariants: never more than ``burst`` tokens; in any time span, the calls let go are at most ``burst``
    plus the span times the rate. The Redis script below is the same arithmetic.
    """

    rate: Rate
    tokens: float = field(default=-1.0)
    at: float = -1.0
    factor: float = 1.0
    slow_until: float = 0.0
    halved_at: float = -1e9

    def _refill(self, now: float) -> float:
        if self.at < 0:
            self.tokens, self.at = self.rate.burst, now
        while self.factor < 1 and now >= self.slow_until:
            self.factor = min(1.0, self.factor * 2)
            self.slow_until += SLOW_FOR
        speed = self.rate.per_second * self.factor
        if now > self.at:
            self.tokens = min(self.rate.burst, self.tokens + (now - self.at) * speed)
            self.at = now
        return speed

    def take(self, now: float, longest: float) -> float:
        """Seconds to wait before the call; negative, and nothing taken, if that is more than ``longest``."""
        speed = self._refill(now)
        wait = max(0.0, (1 - self.tokens) / speed)
        if wait > longest:
            return -wait
        self.tokens -= 1
        return wait

    def slow_down(self, now: float) -> None:
        """AWS refused a call: forget the saved-up burst and halve the rate for a while."""
        self._refill(now)
        self.tokens = min(self.tokens, 0.0)
        self.slow_until = now + SLOW_FOR
        if now - self.halved_at >= HALVE_AGAIN_AFTER:
            self.factor = max(SLOWEST, self.factor / 2)
            self.halved_at = now


# KEYS[1] bucket; ARGV: burst, rate, longest wait or -1 to slow down, now or "" for the server's clock (so
# that the clocks of the fleet do not matter), then the constants above. Numbers go back as text: Lua would
# cut them to whole.
_SCRIPT = """
local burst, rate, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(ARGV[4])
if not now then
  local t = redis.call('TIME')
  now = tonumber(t[1]) + tonumber(t[2]) / 1000000
end
local slow_for, slowest, again = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local s = redis.call('HMGET', KEYS[1], 'tokens', 'at', 'factor', 'slow_until', 'halved_at')
local tokens, at = tonumber(s[1] or burst), tonumber(s[2] or now)
local factor, slow_until = tonumber(s[3] or 1), tonumber(s[4] or 0)
local halved_at = tonumber(s[5] or -1e9)
while factor < 1 and now >= slow_until do
  factor = math.min(1, factor * 2)
  slow_until = slow_until + slow_for
end
local speed = rate * factor
if now > at then
  tokens = math.min(burst, tokens + (now - at) * speed)
  at = now
end
local wait = 0
if longest < 0 then
  tokens = math.min(tokens, 0)
  slow_until = now + slow_for
  if now - halved_at >= again then
    factor = math.max(slowest, factor / 2)
    halved_at = now
  end
else
  wait = math.max(0, (1 - tokens) / speed)
  if wait > longest then wait = -wait else tokens = tokens - 1 end
end
local f = function(x) return string.format('%.17g', x) end
redis.call('HSET', KEYS[1], 'tokens', f(tokens), 'at', f(at), 'factor', f(factor),
  'slow_until', f(slow_until), 'halved_at', f(halved_at))
redis.call('PEXPIRE', KEYS[1], ARGV[8])
return f(wait)
"""


class Throttle:
    """The buckets of one process: in Redis when ``redis_url`` is given and it answers, else in memory.

    ``local_share`` is the part of each rate that one process takes while Redis is away.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        rates: Mapping[str, Rate] | None = None,
        *,
        local_share: float = 0.25,
        prefix: str = "cpm:aws:bucket",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rates = {**DEFAULT_RATES, **(rates or {})}
        self._share = local_share if redis_url else 1.0
        self._prefix = prefix
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, Bucket] = {}
        self._away_until = 0.0
        self._redis: Any = None
        if redis_url:
            # Short timeouts: a call to AWS must not wait for the pacer longer than for AWS.
            self._redis = redis.Redis.from_url(redis_url, socket_timeout=0.5, socket_connect_timeout=0.5)
        self._script: Any = self._redis.register_script(_SCRIPT) if self._redis is not None else None

    def take(self, account: str, region: str, name: str, longest: float) -> float:
        """Takes a token of family ``name``; seconds to wait before calling, or negative (nothing taken) when
        the wait would exceed ``longest``."""
        shared = self._shared(account, region, name, longest)
        if shared is not None:
            return shared
        with self._lock:
            return self._local(account, region, name).take(self._clock(), longest)

    def slow_down(self, account: str, region: str, name: str) -> None:
        """Tells the whole fleet that AWS refused a call of this family."""
        log.warning("aws throttled a call", account=account, region=region, family=name)
        if self._shared(account, region, name, -1) is None:
            with self._lock:
                self._local(account, region, name).slow_down(self._clock())

    def _key(self, account: str, region: str, name: str) -> str:
        return f"{self._prefix}:{account}:{region}:{name}"

    def _rate(self, name: str) -> Rate:
        return self._rates.get(name, self._rates["other"])

    def _local(self, account: str, region: str, name: str) -> Bucket:
        rate = self._rate(name)
        shared = Rate(max(1.0, rate.burst * self._share), rate.per_second * self._share)
        return self._buckets.setdefault(self._key(account, region, name), Bucket(shared))

    def _shared(self, account: str, region: str, name: str, longest: float) -> float | None:
        if self._script is None or self._clock() < self._away_until:
            return None
        rate = self._rate(name)
        args = [
            rate.burst,
            rate.per_second,
            longest,
            "",
            SLOW_FOR,
            SLOWEST,
            HALVE_AGAIN_AFTER,
            _IDLE_EXPIRY_MS,
        ]
        try:
            return float(self._script(keys=[self._key(account, region, name)], args=args))
        except redis.RedisError as error:
            self._away_until = self._clock() + REDIS_RETRY_AFTER
            log.warning("redis is away, pacing aws calls locally", error=type(error).__name__)
            return None
