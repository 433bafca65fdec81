"""Getting things back, over REST."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from cpm.demo.display import Display
from cpm.demo.errors import DemoFailed
from cpm.demo.protection import Protection
from cpm.demo.rest import Json, Rest
from cpm.demo.rounds import Round
from cpm.demo.waiting import Patience
from cpm.demo.world import Volume, World

RECOVERED_WITHIN = 120
RUNNING, SUCCESSFUL = "P", "R"


@dataclass(frozen=True)
class Running:
    """A recovery that was started."""

    id: int
    what: str


def start_volume(rest: Rest, one: Round, volume: Volume) -> Running:
    """The volume of that backup from its own snapshot, where it was."""
    row = _record(one.snapshots, volume)
    made = rest.post(f"backups/{one.backup['id']}/snapshots/volumes/{row['id']}/recover/")
    return Running(made["id"], f"volume {volume.name} of backup {one.number}")


def start_dr_volume(rest: Rest, one: Round, volume: Volume, region: str) -> Running:
    """The volume of that backup from its copy in that region."""
    row = _record([copy for copy in one.copies if copy["region"] == region], volume)
    made = rest.post(f"backups/{one.backup['id']}/snapshots/dr_volumes/{row['id']}/recover/")
    return Running(made["id"], f"volume {volume.name} of backup {one.number} in {region}")


def start_instance(rest: Rest, one: Round, world: World, protection: Protection) -> Running:
    """The instance of that backup in the DR account, in the network that stands ready there."""
    (row,) = rest.get(f"backups/{one.backup['id']}/snapshots/instances/", resource=world.instance)
    network, region = world.dr_network, world.regions.dr_account
    made = rest.post(
        f"backups/{one.backup['id']}/snapshots/instances/{row['id']}/recover/",
        to_account=protection.dr_account,
        to_region=protection.region_ids[region],
        placement="V",
        vpc=[network.vpc],
        vpc_subnet_id=[network.subnet],
        security_groups=[network.security_group],
        key_pair=network.key_pair,
    )
    return Running(made["id"], f"instance {world.instance} of backup {one.number} in {region}, DR account")


def start_instance_from_s3(rest: Rest, one: Round, world: World) -> Running:
    """The instance of that backup from its copies in S3, where it was and in its own network."""
    (row,) = rest.get(f"backups/{one.backup['id']}/snapshots/instances/", resource=world.instance)
    made = rest.post(f"backups/{one.backup['id']}/snapshots/instances/{row['id']}/recover_from_s3/")
    return Running(made["id"], f"instance {world.instance} of backup {one.number} from S3")


def _record(rows: list[Json], volume: Volume) -> Json:
    found = [row for row in rows if row["backed_up_resource_id"] == volume.id]
    if len(found) != 1:
        raise DemoFailed(f"CPM shows {len(found)} snapshots of volume {volume.name}, not one")
    return found[0]


def finish(rest: Rest, running: list[Running], display: Display, patience: Patience) -> list[str]:
    """Waits for recoveries and shows their logs meanwhile; the AWS ids of what came back, in the same order."""
    told: set[tuple[int, str, str]] = set()

    def tell(rows: list[Json]) -> None:
        for one in running:
            for line in rest.get(f"recoveries/{one.id}/logs/"):
                key = (one.id, line["log_time"], line["log"])
                if key not in told:
                    told.add(key)
                    display.say(f"recovery {one.id}: {line['log']}")

    return wait(rest, running, patience, tell)


def wait(
    rest: Rest, running: list[Running], patience: Patience, look: Callable[[list[Json]], None]
) -> list[str]:
    """Waits for recoveries and has `look` show them meanwhile; the AWS ids of what came back, in the same order.

    Raises DemoFailed unless all are successful.
    """

    def settled() -> list[Json] | None:
        rows: list[Json] = [rest.get(f"recoveries/{one.id}/") for one in running]
        look(rows)
        return rows if all(row["status"] != RUNNING for row in rows) else None

    rows = patience.until("the end of the recoveries", settled, within=RECOVERED_WITHIN, every=1)
    for one, row in zip(running, rows, strict=True):
        if row["status"] != SUCCESSFUL:
            raise DemoFailed(f"the recovery of {one.what} ended with status {row['status']}")
    return [re.split(r"[\s,]", row["recovered_resource_ids"], maxsplit=1)[0] for row in rows]
