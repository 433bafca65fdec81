"""What the demo must know of a kind of resource to make one, fill it, lose it, and tell whether another holds the same."""

import hashlib
import json
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from cpm.demo.aws import AwsAccount, SimulatedAws
from cpm.demo.rest import Json

DATABASE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Place:
    """A region of an account."""

    aws: SimulatedAws
    account: AwsAccount
    region: str

    def client(self, service: str) -> Any:
        return self.aws.client(service, self.account, self.region)


@dataclass(frozen=True)
class Content:
    """All that is in a resource: how much it is, and its SHA-256."""

    amount: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.amount}, {self.sha256}"

    @classmethod
    def of_bytes(cls, data: bytes) -> "Content":
        return cls(f"{len(data) / 1024 / 1024:g} MiB", hashlib.sha256(data).hexdigest())

    @classmethod
    def of_parts(cls, word: str, parts: Any) -> "Content":
        """Of a list or a mapping that JSON can write."""
        text = json.dumps(parts, sort_keys=True)
        return cls(f"{len(parts)} {word}", hashlib.sha256(text.encode()).hexdigest())


class Kind(ABC):
    """How a customer handles resources of one kind, with boto3 and through what runs on them."""

    key: ClassVar[str]
    """The list of its targets under a policy, and of its snapshots under a backup."""
    dr_key: ClassVar[str] = ""
    """The list of its copies in other regions; empty where AWS makes none on demand."""
    noun: ClassVar[str]
    name: ClassVar[str]
    """Of the one in the demo."""
    id_field: ClassVar[str] = "aws_resource_id"
    """What REST calls the id of a new target, and of what a recovery is to make."""
    compared: ClassVar[str]
    """What of its content is compared."""
    ready: ClassVar[str] = "available"
    """AWS's word for one that can be used."""

    mirror: ClassVar[str] = ""
    """What CPM keeps equal to it at the place for DR; then there are no snapshots, and nothing is to be recovered."""

    def prepare(self, home: Place, dr: Place) -> None:  # noqa: B027 (most kinds need nothing)
        """Makes what its backups and its copies for DR need."""

    @abstractmethod
    def make(self, place: Place) -> str:
        """Asks AWS for one; its id."""

    @abstractmethod
    def state(self, place: Place, id: str) -> str:
        """AWS's word for how it is; empty for one that is not there."""

    @abstractmethod
    def fill(self, place: Place, id: str, version: int) -> None:
        """Replaces its content; each version is another one."""

    @abstractmethod
    def content(self, place: Place, id: str) -> Content: ...

    @abstractmethod
    def delete(self, place: Place, id: str) -> None: ...

    def target(self, place: Place, id: str) -> Json:
        """The body that puts it under a policy."""
        return {"aws_region": place.region, self.id_field: id}

    def wanted(self, name: str) -> Json:
        """The body of a recovery under that name; empty where AWS gives the name."""
        return {self.id_field: name}


class Database(Kind):
    """A kind whose content is behind its ARN: the simulator runs no engines and takes bytes for tables and rows."""

    compared = "every byte"

    @abstractmethod
    def arn(self, place: Place, id: str) -> str: ...

    def fill(self, place: Place, id: str, version: int) -> None:
        data = random.Random(f"{self.key} {version}").randbytes(DATABASE_BYTES)
        place.aws.hold(f"/contents/{self.arn(place, id)}", data)

    def content(self, place: Place, id: str) -> Content:
        return Content.of_bytes(place.aws.held(f"/contents/{self.arn(place, id)}"))
