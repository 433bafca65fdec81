"""Recoveries and application-consistent backups for the crash matrix."""

from collections.abc import Callable, Mapping
from typing import Any

from django.utils import timezone

from cpm.models import Backup, Recovery, Snapshot
from cpm.services import backups
from tests.domain import copying, recovering, restoring
from tests.domain.world import DR_ACCOUNT, World
from tests.simulated_aws import DEFAULT_ACCOUNT, REGION
from tests.system.scenario import Scenario, ours, recorded

DEVICES = ("/dev/xvda", "/dev/xvdb")
DR_REGION = "eu-west-1"


def recover_volume_scenario(world: World) -> Callable[[], Scenario]:
    """A new volume here, one in another account (shared on the way), and one switched onto a stopped instance."""
    volume = world.aws.volume()
    world.aws.write(volume, b"as it was" * 1000)
    row = recovering.volume_row(world.back_up(world.policy(volume), status="B"))
    other = world.add_account(DR_ACCOUNT)
    instance, devices = world.aws.instance((1, 1))
    world.aws.client("ec2").stop_instances(InstanceIds=[instance])
    switched = {"attach_to": instance, "device": DEVICES[1], "attach_behaviour": "switch_and_delete"}
    requests: list[Mapping[str, Any]] = [{}, {"to_account": other.pk}, switched]
    made: dict[str, list[str]] = {DEFAULT_ACCOUNT: [], DR_ACCOUNT: []}

    def begin() -> None:
        for request in requests:
            recovering.start(world, row, **request)

    def check() -> None:
        here, there, on = Recovery.objects.order_by("-pk")[:3][::-1]
        for recovery in (here, there, on):
            assert recovery.status == "R", (recovery.outcome, recovering.log(recovery))
            _told(recovery)
        made[DEFAULT_ACCOUNT] += recovering.ids(here)
        made[DR_ACCOUNT] += recovering.ids(there)
        attached = recovering.volumes_of(world, instance)[DEVICES[1]]["VolumeId"]
        assert recovering.ids(on) == [attached]
        # What was attached before was made by the last round, or stood there at first, and has been deleted.
        assert recovering.left_over(world) == sorted([*made[DEFAULT_ACCOUNT], attached])
        assert recovering.left_over(world, account=DR_ACCOUNT) == sorted(made[DR_ACCOUNT])
        assert devices[DEVICES[1]] not in {v["id"] for v in world.aws.objects()["volumes"]}
        assert recovering.shared_with(world, row.aws_id) == []
        for copy in (made[DEFAULT_ACCOUNT][-1], made[DR_ACCOUNT][-1], attached):
            assert world.aws.fingerprint(copy) == world.aws.fingerprint(volume)

    return lambda: Scenario(begin, check)


def recover_instance_scenario(world: World) -> Callable[[], Scenario]:
    """Two volumes come back from snapshots; image and snapshots that were needed on the way are gone."""
    row, fingerprints = _machine(world)
    return _instances(world, row, fingerprints, {"restore_from": "S"}, DEFAULT_ACCOUNT, REGION)


def recover_instance_from_dr_scenario(world: World) -> Callable[[], Scenario]:
    """The account is lost; its instance comes back in the DR account."""
    dr_account = world.add_account(DR_ACCOUNT, is_dr_account=True)
    region = world.region_id(DR_REGION)
    dr = {"dr_enabled": True, "dr_account": dr_account, "dr_account_regions": [region]}
    row, fingerprints = _machine(world, **dr)
    for native in row.children.filter(kind="volumes"):
        world.aws.client("ec2").delete_snapshot(SnapshotId=native.aws_id)
    where = {"to_account": dr_account.pk, "to_region": region, "from_account": dr_account.pk}
    return _instances(world, row, fingerprints, where, DR_ACCOUNT, DR_REGION)


