"""What the simulator keeps of EFS: file systems with the bytes in them, and mount targets."""

from dataclasses import dataclass, field
from datetime import datetime

from cpm.simulator.timing import Settling

Files = dict[str, bytes]


@dataclass
class MountTarget:
    id: str
    file_system_id: str
    subnet_id: str
    vpc_id: str
    zone: str
    zone_id: str
    address: str
    interface_id: str
    settling: Settling


@dataclass
class FileSystem:
    id: str
    account: str
    region: str
    token: str
    mode: str
    throughput: str
    provisioned: float | None
    zone: str | None
    kms_key_id: str | None
    tags: dict[str, str]
    settling: Settling
    # Path from the root, without a leading slash, to bytes.
    files: Files = field(default_factory=dict)
    # What restores bring, each whole once its span is over.
    arrivals: list[tuple[Settling, Files]] = field(default_factory=list)
    targets: dict[str, MountTarget] = field(default_factory=dict)
    serial: int = 0

    @property
    def arn(self) -> str:
        return f"arn:aws:elasticfilesystem:{self.region}:{self.account}:file-system/{self.id}"

    @property
    def created(self) -> datetime:
        return self.settling.start

    @property
    def state(self) -> str:
        return "available" if self.settling.done() else "creating"

    def content(self) -> Files:
        """Every file as it is now."""
        found = dict(self.files)
        for settling, files in self.arrivals:
            if settling.done():
                found.update(files)
        return found

    def write(self, path: str, data: bytes | None) -> None:
        """Puts a file, or removes it (None). What has arrived becomes like any other file first."""
        self.files = self.content()
        self.arrivals = [arrival for arrival in self.arrivals if not arrival[0].done()]
        if data is None:
            self.files.pop(path, None)
        else:
            self.files[path] = data

    def directories(self) -> set[str]:
        """The names at the root, those still arriving among them."""
        coming = [path for _, files in self.arrivals for path in files]
        return {path.split("/", 1)[0] for path in (*self.files, *coming)}
