"""What the demo claims, as things that can be wrong. Only here is decided whether it has succeeded."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cpm.demo import images
from cpm.demo.aws import AwsAccount, SimulatedAws, existing_snapshots
from cpm.demo.errors import ProofFailed
from cpm.demo.images import File, Image
from cpm.demo.rounds import Round
from cpm.demo.world import World


@dataclass(frozen=True)
class Proof:
    """One claim; it holds when what was found is what was expected."""

    claim: str
    expected: str
    found: str

    @property
    def holds(self) -> bool:
        return self.expected == self.found


def require(proofs: Iterable[Proof]) -> None:
    """Raises ProofFailed naming every claim that does not hold."""
    broken = [one for one in proofs if not one.holds]
    if broken:
        lines = (f"{one.claim}: expected {one.expected}, found {one.found}" for one in broken)
        raise ProofFailed("not proven: " + "; ".join(lines))


def same_bytes(claim: str, sha256: Callable[[str], str], volume_id: str, expected: str) -> Proof:
    """Every byte of the volume is as it was: by SHA-256."""
    return Proof(claim, expected, sha256(volume_id))


def same_files(claim: str, aws: SimulatedAws, volume_id: str, image: Image) -> Proof:
    """Every file that nobody wrote to is as it was put there, read at its place in the file system."""
    files = image.settled_files
    broken = images.damaged(files, lambda offset, length: aws.read(volume_id, offset, length))
    everything = f"{len(files)} files intact"
    return Proof(claim, everything, f"damaged: {', '.join(broken)}" if broken else everything)


def same_file(claim: str, file: File, content: bytes) -> Proof:
    """The downloaded bytes are those that the file was made of."""
    return Proof(claim, file.sha256, hashlib.sha256(content).hexdigest())


def incremental(claim: str, rows: Iterable[Mapping[str, Any]]) -> Proof:
    """Of every volume less was read than it holds."""
    whole = [row["backed_up_resource_id"] for row in rows if not _changed(row) < _valid(row)]
    return Proof(
        claim, "only changed blocks", f"all of {', '.join(whole)}" if whole else "only changed blocks"
    )


def _changed(row: Mapping[str, Any]) -> int:
    return int(row["cbt_changed_size_mb"])


def _valid(row: Mapping[str, Any]) -> int:
    return int(row["cbt_valid_size_mb"])


def differs(claim: str, one: str, other: str) -> Proof:
    """The two moments are not the same, so that the one that came back was the one asked for."""
    return Proof(claim, "different bytes", "different bytes" if one != other else "the same bytes")


def held(world: World, one: Round) -> tuple[set[str], set[str]]:
    """Ids of all the snapshots and copies that a backup made, and those of them that AWS has."""
    here: set[str] = set()
    for account, region in world.places():
        here |= existing_snapshots(world.aws.ec2(account, region), _ids(one, account, region))
    return {row["snapshot_id"] for row in [*one.snapshots, *one.copies]}, here


def _ids(one: Round, account: AwsAccount, region: str) -> list[str]:
    return [
        row["snapshot_id"]
        for row in [*one.snapshots, *one.copies]
        if row["region"] == region and row["snapshot_aws_account_number"] == account.number
    ]


def retention(world: World, expired: Round, kept: Iterable[Round]) -> list[Proof]:
    """In every region and account the snapshots of the expired backup are gone, and all others are there."""
    made, here = held(world, expired)
    proofs = [
        Proof(
            f"Backup {expired.number}: {len(made)} snapshots and copies deleted",
            "0 left",
            f"{len(here)} left",
        )
    ]
    for one in kept:
        made, here = held(world, one)
        claim = f"Backup {one.number}: all snapshots and copies kept"
        proofs.append(Proof(claim, f"{len(made)} there", f"{len(here)} there"))
    return proofs


def made_once(counted: Mapping[str, int], volumes: Iterable[str], backups: int) -> Proof:
    """No snapshot was made twice, and none was forgotten."""
    found = sorted({counted.get(volume, 0) for volume in volumes})
    claim = f"Each volume has exactly {backups} snapshots after {backups} backups, worker killed or not"
    return Proof(claim, f"{backups}", ", ".join(map(str, found)))
