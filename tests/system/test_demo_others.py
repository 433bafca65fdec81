"""What the demo claims of databases, tables and file systems is wrong as soon as the least thing in one of them is."""

import dataclasses

import pytest

from cpm.demo import others, proofs
from cpm.demo.aws import SimulatedAws
from cpm.demo.errors import ProofFailed
from cpm.demo.kinds import KINDS
from cpm.demo.kinds.base import Database, Place
from cpm.demo.others import Wish
from cpm.demo.waiting import Patience
from cpm.resources.registry import BY_KEY, WHOLE_BY_KEY
from tests import simulated_aws


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    simulator = simulated_aws.start(tmp_path_factory.mktemp("aws"))
    yield simulator
    simulator.stop()


@pytest.fixture
def places(running):
    running.reset()
    aws = SimulatedAws(running.url, running.control_url)
    account = aws.account_of(*running.credentials(), "us-east-1")
    return [Place(aws, account, region) for region in ("us-east-1", "us-west-2")]


def damage(one):
    """One bit of a database, one item of a table, one file of a file system, the metadata of one object of a bucket."""
    aws = one.place.aws
    if isinstance(one.kind, Database):
        path = f"/contents/{one.kind.arn(one.place, one.id)}"
        held = aws.held(path)
        aws.hold(path, held[:-1] + bytes([held[-1] ^ 1]))
    elif one.kind.key == "dynamodb_tables":
        one.place.client("dynamodb").delete_item(TableName=one.id, Key={"order": {"S": "2026-0042"}})
    elif one.kind.mirror:
        s3, key = one.place.client("s3"), "pictures/0/000.jpg"
        s3.put_object(Bucket=one.id, Key=key, Body=s3.get_object(Bucket=one.id, Key=key)["Body"].read())
    else:
        aws.hold(f"/efs/{one.id}/files/one-too-many", b"")


def test_the_demo_has_one_of_every_kind():
    snapshotted = {kind.key: kind.dr_key for kind in KINDS if not kind.mirror}

    assert {"instances", "volumes", *(kind.key for kind in KINDS)} == set(BY_KEY)
    assert snapshotted == {key: kind.dr_kind for key, kind in WHOLE_BY_KEY.items()}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.key)
def test_the_least_difference_in_what_was_recovered_is_found(kind, places):
    (one,) = others.build(*places, Patience(), [kind])
    wish = Wish(one, kind.key, one.place)

    same = others.compare(wish, one.id).proof
    damage(one)
    damaged = others.compare(wish, one.id).proof

    assert same.holds and not damaged.holds
    with pytest.raises(ProofFailed, match=f"as in {one.id} when"):
        proofs.require([same, damaged])


def test_resources_that_held_nothing_else_after_the_backup_prove_nothing(places):
    made = others.build(*places, Patience())

    different = others.change(made)
    victim = dataclasses.replace(made[0], content=made[0].kind.content(made[0].place, made[0].id))
    same = others.change([victim, *made[1:]])

    assert different.holds
    assert not same.holds and same.found == f"the same in {made[0]}"


def test_all_are_gone_when_they_are_lost(places):
    made = others.build(*places, Patience())

    others.lose(made, Patience())

    assert [one.kind.state(one.place, one.id) for one in made] == [""] * len(KINDS)


def test_what_is_not_equal_stands_in_the_table(places):
    made = others.build(*places, Patience())
    damage(made[1])

    wanted = others.wishes(made, made[0].place)
    shown = others.table([others.compare(wish, wish.of.id) for wish in wanted])

    (same,) = (list(column.cells) for column in shown.columns if column.header == "Same")
    assert same == ["NO" if wish.of is made[1] else "yes" for wish in wanted]
