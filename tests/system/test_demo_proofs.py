"""Claims of the demo fail when they are wrong: one byte, one snapshot too many, one too few."""

import pytest

from cpm.demo import proofs, world
from cpm.demo.aws import SimulatedAws
from cpm.demo.errors import ProofFailed
from cpm.demo.images import load, pieces
from cpm.demo.rounds import Round
from cpm.demo.waiting import Patience
from tests import simulated_aws


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    simulator = simulated_aws.start(tmp_path_factory.mktemp("aws"))
    yield simulator
    simulator.stop()


@pytest.fixture
def aws(running):
    running.reset()
    return SimulatedAws(running.url, running.control_url)


@pytest.fixture
def company(aws, running):
    account = aws.account_of(*running.credentials(), "us-east-1")
    return world.build(aws, account, world.Regions("us-east-1", "us-west-2", "eu-west-1"), Patience())


def recovered(aws, running):
    """A volume with files, and one made from its snapshot."""
    image, volume = load("orders"), running.volume(1)
    for offset, data in pieces(image):
        aws.write(volume, offset, data)
    ec2 = running.client("ec2")
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    again = ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=snapshot)["VolumeId"]
    return image, volume, again


def test_a_recovered_volume_is_proven_byte_by_byte_and_file_by_file(aws, running):
    image, volume, again = recovered(aws, running)

    found = [
        proofs.same_bytes("bytes", aws.sha256, again, aws.sha256(volume)),
        proofs.same_files("files", aws, again, image),
    ]

    proofs.require(found)
    assert [one.holds for one in found] == [True, True]


@pytest.mark.parametrize("offset", [0, 777_777_777, 1024**3 - 1])
def test_a_single_wrong_byte_anywhere_is_found(aws, running, offset):
    _, volume, again = recovered(aws, running)
    (byte,) = aws.read(again, offset, 1)
    aws.write(again, offset, bytes([byte ^ 1]))

    proof = proofs.same_bytes("bytes of the volume", aws.sha256, again, aws.sha256(volume))

    assert not proof.holds
    with pytest.raises(ProofFailed, match="bytes of the volume"):
        proofs.require([proof])


def test_a_damaged_file_is_named(aws, running):
    image, _, again = recovered(aws, running)
    file = image.settled_files[0]
    aws.write(again, file.pieces[0][0], b"\0")

    proof = proofs.same_files("files", aws, again, image)

    assert not proof.holds and file.path in proof.found


def test_moments_that_do_not_differ_prove_nothing():
    assert not proofs.differs("changed", "aa", "aa").holds
    assert proofs.differs("changed", "aa", "bb").holds


@pytest.mark.parametrize(
    ("counted", "holds"), [({"a": 3, "b": 3}, True), ({"a": 4, "b": 3}, False), ({"a": 3}, False)]
)
def test_a_snapshot_made_twice_or_never_is_found(counted, holds):
    assert proofs.made_once(counted, ["a", "b"], 3).holds is holds


def backup_of(company, volume, number=1):
    """A backup's records as the API shows them, with a snapshot and a copy that AWS really has."""
    home = company.home
    snapshot = home.create_snapshot(VolumeId=volume.id)["SnapshotId"]
    copy = company.aws.ec2(company.account, company.regions.dr).copy_snapshot(
        SourceRegion=company.regions.home, SourceSnapshotId=snapshot
    )["SnapshotId"]
    made = Round(number, {})
    number_of_account = {"snapshot_aws_account_number": company.account.number}
    made.snapshots = [{"snapshot_id": snapshot, "region": company.regions.home, **number_of_account}]
    made.copies = [{"snapshot_id": copy, "region": company.regions.dr, **number_of_account}]
    return made


def test_retention_is_proven_only_when_all_copies_are_gone_and_all_others_there(company):
    expired, kept = (backup_of(company, company.free, number) for number in (1, 2))
    home, dr = company.home, company.aws.ec2(company.account, company.regions.dr)

    home.delete_snapshot(SnapshotId=expired.snapshots[0]["snapshot_id"])
    half = proofs.retention(company, expired, [kept])
    dr.delete_snapshot(SnapshotId=expired.copies[0]["snapshot_id"])
    whole = proofs.retention(company, expired, [kept])
    dr.delete_snapshot(SnapshotId=kept.copies[0]["snapshot_id"])
    too_much = proofs.retention(company, expired, [kept])

    assert [one.holds for one in half] == [False, True]
    assert [one.holds for one in whole] == [True, True]
    assert [one.holds for one in too_much] == [True, False]
