"""Injected faults: errors, latency, lost responses, throttling, list lag, snapshots that fail.

A fault is a set of conditions and one effect. Conditions left out match everything; ``action`` and ``service``
take shell wildcards. ``count`` limits how often it strikes, ``probability`` how likely it does each time.
"""

import fnmatch
import random
import threading
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import count
from typing import Any

from cpm.simulator.errors import AwsError
from cpm.simulator.timing import now


@dataclass
class Fault:
    service: str | None = None
    action: str | None = None
    account: str | None = None
    region: str | None = None
    access_key: str | None = None
    count: int | None = None
    probability: float = 1.0
    # Effects. At least one is given.
    error: str | None = None
    message: str = "injected by the simulator's control endpoint"
    status: int = 400
    latency_seconds: float = 0.0
    lost_response: bool = False
    rate_per_second: float | None = None
    list_lag_seconds: float = 0.0
    snapshots_error: bool = False
    volume_id: str | None = None
    resource_id: str | None = None
    # Bookkeeping, shown by GET.
    id: int = 0
    struck: int = 0

    def matches(self, service: str, action: str, account: str | None, region: str) -> bool:
        return (
            fnmatch.fnmatchcase(service, self.service or "*")
            and fnmatch.fnmatchcase(action, self.action or "*")
            and self.account in (None, account)
            and self.region in (None, region)
        )


@dataclass(slots=True)
class Outcome:
    """What the faults do to one call."""

    latency: float = 0.0
    error: AwsError | None = None
    lose_response: bool = False


class Faults:
    """The faults in force; safe for use by many threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.active: list[Fault] = []
        self.ids = count(1)
        self.buckets: dict[tuple[int, str | None, str], tuple[float, float]] = {}
        self.random = random.Random()

    def add(self, wanted: dict[str, Any]) -> Fault:
        """Puts a fault in force; raises BadControl for a field that does not exist or a fault without effect."""
        try:
            fault = Fault(**wanted)
        except TypeError as unknown:
            raise AwsError("BadControl", str(unknown)) from unknown
        effects = (fault.error, fault.latency_seconds, fault.lost_response, fault.rate_per_second)
        if not (any(effects) or fault.list_lag_seconds or fault.snapshots_error):
            raise AwsError("BadControl", "a fault needs an effect")
        with self.lock:
            fault.id = next(self.ids)
            self.active.append(fault)
        return fault

    def listing(self) -> list[dict[str, Any]]:
        with self.lock:
            return [asdict(fault) for fault in self.active]

    def remove(self, fault_id: int | None) -> int:
        """Removes one fault, or all; answers how many went."""
        with self.lock:
            kept = [] if fault_id is None else [fault for fault in self.active if fault.id != fault_id]
            removed = len(self.active) - len(kept)
            self.active = kept
            return removed

    def strike(self, service: str, action: str, account: str | None, region: str, access_key: str) -> Outcome:
        """The combined effect of all faults on a call about to be made."""
        outcome = Outcome()
        if not self.active:
            return outcome
        with self.lock:
            for fault in self.active:
                if fault.list_lag_seconds or fault.snapshots_error:
                    continue
                if not fault.matches(service, action, account, region):
                    continue
                if fault.access_key not in (None, access_key):
                    continue
                if fault.rate_per_second is not None:
                    self._throttle(fault, account, region, outcome)
                elif self._used(fault):
                    outcome.latency += fault.latency_seconds
                    outcome.lose_response |= fault.lost_response
                    if fault.error and outcome.error is None:
                        outcome.error = AwsError(fault.error, fault.message, fault.status)
        return outcome

    def _used(self, fault: Fault) -> bool:
        if fault.count is not None and fault.struck >= fault.count:
            return False
        if fault.probability < 1.0 and self.random.random() >= fault.probability:
            return False
        fault.struck += 1
        return True

    def _throttle(self, fault: Fault, account: str | None, region: str, outcome: Outcome) -> None:
        # AWS: EC2 API throttling. A token bucket for each account and region, here one second deep.
        assert fault.rate_per_second is not None
        moment, depth = time.monotonic(), max(1.0, fault.rate_per_second)
        key = (fault.id, account, region)
        level, filled = self.buckets.get(key, (depth, moment))
        level = min(depth, level + (moment - filled) * fault.rate_per_second)
        if level >= 1:
            self.buckets[key] = (level - 1, moment)
            return
        self.buckets[key] = (level, moment)
        fault.struck += 1
        outcome.error = AwsError(fault.error or "RequestLimitExceeded", "Request limit exceeded.", 503)

    def hidden(self, service: str, action: str, account: str, region: str, created: datetime) -> bool:
        """Whether a list call does not show an object yet (AWS: EC2 API Reference, Eventual consistency)."""
        if not self.active:
            return False
        age = (now() - created).total_seconds()
        with self.lock:
            return any(
                age < fault.list_lag_seconds and fault.matches(service, action, account, region)
                for fault in self.active
                if fault.list_lag_seconds
            )

    def snapshot_fails(self, service: str, action: str, account: str, region: str, resource_id: str) -> bool:
        """Whether a snapshot, a backup or a copy about to be made of this resource will fail."""
        if not self.active:
            return False
        with self.lock:
            return any(
                fault.snapshots_error
                and (fault.volume_id or fault.resource_id) in (None, resource_id)
                and fault.matches(service, action, account, region)
                and self._used(fault)
                for fault in self.active
            )
