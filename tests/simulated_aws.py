"""Starts the AWS simulator as its own process, and talks to it the way tests need."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psycopg
import requests
from botocore.config import Config

DEFAULT_ACCOUNT = "123456789012"
DEFAULT_ACCESS_KEY = "AKIASIMULATOR0000001"
DEFAULT_SECRET_KEY = "simulator-secret-key-for-account-1234567"
REGION = "us-east-1"
ROOT = Path(__file__).resolve().parent.parent
BOTO = Config(
    retries={"total_max_attempts": 1, "mode": "standard"},
    connect_timeout=5,
    read_timeout=60,
    max_pool_connections=20,
)


@dataclass
class SimulatedAws:
    """A running simulator."""

    process: "subprocess.Popen[bytes]"
    url: str
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    clients: dict[tuple[str, str, str], Any] = field(default_factory=dict)

    @property
    def control_url(self) -> str:
        return f"{self.url}/_control"

    def stop(self, timeout: float = 10) -> int:
        """Ends the process with SIGTERM and answers its exit code; kills it when it does not end in time."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    # -- clients ------------------------------------------------------------------------------------------

    def credentials(self, account: str | None = None) -> tuple[str, str]:
        """Access key and secret of a user of the account, which is made on first use."""
        number = account or DEFAULT_ACCOUNT
        if number not in self.keys:
            made = self.control("POST", "/accounts", {"account_number": number})
            self.keys[number] = (made["access_key"], made["secret_key"])
        return self.keys[number]

    def client(self, service: str, region: str = REGION, account: str | None = None) -> Any:
        """A real boto3 client; the same one for the same arguments."""
        key = (service, region, account or DEFAULT_ACCOUNT)
        if key not in self.clients:
            access_key, secret_key = self.credentials(account)
            self.clients[key] = self.client_with(service, region, access_key, secret_key)
        return self.clients[key]

    def client_with(
        self, service: str, region: str, access_key: str, secret_key: str, token: str | None = None
    ) -> Any:
        """A client with these very credentials."""
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            aws_session_token=token,
            config=BOTO,
        )

    # -- control ------------------------------------------------------------------------------------------

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call of the control endpoint; raises when it refuses."""
        response = requests.request(method, self.control_url + path, json=body, timeout=240)
        if not response.ok:
            raise AssertionError(f"{method} {path}: {response.status_code} {response.text}")
        answer: dict[str, Any] = response.json()
        return answer

    def reset(self) -> None:
        """An empty world. Keys of extra accounts are gone with it."""
        self.control("POST", "/reset")
        self.keys = {DEFAULT_ACCOUNT: (DEFAULT_ACCESS_KEY, DEFAULT_SECRET_KEY)}
        self.clients = {}

    def timing(self, **seconds: float) -> None:
        self.control("POST", "/timing", seconds)

    def limits(self, **limits: float) -> None:
        self.control("POST", "/limits", limits)

    def fault(self, **what: Any) -> dict[str, Any]:
        """Puts a fault in force; see ``cpm.simulator.faults.Fault`` for what it may say."""
        return self.control("POST", "/faults", what)

    def clear_faults(self) -> None:
        self.control("DELETE", "/faults")

    def last_call(self) -> int:
        """Number of the newest logged call, to count from."""
        last: int = self.control("GET", "/calls/count")["last"]
        return last

    def calls(self, since: int = 0) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.control("GET", f"/calls?since={since}")["calls"]
        return found

    def count(self, since: int = 0) -> dict[str, Any]:
        return self.control("GET", f"/calls/count?since={since}")

    def objects(self) -> dict[str, Any]:
        return self.control("GET", "/objects")

    def write(self, volume_id: str, data: bytes, offset: int = 0) -> None:
        """Writes into a volume, as its instance would."""
        url = f"{self.control_url}/volumes/{volume_id}/content?offset={offset}"
        requests.put(url, data=data, timeout=120).raise_for_status()

    def read(self, object_id: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a volume or snapshot."""
        end = "" if length is None else offset + length - 1
        url = f"{self.control_url}/{_kind(object_id)}/{object_id}/content"
        response = requests.get(url, headers={"Range": f"bytes={offset}-{end}"}, timeout=120)
        response.raise_for_status()
        return response.content

    def sha256(self, object_id: str) -> str:
        """SHA-256 of all the bytes of a volume or snapshot."""
        digest: str = self.control("GET", f"/{_kind(object_id)}/{object_id}/sha256")["sha256"]
        return digest

    def fingerprint(self, object_id: str) -> str:
        """Equal for equal bytes, apart from zeros at the end; costs nothing, unlike ``sha256``."""
        digest: str = self.control("GET", f"/{_kind(object_id)}/{object_id}/fingerprint")["fingerprint"]
        return digest

    def fill(self, arn: str, data: bytes) -> None:
        """Replaces what is in a database."""
        requests.put(f"{self.control_url}/contents/{arn}", data=data, timeout=120).raise_for_status()

    def content(self, arn: str) -> bytes:
        """What is in a database, or in a snapshot of one."""
        response = requests.get(f"{self.control_url}/contents/{arn}", timeout=120)
        response.raise_for_status()
        return response.content

    # -- live databases -----------------------------------------------------------------------------------

    def live_databases(self, on: bool = True) -> None:
        """From now on new RDS instances of PostgreSQL are real databases."""
        self.control("POST", "/databases", {"live": on})

    def connect(
        self, instance_id: str, password: str, region: str = REGION, account: str | None = None, **more: Any
    ) -> "psycopg.Connection[Any]":
        """A connection to a live database as its master user, to its first database unless another one is named."""
        rds = self.client("rds", region, account)
        [shown] = rds.describe_db_instances(DBInstanceIdentifier=instance_id)["DBInstances"]
        place = {"host": shown["Endpoint"]["Address"], "port": shown["Endpoint"]["Port"]}
        database = {"user": shown["MasterUsername"], "dbname": shown.get("DBName", "postgres")}
        return psycopg.connect(password=password, autocommit=True, **{**place, **database, **more})

    # -- things that tests need often ---------------------------------------------------------------------

    def volume(self, size: int = 1, region: str = REGION, account: str | None = None, **more: Any) -> str:
        """A new volume in the region's first zone."""
        ec2 = self.client("ec2", region, account)
        volume_id: str = ec2.create_volume(AvailabilityZone=f"{region}a", Size=size, **more)["VolumeId"]
        return volume_id

    def image(self, sizes: tuple[int, ...] = (1,), region: str = REGION, account: str | None = None) -> str:
        """An AMI with as many empty volumes as sizes: /dev/xvda (root), /dev/xvdb and so on."""
        ec2 = self.client("ec2", region, account)
        mappings = []
        for letter, size in zip("abcdefghij", sizes, strict=False):
            volume_id = self.volume(size, region, account)
            snapshot_id = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
            wait_for(lambda s=snapshot_id: self._settled(ec2, s))
            ec2.delete_volume(VolumeId=volume_id)
            ebs = {"SnapshotId": snapshot_id, "VolumeType": "gp3", "DeleteOnTermination": letter == "a"}
            mappings.append({"DeviceName": f"/dev/xvd{letter}", "Ebs": ebs})
        image_id: str = ec2.register_image(
            Name=f"image-{snapshot_id}",
            Architecture="x86_64",
            RootDeviceName="/dev/xvda",
            VirtualizationType="hvm",
            EnaSupport=True,
            BlockDeviceMappings=mappings,
        )["ImageId"]
        return image_id

    def instance(
        self, sizes: tuple[int, ...] = (1,), region: str = REGION, account: str | None = None, **more: Any
    ) -> tuple[str, dict[str, str]]:
        """A running instance with empty volumes; its id, and its volumes' ids by device."""
        ec2 = self.client("ec2", region, account)
        arguments = {"InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, **more}
        arguments.setdefault("ImageId", self.image(sizes, region, account) if "ImageId" not in more else "")
        made = ec2.run_instances(**arguments)["Instances"][0]
        devices = {m["DeviceName"]: m["Ebs"]["VolumeId"] for m in made["BlockDeviceMappings"]}
        return made["InstanceId"], devices

    @staticmethod
    def _settled(ec2: Any, snapshot_id: str) -> bool:
        state: str = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]["State"]
        return state == "completed"


def _kind(object_id: str) -> str:
    return "volumes" if object_id.startswith("vol-") else "snapshots"


def wait_for(condition: Callable[[], bool], timeout: float = 10, pause: float = 0.02) -> None:
    """Polls until the condition holds; raises when it does not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not come true in time")
        time.sleep(pause)


def start(data_dir: Path | str) -> SimulatedAws:
    """Starts a simulator that keeps its data below ``data_dir`` and waits until it answers."""
    folder = Path(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    port_file = folder / "port"
    port_file.unlink(missing_ok=True)
    log = (folder / "simulator.log").open("ab")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cpm.simulator", "--data", str(folder), "--port-file", str(port_file)]
    with log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)

    def ready() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"the simulator ended: {(folder / 'simulator.log').read_text()[-3000:]}")
        return port_file.exists()

    try:
        wait_for(ready, timeout=60)
    except AssertionError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        raise
    aws = SimulatedAws(process, f"http://127.0.0.1:{port_file.read_text().strip()}")
    aws.keys[DEFAULT_ACCOUNT] = (DEFAULT_ACCESS_KEY, DEFAULT_SECRET_KEY)
    return aws