def recover_from_s3_scenario(world: World) -> Callable[[], Scenario]:
    """A volume whose snapshot is gone comes back from its archived copy; no snapshot that was written on the way stays."""
    volume = world.aws.volume()
    for number in range(4):
        world.aws.write(volume, bytes([65 + number]) * 4096, number << 27)
    backup = world.back_up(world.policy(volume), status="B")
    row = recovering.volume_row(backup)
    copy = restoring.copied(world, row, copying.repository(world))
    restoring.archive(world, copy)
    restoring.lose_snapshots(world, backup)
    made: set[str] = set()

    def begin() -> None:
        restoring.start(world, row)

    def check() -> None:
        recovery = Recovery.objects.order_by("-pk")[0]
        assert recovery.status == "R", (recovery.outcome, recovering.log(recovery))
        assert (recovery.s3_status, recovery.s3_progress, recovery.retrieve_status) == ("S", [100], "S")
        [volume_id] = recovering.ids(recovery)
        made.add(volume_id)
        assert recovering.left_over(world, kept=made) == []
        assert world.aws.fingerprint(volume_id) == world.aws.fingerprint(volume)
        _told(recovery)

    return lambda: Scenario(begin, check)


def agent_scenario(world: World) -> Callable[[], Scenario]:
    """Scripts around snapshots, snapshots by VSS, and plain ones where VSS cannot act."""
    image = world.aws.image((1,))
    scripted, quiesced, unmanaged = (world.aws.instance(ImageId=image)[0] for _ in range(3))
    world.aws.control("POST", "/ssm", {"instance_id": scripted})
    world.aws.control("POST", "/ssm", {"instance_id": quiesced, "platform": "Windows"})
    policy = world.policy(generations=1000)
    world.target(policy, scripted, enable_agent_scripts=True)
    world.target(policy, quiesced, enable_agent_vss=True)
    world.target(policy, unmanaged, enable_agent_vss=True)
    before: list[int] = []

    def sent() -> list[str]:
        return [command["document"] for command in world.aws.control("GET", "/ssm")["commands"]]

    def begin() -> None:
        before[:] = [len(sent())]
        backups.start(actor=world.actor, policy=policy, now=timezone.now())

    def check() -> None:
        last = Backup.objects.order_by("-pk")[0]
        assert last.status == "A", (last.outcome, world.log(last))
        assert sorted(sent()[before[0] :]) == ["AWS-RunShellScript"] * 3 + ["AWSEC2-CreateVssSnapshot"]
        assert ours(world) == recorded()
        log = world.log(last)
        assert sum("taken without VSS" in line for line in log) == 1, log
        titles = last.script_logs.filter(exit_code=0).values_list("title", flat=True)
        assert sorted(titles) == [f"{phase} script on {scripted}" for phase in ("after", "before", "complete")]

    return lambda: Scenario(begin, check, failing=frozenset({"backup.start_vss"}))


def _machine(world: World, **policy: Any) -> tuple[Snapshot, dict[str, str]]:
    """The record of a backed-up instance, and the fingerprints of its volumes by device."""
    instance, volumes = world.aws.instance((1, 2))
    for number, device in enumerate(DEVICES):
        world.aws.write(volumes[device], bytes([65 + number]) * 4096)
    fingerprints = {device: world.aws.fingerprint(volumes[device]) for device in DEVICES}
    backup = world.back_up(world.policy(instance, **policy), status="B")
    for device in DEVICES:
        world.aws.write(volumes[device], b"changed since")
    return recovering.instance_row(backup), fingerprints


def _instances(
    world: World, row: Snapshot, fingerprints: dict[str, str], request: Mapping[str, Any], account: str, region: str
) -> Callable[[], Scenario]:
    made: set[str] = set()

    def check() -> None:
        recovery = Recovery.objects.order_by("-pk")[0]
        assert recovery.status == "R", (recovery.outcome, recovering.log(recovery))
        [instance] = recovering.ids(recovery)
        volumes = recovering.volumes_of(world, instance, region, account)
        found = {device: world.aws.fingerprint(volume["VolumeId"]) for device, volume in volumes.items()}
        assert found == fingerprints
        nics = recovering.instance(world, instance, region, account)["NetworkInterfaces"]
        made.update({instance, *(v["VolumeId"] for v in volumes.values())})
        made.update(nic["NetworkInterfaceId"] for nic in nics)
        assert recovering.left_over(world, kept=made, region=region, account=account) == []
        assert recovering.left_over(world) == [] or account == DEFAULT_ACCOUNT
        for native in row.children.filter(kind="volumes"):
            assert account != DEFAULT_ACCOUNT or recovering.shared_with(world, native.aws_id) == []
        _told(recovery)

    def begin() -> None:
        recovering.start(world, row, **request)

    return lambda: Scenario(begin, check)


def _told(recovery: Recovery) -> None:
    """The log names what came back."""
    log = recovering.log(recovery)
    for made in recovering.ids(recovery):
        assert any(made in line for line in log), log
