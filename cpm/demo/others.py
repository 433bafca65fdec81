"""Every other kind of resource: one of each is made, protected by one policy, lost, and recovered under a new name."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from cpm.demo import recovery
from cpm.demo.display import Display
from cpm.demo.errors import DemoFailed
from cpm.demo.kinds import KINDS
from cpm.demo.kinds.base import Content, Kind, Place
from cpm.demo.proofs import Proof
from cpm.demo.protection import Protection
from cpm.demo.recovery import Running
from cpm.demo.rest import Json, Rest
from cpm.demo.rounds import COMPLETED, RUNNING, SUCCESSFUL
from cpm.demo.waiting import Patience

POLICY = "everything-else"
MADE_WITHIN, BACKED_UP_WITHIN, DELETED_WITHIN = 60, 90, 60
COPYING = {"P", "I"}
DONE = "completed"
DIFFERENT = "different content"
# What resources hold when they are backed up, and what is put into them afterwards.
BACKED_UP, LATER = 1, 2


@dataclass(frozen=True)
class Resource:
    """One that the demo has made, and what it held when it was backed up."""

    kind: Kind
    place: Place
    id: str
    content: Content

    def __str__(self) -> str:
        return f"{self.kind.noun} {self.id}"


@dataclass(frozen=True)
class Wish:
    """A resource that is to come back at a place, from a record of that list of its backup."""

    of: Resource
    listed: str
    place: Place

    @property
    def new_name(self) -> str:
        return f"{self.of.kind.name}-again"

    def __str__(self) -> str:
        where = "" if self.place == self.of.place else f", copy in {self.place.region}"
        return f"{self.of}{where}"


@dataclass(frozen=True)
class Recovered:
    """What has come back of one."""

    wish: Wish
    id: str
    proof: Proof


def build(home: Place, dr: Place, patience: Patience, kinds: Sequence[Kind] = KINDS) -> list[Resource]:
    """One resource of each kind, with content, and what its copies need at the other place."""
    for kind in kinds:
        kind.prepare(home, dr)
    made = [(kind, kind.make(home)) for kind in kinds]
    for kind, id in made:
        _until_ready(kind, home, id, patience)
        kind.fill(home, id, BACKED_UP)
    return [Resource(kind, home, id, kind.content(home, id)) for kind, id in made]


def _until_ready(kind: Kind, place: Place, id: str, patience: Patience) -> None:
    patience.until(
        f"the making of {kind.noun} {id}", lambda: kind.state(place, id) == kind.ready, within=MADE_WITHIN
    )


# -- backup -------------------------------------------------------------------------------------------------


def protect(rest: Rest, protection: Protection, resources: Sequence[Resource], dr: Place) -> int:
    """A policy with all of them, with copies in the region for DR of those that AWS can copy; its id."""
    policy: int = rest.post(
        "policies/", name=POLICY, account=protection.account, generations=1, enabled=True
    )["id"]
    for one in resources:
        rest.post(f"policies/{policy}/targets/{one.kind.key}/", **one.kind.target(one.place, one.id))
    region = protection.region_ids[dr.region]
    rest.put(f"policies/{policy}/dr/", dr_enabled=True, dr_frequency=1, dr_regions=[region])
    return policy


def back_up(
    rest: Rest, policy: int, resources: Sequence[Resource], display: Display, patience: Patience
) -> Json:
    """Runs the policy now; its backup, once it and its copies are over. Raises DemoFailed unless all are successful."""
    rest.post(f"policies/{policy}/backups/")

    def over() -> Json | None:
        (backup,) = rest.get("backups/", policy=policy)
        for one in resources:
            for listed in _lists(one.kind):
                what = "Backup" if listed == one.kind.key else "DR copy"
                for row in _records(rest, backup, one, listed):
                    display.bar(f"{what} of {one}", 100 if row["status"] == DONE else 0, row["status"])
        found: Json = backup
        return None if found["status"] in RUNNING or found["dr_status"] in COPYING else found

    what = f"the end of the backup of {POLICY}"
    try:
        backup = patience.until(what, over, within=BACKED_UP_WITHIN)
    except DemoFailed as error:
        # What AWS refuses is tried again and again; only the log tells why nothing comes of it.
        raise DemoFailed(f"{error}:\n{_log(rest, policy)}") from error
    display.drop("")
    ended = (backup["status"], backup["dr_status"])
    if ended != (SUCCESSFUL, COMPLETED):
        raise DemoFailed(f"{what}: status {ended[0]}, DR {ended[1]}:\n{_log(rest, policy)}")
    return backup


def _log(rest: Rest, policy: int) -> str:
    """What CPM says of the backups of the policy."""
    backups: list[Json] = rest.get("backups/", policy=policy)
    return "\n".join(line["log"] for one in backups for line in rest.get(f"backups/{one['id']}/logs/"))


def _lists(kind: Kind) -> list[str]:
    """The lists of a backup's records that have something of this kind."""
    return [] if kind.mirror else [name for name in (kind.key, kind.dr_key) if name]


