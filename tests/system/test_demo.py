"""`cpm demo` as people start it. It waits for a schedule whose smallest unit is a minute, so only the long form runs it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpm.demo.kinds import KINDS
from cpm.embedded import processes

ROOT = Path(__file__).resolve().parents[2]
LONG = os.environ.get("CPM_CHAOS") == "long"
OWN_SERVERS = (
    *("CPM_DATABASE_URL", "CPM_REDIS_URL", "CPM_DATA", "CPM_SECRET_KEY_FILE", "CPM_FIELD_KEYS_FILE"),
    "CPM_JOBS_WAKE",
)
SECONDS = 400

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(SECONDS + 60),
    pytest.mark.skipif(not LONG, reason="takes minutes; CPM_CHAOS=long runs it"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a demo keeps its data; nothing that it started may outlive it."""
    yield tmp_path / "demo"

    mark = (tmp_path / "demo" / "secrets" / "mark").read_text().strip()
    assert processes.marked(mark) == []


def start(folder: Path, *more: str) -> "subprocess.Popen[str]":
    env = {name: value for name, value in os.environ.items() if name not in OWN_SERVERS}
    return subprocess.Popen(
        [sys.executable, "-m", "cpm.cli", "demo", "--data", str(folder), *more],
        env={**env, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_demo_proves_what_it_recovers(folder):
    demo = start(folder)

    told, _ = demo.communicate(timeout=SECONDS)

    assert demo.returncode == 0, told
    assert "WRONG" not in told
    assert len(re.findall(r"proven .*every byte as at backup 3", told)) == 7
    assert len(re.findall(r"proven .*every byte as at backup 2", told)) == 1
    assert re.search(r"proven .*/\S+ of orders at backup 1", told)
    assert re.search(r"Killed worker\d with SIGKILL", told)
    for kind in KINDS:
        back = re.findall(rf"proven  {kind.noun} \S+ in \S+: {kind.compared} as in \S+ when it was", told)
        assert len(back) == (2 if kind.dr_key else 1), kind.noun


def test_one_wrong_bit_makes_the_demo_fail(folder):
    demo = start(folder, "--sabotage")

    told, _ = demo.communicate(timeout=SECONDS)

    assert demo.returncode == 1, told
    assert re.search(r"WRONG  /dev/xvda .*every byte as at backup 3", told)
    assert "The demo failed: not proven" in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_when_it_is_asked_to(folder, number):
    demo = start(folder)
    assert demo.stdout is not None
    began = time.monotonic()
    for line in demo.stdout:
        if "Backup 1 is due" in line:
            break

    demo.send_signal(number)
    told, _ = demo.communicate(timeout=60)

    assert demo.returncode == 130, told
    assert time.monotonic() - began < 180
    assert "Stopped." in told
