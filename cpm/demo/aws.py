"""The AWS side: boto3 clients as a customer has them, and the simulator's control endpoint for bytes of volumes and databases."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import requests
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cpm.demo.errors import DemoFailed

# What calls of AWS and of the control endpoint may raise, beside DemoFailed.
CALL_ERRORS = (BotoCoreError, ClientError, requests.RequestException)
SECONDS = 120
BOTO = Config(retries={"max_attempts": 3, "mode": "standard"}, connect_timeout=10, read_timeout=60)


@dataclass(frozen=True)
class AwsAccount:
    """An account and a user's keys in it."""

    number: str
    access_key: str
    secret_key: str


@dataclass
class SimulatedAws:
    """Two accounts of simulated AWS. Clients and bytes; nothing here knows CPM."""

    endpoint_url: str
    control_url: str
    _clients: dict[tuple[str, str, str], Any] = field(default_factory=dict)

    def ec2(self, account: AwsAccount, region: str) -> Any:
        return self.client("ec2", account, region)

    def s3(self, account: AwsAccount, region: str) -> Any:
        return self.client("s3", account, region)

    def account_of(self, access_key: str, secret_key: str, region: str) -> AwsAccount:
        """The account that these keys belong to."""
        unnamed = AwsAccount("", access_key, secret_key)
        number = self.client("sts", unnamed, region).get_caller_identity()["Account"]
        return AwsAccount(number, access_key, secret_key)

    def new_account(self, number: str) -> AwsAccount:
        made = self.control("POST", "/accounts", {"account_number": number})
        return AwsAccount(number, made["access_key"], made["secret_key"])

    def client(self, service: str, account: AwsAccount, region: str) -> Any:
        key = (service, account.access_key, region)
        if key not in self._clients:
            self._clients[key] = boto3.client(
                service,
                region_name=region,
                endpoint_url=self.endpoint_url,
                aws_access_key_id=account.access_key,
                aws_secret_access_key=account.secret_key,
                config=BOTO,
            )
        return self._clients[key]

    # -- the control endpoint; see cpm/simulator/control.py ------------------------------------------------

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = requests.request(method, self.control_url + path, json=body, timeout=SECONDS)
        if not answer.ok:
            raise DemoFailed(f"the simulator refused {method} {path}: {answer.text[:500]}")
        found: dict[str, Any] = answer.json()
        return found

    def sha256(self, volume_id: str) -> str:
        """SHA-256 of every byte of a volume."""
        digest: str = self.control("GET", f"/volumes/{volume_id}/sha256")["sha256"]
        return digest

    def read(self, volume_id: str, offset: int, length: int) -> bytes:
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
        answer = requests.get(self._content(volume_id), headers=wanted, timeout=SECONDS)
        answer.raise_for_status()
        return answer.content

    def write(self, volume_id: str, offset: int, data: bytes) -> None:
        """Writes to a volume as its instance would."""
        answer = requests.put(self._content(volume_id), params={"offset": offset}, data=data, timeout=SECONDS)
        answer.raise_for_status()

    def _content(self, volume_id: str) -> str:
        return f"{self.control_url}/volumes/{volume_id}/content"

    def held(self, path: str) -> bytes:
        """What is inside a database, a warehouse or a file, by its path at the control endpoint."""
        answer = requests.get(self.control_url + path, timeout=SECONDS)
        answer.raise_for_status()
        return answer.content

    def hold(self, path: str, data: bytes) -> None:
        """Puts something inside, as those who use it would."""
        requests.put(self.control_url + path, data=data, timeout=SECONDS).raise_for_status()

    def last_call(self) -> int:
        """The number of the newest API call, to count from."""
        newest: int = self.control("GET", "/calls/count?since=0")["last"]
        return newest

    def calls(self, since: int, *actions: str) -> list[dict[str, Any]]:
        """API calls of these actions after that number, in order."""
        found = self.control("GET", f"/calls?since={since}")["calls"]
        return [one for one in found if one["action"] in actions]


def own_snapshots(ec2: Any) -> list[dict[str, Any]]:
    """Every snapshot that the account owns in the client's region."""
    pages: Iterator[dict[str, Any]] = ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"])
    return [one for page in pages for one in page["Snapshots"]]


def existing_snapshots(ec2: Any, ids: list[str]) -> set[str]:
    """Which of these snapshots AWS has. Only "not found" means that one is gone."""
    found = set()
    for snapshot_id in ids:
        try:
            ec2.describe_snapshots(SnapshotIds=[snapshot_id])
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidSnapshot.NotFound":
                raise
        else:
            found.add(snapshot_id)
    return found


def unless_absent(code: str, ask: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """What AWS answers; None when it answers with that code, which says that there is no such thing."""
    try:
        return ask()
    except ClientError as error:
        if error.response["Error"]["Code"] != code:
            raise
        return None
