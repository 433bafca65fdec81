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
from cpm.demo.recovery import Running
from cpm.demo.rest import Json, Rest
from cpm.demo.rounds import RUNNING, SUCCESSFUL
from cpm.demo.waiting import Patience

POLICY = "everything-else"
MADE_WITHIN, BACKED_UP_WITHIN, DELETED_WITHIN = 60, 90, 60
COMPLETED = "completed"
AGAIN = "-again"
# What resources hold when they are backed up, and what is put into them afterwards.
BACKED_UP, LATER = 1, 2


@dataclass(frozen=True)
class Resource:
    """One that the demo has made, and what it held when it was backed up."""

    kind: Kind
    place: Place
    id: str
    content: Content

    @property
    def new_name(self) -> str:
        return self.id + AGAIN

    def __str__(self) -> str:
        return f"{self.kind.noun} {self.id}"


@dataclass(frozen=True)
class Recovered:
    """What has come back of one."""

    of: Resource
    id: str
    proof: Proof


def build(place: Place, patience: Patience, kinds: Sequence[Kind] = KINDS) -> list[Resource]:
    """One resource of each kind, with content."""
    made = [(kind, kind.make(place)) for kind in kinds]
    for kind, id in made:
        _until_ready(kind, place, id, patience)
        kind.fill(place, id, BACKED_UP)
    return [Resource(kind, place, id, kind.content(place, id)) for kind, id in made]


def _until_ready(kind: Kind, place: Place, id: str, patience: Patience) -> None:
    patience.until(
        f"the making of {kind.noun} {id}", lambda: kind.state(place, id) == kind.ready, within=MADE_WITHIN
    )


def protect(rest: Rest, account: int, resources: Sequence[Resource]) -> int:
    """A policy with all of them; its id."""
    policy: int = rest.post("policies/", name=POLICY, account=account, generations=1, enabled=True)["id"]
    for one in resources:
        wanted = {one.kind.id_field: one.id, **one.kind.options()}
        rest.post(f"policies/{policy}/targets/{one.kind.key}/", aws_region=one.place.region, **wanted)
    return policy


def back_up(
    rest: Rest, policy: int, resources: Sequence[Resource], display: Display, patience: Patience
) -> Json:
    """Runs the policy now; its backup, once that is over. Raises DemoFailed unless all of it is successful."""
    rest.post(f"policies/{policy}/backups/")

    def over() -> Json | None:
        (backup,) = rest.get("backups/", policy=policy)
        rows = [_snapshot(rest, backup, one) for one in resources]
        for one, row in zip(resources, rows, strict=True):
            status = row["status"] if row else "waiting"
            display.bar(f"Backup of {one}", 100 if status == COMPLETED else 0, status)
        found: Json = backup
        return None if found["status"] in RUNNING else found

    backup = patience.until(f"the end of the backup of {POLICY}", over, within=BACKED_UP_WITHIN)
    display.drop("Backup of ")
    if backup["status"] != SUCCESSFUL:
        logs = "\n".join(line["log"] for line in rest.get(f"backups/{backup['id']}/logs/"))
        raise DemoFailed(f"the backup of {POLICY} ended with status {backup['status']}:\n{logs}")
    return backup


def _snapshot(rest: Rest, backup: Json, one: Resource) -> Json | None:
    rows: list[Json] = rest.get(f"backups/{backup['id']}/snapshots/{one.kind.key}/")
    return next((row for row in rows if row["backed_up_resource_id"] == one.id), None)


def change(resources: Sequence[Resource]) -> list[Proof]:
    """Puts other content into each, and proves that it is another: so only the backup has what was there before."""
    proofs = []
    for one in resources:
        one.kind.fill(one.place, one.id, LATER)
        different = one.kind.content(one.place, one.id).sha256 != one.content.sha256
        told = "different content" if different else "the same content"
        proofs.append(Proof(f"{one} changed after its backup", "different content", told))
    return proofs


def lose(resources: Sequence[Resource], patience: Patience) -> None:
    """Deletes all of them in AWS."""
    for one in resources:
        one.kind.delete(one.place, one.id)
    patience.until(
        "the deletion of every other resource",
        lambda: not any(one.kind.state(one.place, one.id) for one in resources),
        within=DELETED_WITHIN,
    )


def recover(
    rest: Rest, backup: Json, resources: Sequence[Resource], display: Display, patience: Patience
) -> list[Recovered]:
    """Recovers all at once under new names, and compares what they hold with what was backed up."""
    running = [_start(rest, backup, one) for one in resources]

    def show(rows: list[Json]) -> None:
        for one, row in zip(resources, rows, strict=True):
            status = one.kind.state(one.place, one.new_name)
            over = row["status"] != recovery.RUNNING
            display.bar(f"{one} -> {one.new_name}", 100 if over else 50 if status else 0, status.lower())

    ids = recovery.wait(rest, running, patience, show)
    display.drop("")
    return [compare(one, id) for one, id in zip(resources, ids, strict=True)]


def _start(rest: Rest, backup: Json, one: Resource) -> Running:
    row = _snapshot(rest, backup, one)
    if row is None:
        raise DemoFailed(f"CPM shows no snapshot of {one}")
    wanted = one.kind.wanted(one.new_name)
    made = rest.post(f"backups/{backup['id']}/snapshots/{one.kind.key}/{row['id']}/recover/", **wanted)
    return Running(made["id"], str(one))


def compare(one: Resource, id: str) -> Recovered:
    """The recovered resource holds what the original held when it was backed up."""
    found = one.kind.content(one.place, id)
    claim = f"{one.kind.noun} {id}: {one.kind.compared} as in {one.id} at its backup"
    return Recovered(one, id, Proof(claim, str(one.content), str(found)))


def table(recovered: Sequence[Recovered]) -> Table:
    """What came back, and whether it is the same."""
    shown = Table("Type", "Original", "Recovered", "Compared by SHA-256", "Equal")
    for one in recovered:
        kind, amount = one.of.kind, one.of.content.amount
        equal = "yes" if one.proof.holds else "NO"
        shown.add_row(kind.noun, one.of.id, one.id, f"{kind.compared}: {amount}", equal)
    return shown
