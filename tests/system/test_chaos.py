"""A real fleet while everything dies around it: no job is lost, nothing is made twice, no secret is told.

Workers, their pool processes and beats are killed or frozen, Redis is flushed and killed, PostgreSQL restarts without
a goodbye, AWS throttles, and its lists lag. What is done to whom follows from a seed, which is printed; when it hits
what does not. CPM_CHAOS_SEED repeats one. CPM_CHAOS=long is the long form, CPM_CHAOS_KILLS shortens or lengthens it.
"""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.system import fleet as fleets
from tests.system.fleet import LEASE_SECONDS, Fleet, Member, python, wait_for

pytestmark = pytest.mark.chaos

LONG = os.environ.get("CPM_CHAOS") == "long"
KILLS = int(os.environ.get("CPM_CHAOS_KILLS", "500" if LONG else "6"))
FLUSHES = max(1, KILLS // 10)
RESTARTS = max(1, KILLS // 50)
FREEZES = max(1, KILLS // 20)
WORKERS, BEATS = (3, 2) if LONG else (2, 2)
# Starting a worker costs seconds of work; killing faster than that would test nothing but the start.
PAUSE_SECONDS = (0.5, 3.0) if LONG else (0.3, 1.2)
REST_SECONDS = 240
AT_LEAST = KILLS if LONG else 10
DUE = 1000 if LONG else 200


@dataclass
class Trouble:
    """What is done to a fleet, in an order that only the seed decides."""

    fleet: Fleet
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    seen: list[bytes] = field(default_factory=list)
    frozen: list[tuple[float, Member]] = field(default_factory=list)

    def plan(self) -> list[str]:
        plan = ["flush"] * FLUSHES + ["postgres"] * RESTARTS + ["redis"] * RESTARTS + ["freeze"] * FREEZES
        plan += self.chance.choices(["member", "group", "child", "beat"], [3, 3, 5, 1], k=KILLS)
        self.chance.shuffle(plan)
        return plan

    def make(self) -> None:
        for what in self.plan():
            self.thaw(self.frozen_until() <= time.monotonic())
            getattr(self, what, lambda what=what: self.kill(what))()
            self.done[what] += 1
            self.tend()
            time.sleep(self.chance.uniform(*PAUSE_SECONDS))
        time.sleep(max(0.0, self.frozen_until() - time.monotonic()))
        self.thaw()

    def kill(self, how: str) -> None:
        kind = "beat" if how == "beat" else "worker"
        member = self.chance.choice(self.fleet.named(kind))
        self.fleet.kill(member, "member" if how == "beat" else how, self.chance)

    def flush(self) -> None:
        self.look_into_broker()
        self.fleet.flush_redis()

    def postgres(self) -> None:
        self.fleet.restart_postgres()

    def redis(self) -> None:
        self.look_into_broker()
        self.fleet.restart_redis(away=self.chance.choice([0.0, 0.5, 3.0]))

    def freeze(self) -> None:
        """A worker stands still for some leases, and then goes on as if nothing had happened."""
        self.thaw()
        member = self.chance.choice(self.fleet.named("worker"))
        member.signal_all(signal.SIGSTOP)
        self.frozen.append((time.monotonic() + 2.5 * LEASE_SECONDS, member))

    def frozen_until(self) -> float:
        return max((until for until, _ in self.frozen), default=0.0)

    def thaw(self, now: bool = True) -> None:
        if now:
            for _, member in self.frozen:
                member.signal_all(signal.SIGCONT)
            self.frozen.clear()

    def tend(self) -> None:
        """What ends by itself is started again."""
        self.done["gave up"] += self.fleet.tend()

    def look_into_broker(self) -> None:
        self.seen.append(self.fleet.broker_contents())


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleets.running(tmp_path) as running:
        yield running


@pytest.mark.timeout(600)
def test_two_schedulers_and_four_workers_start_each_due_backup_exactly_once(fleet: Fleet, tmp_path: Path) -> None:
    for number in range(4):
        fleet.add_worker(f"worker{number}", concurrency=1)
    wait_for(lambda: fleet.consumers() == 4, 90, "all workers wait for messages")
    fleet.add_beat("beat0")
    fleet.add_beat("beat1")

    fleet.run("due", python("tests.system.in_django", "tests.system.due_at_once", str(DUE), "150", str(tmp_path)), 200)

    assert json.loads((tmp_path / "report.json").read_text())["problems"] == []


def annoy(fleet: Fleet) -> None:
    """AWS at its worst, all the time: slow lists, throttling, lost answers."""
    fleet.aws.timing(snapshot_seconds=0.5, image_seconds=0.5)
    fleet.aws.fault(service="ec2", list_lag_seconds=0.7)
    fleet.aws.fault(service="ec2", error="RequestLimitExceeded", status=503, probability=0.03)
    fleet.aws.fault(service="ec2", action="C*", lost_response=True, probability=0.02)


def told(fleet: Fleet, places: dict[str, bytes]) -> list[str]:
    """Which secret stands where."""
    return [
        f"{name} in {place}"
        for name, secret in fleet.secrets().items()
        for place, content in places.items()
        if secret in content
    ]


@pytest.mark.timeout(7200 if LONG else 600)
def test_nothing_is_lost_doubled_or_told_while_everything_dies(fleet: Fleet, tmp_path: Path) -> None:
    seed = int(os.environ.get("CPM_CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"seed {seed}")
    began = time.monotonic()
    trouble = Trouble(fleet, random.Random(seed))
    for number in range(WORKERS):
        fleet.add_worker(f"worker{number}")
    for number in range(BEATS):
        fleet.add_beat(f"beat{number}")
    arguments = (str(seed), str(REST_SECONDS), str(AT_LEAST), str(tmp_path))
    company = fleet.open("company", python("tests.system.in_django", "tests.system.company", *arguments))
    wait_for(lambda: (tmp_path / "working").exists() or company.poll() is not None, 90, "the company has opened")
    annoy(fleet)

    trouble.make()
    (tmp_path / "enough").touch()
    wait_for(lambda: company.poll() is not None or trouble.tend(), REST_SECONDS + 60, "the company has closed")
    code = company.wait()

    with suppress(FileNotFoundError):
        report = json.loads((tmp_path / "report.json").read_text())
        print(f"{dict(trouble.done)} in {time.monotonic() - began:.0f} s: {report['numbers']}")
    assert code == 0, f"seed {seed}: {fleet.log('company')[-6000:]}"
    trouble.tend()
    wait_for(lambda: fleet.consumers() == WORKERS, 60, "every worker waits for messages again")
    fleet.aws.keys |= {k: (v[0], v[1]) for k, v in json.loads((tmp_path / "secrets.json").read_text()).items()}
    trouble.look_into_broker()
    assert told(fleet, fleet.logs() | {"Redis": b"\n".join(trouble.seen)}) == []