def _records(rest: Rest, backup: Json, one: Resource, listed: str) -> list[Json]:
    rows: list[Json] = rest.get(f"backups/{backup['id']}/snapshots/{listed}/")
    return [row for row in rows if row["backed_up_resource_id"] == one.id]


# -- loss ---------------------------------------------------------------------------------------------------


def change(resources: Sequence[Resource]) -> Proof:
    """Puts other content into each, and proves that it is another: only the backup has what was there before."""
    for one in resources:
        one.kind.fill(one.place, one.id, LATER)
    same = [str(one) for one in resources if one.kind.content(one.place, one.id).sha256 == one.content.sha256]
    told = f"the same in {', '.join(same)}" if same else DIFFERENT
    return Proof("After the backup other content was put into all of them", DIFFERENT, told)


def lose(resources: Sequence[Resource], patience: Patience) -> None:
    """Deletes all of them in AWS."""
    for one in resources:
        one.kind.delete(one.place, one.id)
    patience.until(
        "the deletion of every other resource",
        lambda: not any(one.kind.state(one.place, one.id) for one in resources),
        within=DELETED_WITHIN,
    )


# -- recovery -----------------------------------------------------------------------------------------------


def wishes(resources: Sequence[Resource], dr: Place) -> list[Wish]:
    """Each where it was, and each that has a copy for DR there too."""
    here = [Wish(one, one.kind.key, one.place) for one in resources if not one.kind.mirror]
    return here + [Wish(one, one.kind.dr_key, dr) for one in resources if one.kind.dr_key]


def recover(
    rest: Rest, backup: Json, wanted: Sequence[Wish], display: Display, patience: Patience
) -> list[Recovered]:
    """Recovers all at once under new names, and compares what they hold with what was backed up."""
    running = [_start(rest, backup, wish) for wish in wanted]

    def show(rows: list[Json]) -> None:
        for wish, row in zip(wanted, rows, strict=True):
            kind = wish.of.kind
            named = kind.wanted(wish.new_name)
            status = kind.state(wish.place, wish.new_name).lower() if named else ""
            over = row["status"] != recovery.RUNNING
            percent = 100 if over else 50 if status else 0
            name = wish.new_name if named else "a new one"
            display.bar(f"{wish} -> {name}", percent, "" if over else status or "being restored")

    ids = recovery.wait(rest, running, patience, show)
    display.drop("")
    return [compare(wish, id) for wish, id in zip(wanted, ids, strict=True)]


def _start(rest: Rest, backup: Json, wish: Wish) -> Running:
    rows = _records(rest, backup, wish.of, wish.listed)
    if len(rows) != 1:
        raise DemoFailed(f"CPM shows {len(rows)} records of {wish}, not one")
    path = f"backups/{backup['id']}/snapshots/{wish.listed}/{rows[0]['id']}/recover/"
    made = rest.post(path, **wish.of.kind.wanted(wish.new_name))
    return Running(made["id"], str(wish))


def mirrored(resources: Sequence[Resource], dr: Place) -> list[Recovered]:
    """What is there without a recovery, and whether it is what the original held when the policy ran."""
    return [compare(Wish(one, "", dr), one.kind.mirror) for one in resources if one.kind.mirror]


def compare(wish: Wish, id: str) -> Recovered:
    """The recovered resource holds what the original held when it was backed up."""
    one = wish.of
    found = one.kind.content(wish.place, id)
    when = "synced" if one.kind.mirror else "backed up"
    claim = (
        f"{one.kind.noun} {id} in {wish.place.region}: {one.kind.compared} as in {one.id} when it was {when}"
    )
    return Recovered(wish, id, Proof(claim, str(one.content), str(found)))


def table(recovered: Sequence[Recovered]) -> Table:
    """What came back, and whether it is the same."""
    shown = Table()
    for title, wraps in (("Type", True), ("Original", False), ("Recovered", False), ("SHA-256 of", False)):
        shown.add_column(title, no_wrap=not wraps)
    shown.add_column("Same")
    for one in recovered:
        original, place = one.wish.of, one.wish.place
        where = "" if place == original.place else f"\nin {place.region}"
        same = "yes" if one.proof.holds else "NO"
        shown.add_row(original.kind.noun, original.id, one.id + where, original.content.amount, same)
    return shown
