"""The demo from top to bottom."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta

from rich.table import Table

from cpm.demo import disaster, files, others, proofs, protection, recovery, world
from cpm.demo.aws import SimulatedAws
from cpm.demo.disaster import Killer
from cpm.demo.display import Display
from cpm.demo.errors import DemoFailed
from cpm.demo.kinds.base import Place
from cpm.demo.others import Resource
from cpm.demo.proofs import Proof
from cpm.demo.protection import GENERATIONS, Protection
from cpm.demo.rest import Rest
from cpm.demo.rounds import Round, Rounds
from cpm.demo.waiting import Patience
from cpm.demo.world import Regions, Volume, World
from cpm.demo.writer import Writer
from cpm.embedded.connection import Connection
from cpm.embedded.supervisor import Supervisor

BACKUPS = GENERATIONS + 1
MOVED_TO_S3 = "M"
KILLED_IN, RECOVERED_EARLY = 2, 2
# How long simulated AWS takes for things, in seconds: long enough to be seen.
TIMING = {
    "snapshot_seconds": 7,
    "copy_seconds": 8,
    "volume_seconds": 1,
    "instance_seconds": 3,
    "database_seconds": 2,
    "database_snapshot_seconds": 2,
    "table_seconds": 2,
    "backup_job_seconds": 2,
    "file_system_seconds": 2,
}
LEAD = timedelta(seconds=12)


@dataclass
class Story:
    """Runs in a thread of its own beside the stack's supervisor. `run` returns, or raises what went wrong.

    `sabotage` changes one byte of a recovered volume before it is compared: then the demo must fail.
    """

    connection: Connection
    supervisor: Supervisor
    workers: Sequence[str]
    display: Display
    patience: Patience
    sabotage: bool = False
    proven: list[Proof] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)

    def run(self) -> None:
        given = self.connection
        assert given.aws_endpoint_url and given.simulator_control_url and given.aws_regions
        assert given.aws_access_key_id and given.aws_secret_access_key
        self.aws = SimulatedAws(given.aws_endpoint_url, given.simulator_control_url)
        home, dr, dr_account = given.aws_regions[:3]
        account = self.aws.account_of(given.aws_access_key_id, given.aws_secret_access_key, home)
        self.display.chapter("A company in simulated AWS")
        self.world = world.build(self.aws, account, Regions(home, dr, dr_account), self.patience)
        self.dr_place = Place(self.aws, account, dr)
        self.others = others.build(Place(self.aws, account, home), self.dr_place, self.patience)
        self.aws.control("POST", "/timing", TIMING)
        self._introduce(self.world, self.others)
        # An open connection would keep the API from stopping at once.
        with closing(Rest(given.api_url, given.api_key)) as self.rest:
            rounds = self._back_up()
            self._let_expire(rounds)
            self._lose_and_recover(rounds)
            self._every_other_kind(self.others)
        self._sum_up()

    def _introduce(self, built: World, made: Sequence[Resource]) -> None:
        regions = built.regions
        self.display.say(f"Account {built.account.number}: {regions.home} is home, {regions.dr} is for DR.")
        self.display.say(
            f"Account {built.dr_account.number}: {regions.dr_account} is for DR, should the first be lost."
        )
        for volume in built.volumes:
            where = f"at {volume.device} of {built.instance}" if volume.device else "attached to nothing"
            files = len(volume.image.files)
            self.display.say(f"Volume {volume.name:<7} {volume.id} {where}: ext4 with {files} files.")
        for one in made:
            self.display.say(f"{one}: {one.content.amount}.")

    # -- backups ------------------------------------------------------------------------------------------

    def _back_up(self) -> Rounds:
        """All rounds, up to the end of the last one's copies."""
        self.display.chapter(
            f"A policy that fires every minute, keeps {GENERATIONS} backups, copies each twice, and every other to S3"
        )
        told = protection.set_up(self.rest, self.world, lead=LEAD)
        self.protection: Protection = told
        self.display.say(
            "CPM knows both accounts, the instance, the free volume, where copies go, and when to run."
        )
        killer = Killer(self.aws, self.supervisor, self.workers, self.connection.database_url, self.patience)
        with Writer(self.aws, self.world.volumes).at_work() as writer:
            rounds = Rounds(self.rest, self.world, told, writer, self.display, self.patience)
            for number in range(1, BACKUPS + 1):
                if number == KILLED_IN:
                    rounds.run(before=killer.lie_in_wait, meanwhile=lambda: self._kill(killer))
                else:
                    rounds.run()
            protection.pause(self.rest, told)
            rounds.finish()
        counted = rounds.snapshots_of_volumes()
        self._prove(
            proofs.made_once(counted, [volume.id for volume in self.world.volumes], BACKUPS),
            proofs.incremental(
                f"Backup {BACKUPS} read from AWS what has changed since the copy before",
                rounds.all[-1].snapshots,
            ),
        )
        snapshots = sum(len(one.snapshots) for one in rounds.all)
        copies = sum(len(one.copies) for one in rounds.all)
        self.facts += [
            ("Backups by schedule", f"{BACKUPS}, a minute apart"),
            ("Snapshots", f"{snapshots} of {len(self.world.volumes)} volumes"),
            ("DR copies", f"{copies} in another region and another account"),
            ("Copies in S3", f"{sum(len(one.in_s3) for one in rounds.all)} of every other backup"),
            ("Written meanwhile", f"{writer.bytes / 1024 / 1024:.1f} MiB"),
            ("Worker killed", f"{killer.killed}, during backup {KILLED_IN}, which is successful"),
        ]
        return rounds

    def _kill(self, killer: Killer) -> None:
        killer.strike()
        self.display.say(
            f"Killed {killer.killed} with SIGKILL while it waited for AWS to answer CreateSnapshots.",
            style="yellow",
        )

    # -- retention ----------------------------------------------------------------------------------------

    def _let_expire(self, rounds: Rounds) -> None:
        self.display.chapter(f"Retention: {BACKUPS} backups, {GENERATIONS} are kept")
        expired, *kept = rounds.all
        self.rest.post("settings/cleanup/run/")
        path = f"backups/{expired.backup['id']}/"
        self.patience.until(
            "the deletion of the oldest backup",
            lambda: self.rest.get(path)["status"] == MOVED_TO_S3,
            within=60,
            every=1,
        )
        self._prove(*proofs.retention(self.world, expired, kept))
        self.facts.append(
            ("Retention", f"backup {expired.number} lives on in S3, its snapshots and copies deleted")
        )

    # -- disaster -----------------------------------------------------------------------------------------

    def _lose_and_recover(self, rounds: Rounds) -> None:
        early, last = rounds.all[RECOVERED_EARLY - 1], rounds.all[-1]
        orders = next(volume for volume in self.world.volumes if volume.name == "orders")
        self.display.chapter("Disaster: the instance and all volumes are destroyed")
        disaster.destroy_source(self.world, self.patience)
        first = recovery.start_volume(self.rest, early, orders)
        (volume_id,) = recovery.finish(self.rest, [first], self.display, self.patience)
        self._compare(early, orders, volume_id, f"{orders.name} of backup {early.number}")
        self._prove(
            proofs.differs(
                f"{orders.name} changed between backups {early.number} and {last.number}",
                early.sha256[orders.id],
                last.sha256[orders.id],
            )
        )
        self.display.chapter(f"Worse: nothing is left in {self.world.regions.home}")
        lost = disaster.destroy_snapshots(self.world.home)
        self.display.say(f"Deleted {lost} snapshots and every image there, behind CPM's back.")
        self._recover_from_dr(last)
        self.display.chapter("Worst: the DR copies are lost too, and only S3 is left")
        lost = sum(disaster.destroy_snapshots(self.aws.ec2(*place)) for place in self.world.places())
        self.display.say(f"Deleted {lost} snapshots in all regions and both accounts, behind CPM's back.")
        self._recover_from_s3(last)
        self._download(rounds.all[0])
        self.facts.append(
            ("Recovered", "1 volume; from DR 1 instance and 1 volume; from S3 1 instance and 1 file")
        )

    def _recover_from_dr(self, last: Round) -> None:
        regions, free = self.world.regions, self.world.free
        running = [
            recovery.start_instance(self.rest, last, self.world, self.protection),
            recovery.start_dr_volume(self.rest, last, free, regions.dr),
        ]
        instance, volume_id = recovery.finish(self.rest, running, self.display, self.patience)
        there = world.devices_of(self.aws.ec2(self.world.dr_account, regions.dr_account), instance)
        if set(there) != set(world.DEVICES):
            raise DemoFailed(f"{instance} came back with volumes at {', '.join(sorted(there))}")
        if self.sabotage:
            self._damage(there[world.ROOT_DEVICE])
        for volume in self.world.attached:
            self._compare(
                last, volume, there[volume.device], f"{volume.device} of {instance} in {regions.dr_account}"
            )
        self._compare(last, free, volume_id, f"{free.name} in {regions.dr}")

    def _recover_from_s3(self, last: Round) -> None:
        running = [recovery.start_instance_from_s3(self.rest, last, self.world)]
        (instance,) = recovery.finish(self.rest, running, self.display, self.patience)
        there = world.devices_of(self.world.home, instance)
        for volume in self.world.attached:
            self._compare(last, volume, there[volume.device], f"{volume.device} of {instance}, from S3")

    def _download(self, first: Round) -> None:
        """One file of the oldest backup, of which nothing but its copy in S3 is left."""
        self.display.chapter("One file out of the oldest backup, straight from S3")
        orders = next(volume for volume in self.world.volumes if volume.name == "orders")
        file = orders.image.settled_files[0]
        content = files.download(self.rest, first, orders, file, self.display, self.patience)
        self._prove(proofs.same_file(f"{file.path} of {orders.name} at backup {first.number}", file, content))

    def _damage(self, volume_id: str) -> None:
        """One bit of one byte, in the middle of nowhere."""
        offset = 777_777_777
        (byte,) = self.aws.read(volume_id, offset, 1)
        self.aws.write(volume_id, offset, bytes([byte ^ 1]))
        self.display.say(f"Sabotage: one bit of {volume_id} was changed.", style="red")

    # -- databases and the like ---------------------------------------------------------------------------

    def _every_other_kind(self, resources: Sequence[Resource]) -> None:
        """All in one policy, backed up once, changed, deleted, and recovered at once."""
        self.display.chapter("Every other kind of resource: backed up, deleted, recovered under new names")
        policy = others.protect(self.rest, self.protection, resources, self.dr_place)
        self.display.say(
            f"Policy {others.POLICY} has one of each; copies and the mirror of the bucket go to {self.dr_place.region}."
        )
        self.display.say("It runs now.")
        backup = others.back_up(self.rest, policy, resources, self.display, self.patience)
        self._prove(others.change(resources))
        others.lose(resources, self.patience)
        self.display.say(
            "All of them were deleted. Now every backup and every copy is recovered, all at once."
        )
        wanted = others.wishes(resources, self.dr_place)
        recovered = others.recover(self.rest, backup, wanted, self.display, self.patience)
        recovered += others.mirrored(resources, self.dr_place)
        self.display.console.print(others.table(recovered))
        self._prove(*(one.proof for one in recovered))
        once = sum(wish.place == wish.of.place for wish in wanted)
        told = f"1 of each of {once} other kinds, {len(wanted) - once} of them also from DR; a bucket has its mirror"
        self.facts.append(("Recovered too", told))

    # -- proofs -------------------------------------------------------------------------------------------

    def _compare(self, one: Round, volume: Volume, volume_id: str, what: str) -> None:
        self._prove(
            proofs.same_bytes(
                f"{what}: every byte as at backup {one.number}",
                self.aws.sha256,
                volume_id,
                one.sha256[volume.id],
            ),
            proofs.same_files(f"{what}: files that nobody wrote to", self.aws, volume_id, volume.image),
        )

    def _prove(self, *found: Proof) -> None:
        for one in found:
            self.proven.append(one)
            verdict = "proven" if one.holds else "WRONG"
            self.display.say(f"{verdict}  {one.claim}", style="green" if one.holds else "bold red")
        proofs.require(found)

    def _sum_up(self) -> None:
        self.facts.append(("AWS calls", str(self.aws.last_call())))
        table = Table(show_header=False)
        for name, value in [*self.facts, ("Time", f"{self.display.seconds:.0f} s with start-up")]:
            table.add_row(name, value)
        self.display.chapter("What was done")
        self.display.console.print(table)
        self.display.chapter("What was proven")
        for one in self.proven:
            self.display.tell(one.claim, one.found)
