"""The rounds: each waits for a scheduled backup, notes the SHA-256 of every volume at its moment, and follows it.

The workload is silent from shortly before the backup until the volumes are hashed, so the hashes are those of the
moment that the snapshots hold. That moment is taken from AWS's own log of calls, not from what CPM says.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cpm.demo.aws import own_snapshots
from cpm.demo.display import Display
from cpm.demo.errors import DemoFailed, ProofFailed
from cpm.demo.protection import COPY_INTERVAL, Protection
from cpm.demo.rest import Json, Rest, moment
from cpm.demo.waiting import Patience
from cpm.demo.world import World
from cpm.demo.writer import Writer

QUIET_BEFORE = timedelta(seconds=3)
# A run that had to be dropped is followed by the next one a minute later.
BACKUP_WITHIN = 150
FINISHED_WITHIN = 120
SUCCESSFUL, COMPLETED = "B", "C"
# Of copies to S3: all or all that can be copied; skipped because it was not this backup's turn.
COPIED, NOT_ITS_TURN = {"S", "V"}, "K"
COPYING = {"Z", "I", "P", "G"}
RUNNING = {"I", "P"}
CREATE = ("CreateSnapshots", "CreateSnapshot")


@dataclass
class Round:
    """One backup, and what every volume held at its moment (by volume id)."""

    number: int
    sha256: dict[str, str]
    backup: Json = field(default_factory=dict)
    snapshots: list[Json] = field(default_factory=list)
    copies: list[Json] = field(default_factory=list)
    in_s3: list[Json] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        status, dr = self.backup.get("status", "I"), self.backup.get("dr_status", "P")
        return status not in RUNNING and dr not in {"P", "I"} and self.s3_status not in COPYING

    @property
    def s3_status(self) -> str:
        status: str = self.backup.get("s3_copy_status", {"status": "Z"})["status"]
        return status


class Rounds:
    """Follows all backups of the policy."""

    def __init__(
        self,
        rest: Rest,
        world: World,
        protection: Protection,
        writer: Writer,
        display: Display,
        patience: Patience,
    ) -> None:
        self.rest, self.world, self.protection = rest, world, protection
        self.writer, self.display, self.patience = writer, display, patience
        self.all: list[Round] = []
        self._seen = world.aws.last_call()

    def run(
        self, before: Callable[[], Any] = lambda: None, meanwhile: Callable[[], Any] = lambda: None
    ) -> Round:
        """The next backup, up to its moment. `before` runs before it is due, `meanwhile` while it is being made."""
        number = len(self.all) + 1
        before()
        due = self.protection.next_run(datetime.now(UTC) + QUIET_BEFORE)
        self.display.say(f"Backup {number} is due at {due:%H:%M:%S} UTC; the workload writes until then.")
        self._wait_for(due - QUIET_BEFORE, f"Until backup {number}")
        with self.writer.silence():
            meanwhile()
            self.patience.until(
                f"scheduled backup {number}", lambda: self._taken(number), within=BACKUP_WITHIN, every=0.3
            )
            made = self._round(number)
        self.all.append(made)
        self.display.say(f"Backup {number} took its snapshots; each volume then held these bytes (SHA-256):")
        for volume in self.world.volumes:
            self.display.say(f"    {volume.name:<7} {made.sha256[volume.id]}")
        return made

    def finish(self) -> None:
        """Waits until every backup and all its copies are over. Raises DemoFailed unless all are successful."""
        self.patience.until(
            "the end of the backups and their copies", self._all_finished, within=FINISHED_WITHIN
        )
        for one in self.all:
            wanted = COPIED if (one.number - 1) % COPY_INTERVAL == 0 else {NOT_ITS_TURN}
            done = (one.backup["status"], one.backup["dr_status"])
            if done != (SUCCESSFUL, COMPLETED) or one.s3_status not in wanted:
                logs = "\n".join(line["log"] for line in self.rest.get(f"backups/{one.backup['id']}/logs/"))
                raise DemoFailed(
                    f"backup {one.number} ended with status {one.backup['status']}, DR {one.backup['dr_status']}, "
                    f"S3 {one.s3_status}:\n{logs}"
                )

    # -- until the moment ---------------------------------------------------------------------------------

    def _wait_for(self, due: datetime, name: str) -> None:
        """Follows the backups that run, and shows the time and the bytes that pass."""
        whole = max((due - datetime.now(UTC)).total_seconds(), 1)
        while (left := (due - datetime.now(UTC)).total_seconds()) > 0:
            written = f"{left:.0f} s, {self.writer.bytes / 1024 / 1024:.1f} MiB written"
            self.display.wait(name, 100 * (1 - left / whole), written)
            if left > 1:
                self.refresh()
            self.patience.pause(min(1.0, (due - datetime.now(UTC)).total_seconds()))
        self.display.drop(name)

    def _taken(self, number: int) -> bool:
        """Whether AWS has as many snapshots of every volume as there have been backups."""
        made = self.snapshots_of_volumes()
        return all(made[volume.id] >= number for volume in self.world.volumes)

    def snapshots_of_volumes(self) -> Counter[str]:
        return Counter(one["VolumeId"] for one in own_snapshots(self.world.home))

    def _round(self, number: int) -> Round:
        """Hashes the volumes. Raises ProofFailed if anything was written since the first snapshot was asked for."""
        calls = [one for one in self.world.aws.calls(self._seen, *CREATE) if not one["error"]]
        volumes = [volume.id for volume in self.world.volumes]
        with ThreadPoolExecutor(2) as pool:
            digests = dict(zip(volumes, pool.map(self.world.aws.sha256, volumes), strict=True))
        if not calls or self.writer.last_at > calls[0]["time"]:
            raise ProofFailed(f"the workload wrote after the first snapshot of backup {number} was asked for")
        self._seen = self.world.aws.last_call()
        return Round(number, digests)

    # -- afterwards ---------------------------------------------------------------------------------------

    def _all_finished(self) -> bool:
        self.refresh()
        return all(one.finished for one in self.all)

    def refresh(self) -> None:
        """Reads from CPM how far every backup is, and shows it."""
        if all(one.finished for one in self.all):
            return
        rows = sorted(
            self.rest.get("backups/", policy=self.protection.policy),
            key=lambda row: moment(row["start_time"]),
        )
        for one, row in zip(self.all, rows, strict=False):
            if not one.finished:
                self._follow(one, row)

    def _follow(self, one: Round, row: Json) -> None:
        path = f"backups/{row['id']}/snapshots"
        one.snapshots, one.copies = self.rest.get(f"{path}/volumes/"), self.rest.get(f"{path}/dr_volumes/")
        one.in_s3 = self.rest.get(f"{path}/copy_to_s3/")
        one.backup = row
        regions, expected = self.world.regions, len(self.world.volumes)
        places = [(self.world.account, regions.home), *self.world.places()[1:]]
        for account, region in places:
            held = one.snapshots if region == regions.home else one.copies
            ids = [
                record["snapshot_id"]
                for record in held
                if record["region"] == region and record["snapshot_id"]
            ]
            if ids:
                percent = self._percent(self.world.aws.ec2(account, region), ids) // expected
                kind = "snapshots" if region == regions.home else "DR copies"
                self.display.bar(f"Backup {one.number} {kind} {region}", percent, f"{len(ids)} of {expected}")
        if one.in_s3 and one.s3_status in COPYING:
            percent = row["s3_copy_status"]["progress_percent"]
            self.display.bar(
                f"Backup {one.number} to S3 in {regions.dr}", percent, f"{len(one.in_s3)} volumes"
            )
        if one.finished:
            self.display.drop(f"Backup {one.number} ")
            self.display.say(f"Backup {one.number}: {describe(one)}.", style="green" if one.copies else "")

    def _percent(self, ec2: Any, ids: list[str]) -> int:
        """The sum of what AWS says of the progress of these snapshots."""
        filters = [{"Name": "snapshot-id", "Values": ids}]
        shown = ec2.describe_snapshots(Filters=filters)["Snapshots"]
        return sum(int(one.get("Progress", "0%").rstrip("%") or 0) for one in shown)


def describe(one: Round) -> str:
    good = sum(1 for row in one.snapshots if row["succeeded"])
    copied = sum(1 for row in one.copies if row["succeeded"])
    outcome = "successful" if one.backup["status"] == SUCCESSFUL else f"status {one.backup['status']}"
    dr = "complete" if one.backup["dr_status"] == COMPLETED else f"status {one.backup['dr_status']}"
    in_s3 = f"; {len(one.in_s3)} volumes copied to S3" if one.in_s3 else ""
    return f"{outcome} with {good} snapshots; DR {dr} with {copied} copies{in_s3}"
