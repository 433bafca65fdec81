"""CPM and a simulated AWS side by side: what flow tests build on."""

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from cpm.flows.identities import encrypt_secret
from cpm.flows.table import ENGINE
from cpm.jobs import runner, sweeper
from cpm.lib.states import Authentication
from cpm.models import Account, Actor, Backup, Job, LogLine, Policy, Recovery, Region, Step, Target, User
from cpm.services import backups, recoveries
from tests import factories
from tests.simulated_aws import DEFAULT_ACCOUNT, SimulatedAws

QUEUES = ["control", "backup", "dr", "s3", "recovery"]
DR_ACCOUNT = "210987654321"


@dataclass
class World:
    """One user with one account; `run` does what workers would do."""

    aws: SimulatedAws
    user: User = field(default_factory=factories.root)
    account: Account = field(init=False)

    def __post_init__(self) -> None:
        self.account = self.add_account(DEFAULT_ACCOUNT)

    @property
    def actor(self) -> Actor:
        return Actor.of(self.user)

    def add_account(self, number: str, **fields: Any) -> Account:
        """An account given by keys of the simulated AWS."""
        access_key, secret_key = self.aws.credentials(number)
        return factories.account(
            self.user,
            authentication=Authentication.KEYS,
            access_key=access_key,
            secret_key=encrypt_secret(secret_key),
            account_number=number,
            role_name="",
            **fields,
        )

    def policy(self, *targets: str, region: str = "us-east-1", **fields: Any) -> Policy:
        """A policy over instances (i-…) and volumes (vol-…)."""
        policy = factories.policy(self.account, **fields)
        for resource in targets:
            self.target(policy, resource, region)
        return policy

    def target(self, policy: Policy, resource: str, region: str = "us-east-1", **fields: Any) -> Target:
        kind = "instances" if resource.startswith("i-") else "volumes"
        return factories.target(
            policy, resource_type=kind, aws_region=region, aws_resource_id=resource, **fields
        )

    def region_id(self, name: str) -> int:
        return Region.objects.get_or_create(aws_region=name, defaults={"disp_name": name})[0].pk

    def back_up(self, policy: Policy, **expect: Any) -> Backup:
        """Run a policy to the end of everything it starts; checks fields of the record."""
        backup = backups.start(actor=self.actor, policy=policy, now=timezone.now())
        self.run()
        backup.refresh_from_db()
        for name, value in expect.items():
            assert getattr(backup, name) == value, (name, getattr(backup, name), self.log(backup))
        return backup

    def run(self, seconds: float = 20) -> None:
        """Work until no job is open. Steps that wait for longer than a moment are hurried."""
        ends = time.monotonic() + seconds
        while Job.objects.filter(finished_at=None).exists():
            if time.monotonic() > ends:
                steps = Step.objects.filter(finished_at=None).values("kind", "state", "message", "failures")
                raise AssertionError(f"jobs do not end: {list(steps)}")
            if not self.work():
                time.sleep(0.02)

    def work(self) -> int:
        """One round of all queues; returns how many steps ran."""
        sweeper.sweep(queues=QUEUES)
        return sum(runner.drain(queue, engine=ENGINE) for queue in QUEUES)

    def expire_leases(self) -> None:
        """What the tick finds after workers have died."""
        Step.objects.filter(state="running").update(lease_until=timezone.now() - timedelta(seconds=1))

    def now(self) -> datetime:
        return timezone.now()

    def abort(self, recovery: Recovery) -> None:
        recoveries.abort(actor=self.actor, recovery=recovery)

    def log(self, backup: Backup) -> list[str]:
        lines = LogLine.objects.filter(subject_type="backup", subject_id=backup.pk).order_by("id")
        return list(lines.values_list("message", flat=True))

    def snapshots_in_aws(self, account: str = DEFAULT_ACCOUNT, region: str = "us-east-1") -> set[str]:
        """Ids of the snapshots that carry our tags."""
        ec2 = self.aws.client("ec2", region, account)
        filters = [{"Name": "tag-key", "Values": ["cpm_backup_id"]}]
        found = ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
        return {snapshot["SnapshotId"] for snapshot in found}
