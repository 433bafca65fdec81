"""What the suite over all whole resource types needs of a type: one to protect, its content, and how to ask for it back."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from cpm.models import Policy, Snapshot, Target
from cpm.services import targets
from tests.domain.world import World

REGION = "us-east-1"


class Example(ABC):
    """How to make and look into a resource of one type in the simulated AWS."""

    key: ClassVar[str]
    # The call that makes a snapshot and the one that lists them, as the simulator's log names them.
    creates: ClassVar[str]
    lists: ClassVar[str]
    # A fault of the snapshots' making is one of AWS's answers, or a snapshot that fails later.
    fails_later: ClassVar[bool] = True
    # Whether the new resource's name is the user's, so that it may be taken.
    names_taken: ClassVar[bool] = True
    # What must take a while for a recovery to be caught on its way (`simulator.timing`).
    timing: ClassVar[tuple[str, ...]]
    # So many resources are backed up at once for at most so many calls beside one for each.
    many: ClassVar[int] = 12
    other_calls: ClassVar[int] = 40

    @abstractmethod
    def make(self, world: World, name: str) -> str:
        """A resource with content and the tag team=shop; returns its id."""

    @abstractmethod
    def change(self, world: World, id: str) -> None:
        """Change its content."""

    @abstractmethod
    def content(self, world: World, id: str, region: str = REGION, account: str | None = None) -> Any:
        """Its content, comparable with that of another one."""

    @abstractmethod
    def tags(self, world: World, id: str, region: str = REGION) -> dict[str, str]: ...

    @abstractmethod
    def destroy(self, world: World, id: str) -> None:
        """Delete it in AWS, as a user would."""

    @abstractmethod
    def resources(self, world: World) -> set[str]:
        """The ids of all resources of this type in AWS."""

    def prepare_dr(self, world: World) -> None:  # noqa: B027 (most types need nothing)
        """Make in AWS what DR to eu-west-1 and to the DR account needs."""

    @abstractmethod
    def request(self, name: str) -> dict[str, Any]:
        """A request to recover it as something new of that name."""

    def recovered(self, ids: str) -> str:
        """The id of what a recovery has made, from its `recovered_resource_ids`."""
        return ids.split(" (original", maxsplit=1)[0]

    @abstractmethod
    def snapshots(self, world: World, region: str = REGION, account: str | None = None) -> set[str]:
        """The ids of all snapshots that AWS has there, as records name them."""

    def options(self) -> dict[str, Any]:
        """What a target must be given."""
        return {}

    def protect(self, world: World, id: str, policy: Policy | None = None, **fields: Any) -> Target:
        """A target in a policy (a new one if none is given)."""
        world.region_id(REGION)
        return targets.add_whole(
            actor=world.actor,
            policy=policy or world.policy(**fields),
            key=self.key,
            region=REGION,
            resource_id=id,
            now=world.now(),
            options=self.options(),
        )


def snapshot_of(target: Target, **which: Any) -> Snapshot:
    """The only snapshot of the target, or the only one of these."""
    return Snapshot.objects.get(source_id=target.aws_resource_id, **which)
