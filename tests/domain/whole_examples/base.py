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
    # The calls that copy a snapshot (empty where there is none) and that restore one.
    copies: ClassVar[str] = ""
    restores: ClassVar[str]
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
    def make_unusual(self, world: World, name: str) -> str:
        """A resource of which nothing that the API shows is what it would be by default; returns its id."""

    @abstractmethod
    def target_fields(self, world: World, id: str) -> dict[str, Any]:
        """What the API must show of it as a target beyond what all targets show, from AWS's own answers."""

    @abstractmethod
    def snapshot_fields(self, world: World, id: str, snapshot: str, region: str = REGION) -> dict[str, Any]:
        """What the API must show of its snapshot, or of a copy in that region, beyond what all snapshots show."""

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

    def unusual_options(self) -> dict[str, Any]:
        """All that may be chosen for a target, nothing of it as it would be by default."""
        return {}

    def protect(
        self, world: World, id: str, policy: Policy | None = None, options: dict[str, Any] | None = None, **fields: Any
    ) -> Target:
        """A target in a policy (a new one if none is given)."""
        world.region_id(REGION)
        return targets.add_whole(
            actor=world.actor,
            policy=policy or world.policy(**fields),
            key=self.key,
            region=REGION,
            resource_id=id,
            now=world.now(),
            options=self.options() if options is None else options,
        )


def customer_key(world: World) -> str:
    """A KMS key of the user's own, with another one for its copies where DR goes to; its ARN."""
    arns = []
    for region in (REGION, "eu-west-1"):
        kms = world.aws.client("kms", region)
        arns.append(kms.create_key()["KeyMetadata"]["Arn"])
        kms.create_alias(AliasName="alias/shop", TargetKeyId=arns[-1])
    return str(arns[0])


def subnets_in(world: World, *zones: str) -> list[str]:
    """Subnets in these zones, in a VPC of their own."""
    ec2 = world.aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    made = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.7.{number}.0/24", AvailabilityZone=zone)["Subnet"]
        for number, zone in enumerate(zones)
    ]
    return [str(one["SubnetId"]) for one in made]


def snapshot_of(target: Target, **which: Any) -> Snapshot:
    """The only snapshot of the target, or the only one of these."""
    return Snapshot.objects.get(source_id=target.aws_resource_id, **which)
