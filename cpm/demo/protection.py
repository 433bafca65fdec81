"""What an operator tells CPM, over REST: accounts, a policy with targets, DR, copies in S3, and at last a schedule."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cpm.demo.rest import Json, Rest
from cpm.demo.world import BUCKET, World

GENERATIONS = 2
# Every other backup is copied to S3, and kept there for longer than its snapshots.
COPY_INTERVAL, GENERATIONS_IN_S3 = 2, 10
MINUTE = timedelta(minutes=1)
POLICY = "shop"


@dataclass(frozen=True)
class Protection:
    """The rows that CPM has made for us. Runs are at `first_run` and every minute after it."""

    account: int
    dr_account: int
    policy: int
    first_run: datetime
    region_ids: dict[str, int]

    def next_run(self, now: datetime) -> datetime:
        """The first run that is not over yet."""
        if now <= self.first_run:
            return self.first_run
        return self.first_run + MINUTE * -(-(now - self.first_run) // MINUTE)


def set_up(rest: Rest, world: World, *, lead: timedelta) -> Protection:
    """Protects the world by a policy that keeps two generations and fires by itself, first after `lead`."""
    account = rest.post(
        "accounts/backup/", **_keys(rest, "shop", world.account.access_key, world.account.secret_key)
    )
    keys = _keys(rest, "vault", world.dr_account.access_key, world.dr_account.secret_key)
    dr_account = rest.post("accounts/dr/", **keys, allow_deleting_snapshots=True)
    policy = rest.post(
        "policies/", name=POLICY, account=account["id"], generations=GENERATIONS, enabled=True
    )["id"]
    home = world.regions.home
    rest.post(f"policies/{policy}/targets/instances/", aws_region=home, aws_resource_id=world.instance)
    rest.post(f"policies/{policy}/targets/volumes/", aws_region=home, aws_resource_id=world.free.id)
    regions = {row["aws_region"]: row["id"] for row in rest.get("regions/")}
    rest.put(
        f"policies/{policy}/dr/",
        dr_enabled=True,
        dr_frequency=1,
        dr_regions=[regions[world.regions.dr]],
        cross_account_dr={
            "dr_account": dr_account["id"],
            "dr_account_regions": [regions[world.regions.dr_account]],
            "dr_keep_original_snapshots": True,
        },
    )
    _copy_to_s3(rest, world, account["id"], policy)
    first = datetime.now(UTC) + lead
    schedule = rest.post(
        "schedules/",
        user=rest.user,
        name="every-minute",
        every_how_many=1,
        every_unit="M",
        start_date=first.isoformat(),
    )
    rest.put(f"policies/{policy}/", name=POLICY, schedules=[schedule["id"]])
    return Protection(account["id"], dr_account["id"], policy, first, regions)


def _copy_to_s3(rest: Rest, world: World, account: int, policy: int) -> None:
    repository = rest.post(
        "s3_repositories/",
        name="shop",
        account=account,
        aws_bucket_name=BUCKET,
        aws_region=world.regions.dr,
    )
    rest.put(
        f"policies/{policy}/copy_to_s3/",
        enabled=True,
        repository=repository["id"],
        copy_interval=COPY_INTERVAL,
        retention_generation_based={"enabled": True, "num_generations": GENERATIONS_IN_S3},
    )


def _keys(rest: Rest, name: str, access_key: str, secret_key: str) -> Json:
    return {
        "user": rest.user,
        "name": name,
        "authentication": "C",
        "aws_access_key": access_key,
        "aws_secret_key": secret_key,
    }


def pause(rest: Rest, protection: Protection) -> None:
    """No further runs; what is there stays."""
    rest.put(f"policies/{protection.policy}/", name=POLICY, enabled=False)
