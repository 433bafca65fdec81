"""What can be known about the compose file without an engine."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from workers.queues import NAMES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_every_queue_has_a_worker_service_of_its_own(compose: dict[str, Any]) -> None:
    served = {
        name: service["command"][service["command"].index("--queues") + 1]
        for name, service in compose["services"].items()
        if name.startswith("worker-")
    }

    assert served == {f"worker-{queue}": queue for queue in NAMES}


def test_everything_that_keeps_running_says_whether_it_is_well(compose: dict[str, Any]) -> None:
    lasting = {name: service for name, service in compose["services"].items() if service["restart"] != "no"}

    assert {name for name, service in lasting.items() if "healthcheck" not in service} == set()
    assert set(compose["services"]) - set(lasting) == {"migrate"}


def test_secrets_come_from_files_that_are_declared(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        declared = set(service["secrets"])
        read = {
            value.removeprefix("/run/secrets/")
            for value in service.get("environment", {}).values()
            if str(value).startswith("/run/secrets/")
        }

        assert read <= declared <= set(compose["secrets"]), name
        assert not any("PASSWORD" in key and not key.endswith("_FILE") for key in service.get("environment", {})), name


def test_services_wait_only_for_services_that_exist(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for needed, condition in service.get("depends_on", {}).items():
            assert needed in compose["services"], name
            assert condition["condition"] == "service_completed_successfully" or (
                "healthcheck" in compose["services"][needed]
            ), name
