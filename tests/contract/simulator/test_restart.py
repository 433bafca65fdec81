"""The simulator's world survives its process. Our own design."""

import time
from pathlib import Path

from tests import simulated_aws
from tests.contract.simulator.test_aws_backup import NEW, back_up, filled, restore, vault
from tests.contract.simulator.test_efs import get
from tests.simulated_aws import wait_for

OTHER = "210987654321"


def test_world_survives_an_orderly_end(tmp_path: Path) -> None:
    first = simulated_aws.start(tmp_path)
    try:
        instance, devices = first.instance((1, 1))
        first.write(devices["/dev/xvdb"], b"survives" * 100_000)
        key = first.client("kms").create_key()["KeyMetadata"]["Arn"]
        first.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument='{"Statement": []}')
        snapshot = first.client("ec2").create_snapshot(VolumeId=devices["/dev/xvdb"])["SnapshotId"]
        files = filled(first)
        vault(first)
        point = back_up(first, files["FileSystemArn"])["RecoveryPointArn"]
        token = first.client("ebs").list_snapshot_blocks(SnapshotId=snapshot)["Blocks"][0]
        other = first.credentials(OTHER)
        before = first.objects()
    finally:
        assert first.stop() == 0

    second = simulated_aws.start(tmp_path)
    try:
        second.keys[OTHER] = other
        ec2 = second.client("ec2")

        assert second.objects() == before
        shown = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        assert len(shown["BlockDeviceMappings"]) == 2 and shown["PrivateIpAddress"]
        assert second.read(snapshot, 0, 8) == b"survives"
        assert second.client("ebs").get_snapshot_block(SnapshotId=snapshot, **token)["DataLength"] == 524288
        assert second.client("kms").describe_key(KeyId=key)["KeyMetadata"]["Arn"] == key
        assert {r["RoleName"] for r in second.client("iam").list_roles()["Roles"]} == {"r", "backup"}
        assert second.client("sts", account=OTHER).get_caller_identity()["Account"] == OTHER
        assert get(second, files["FileSystemId"], "a/one") == b"a/one"
        restored = restore(second, point, **NEW, **{"file-system-id": files["FileSystemId"]})
        assert restored["Status"] == "COMPLETED"
        ec2.terminate_instances(InstanceIds=[instance])
        assert second.instance()[0] != instance
    finally:
        assert second.stop() == 0


def wait_until_saved(state: Path, moment: float) -> None:
    wait_for(lambda: state.exists() and state.stat().st_mtime > moment, 60)


def test_what_was_saved_before_a_kill_is_whole(tmp_path: Path) -> None:
    first = simulated_aws.start(tmp_path)
    try:
        volume = first.volume()
        first.write(volume, b"old" * 1_000_000)
        written = time.time()
        # A save that began before the write may still end after it, so the second one is waited for.
        for _ in range(2):
            wait_until_saved(tmp_path / "state", written)
            written = time.time()
            first.client("ec2").create_tags(
                Resources=[volume], Tags=[{"Key": "saved", "Value": str(written)}]
            )
        fingerprint = first.fingerprint(volume)
        # Not saved yet when the kill comes, or saved: either way every block that the state names is there.
        first.write(volume, b"new" * 1_000_000)
        after = first.fingerprint(volume)
    finally:
        first.process.kill()
        first.stop()

    second = simulated_aws.start(tmp_path)
    try:
        found = second.fingerprint(volume)
        content = second.read(volume, 0, 3)

        assert (found, content) in [(fingerprint, b"old"), (after, b"new")]
        assert len(second.read(volume, 0, 3_000_000)) == 3_000_000
    finally:
        second.stop()
