"""Every registered resource type is questioned; a new one is covered by being registered."""

import re

import pytest

from cpm.aws.errors import Throttled
from cpm.models import Actor
from cpm.resources.registry import BY_KEY, TYPES, WHOLE
from cpm.services import dashboards
from tests import factories
from tests.domain.fake_aws import FakeEc2, instance, volume

EXAMPLES = {
    "instances": instance("i-0000000000000000a"),
    "volumes": volume("vol-0000000000000000a"),
}
each_type = pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.key)
# Types that are snapshotted as a whole have a suite of their own (test_whole_resources).
OF_EC2 = [kind for kind in TYPES if kind.key in EXAMPLES]
each_of_ec2 = pytest.mark.parametrize("kind", OF_EC2, ids=lambda kind: kind.key)


@pytest.fixture
def ec2():
    fake = FakeEc2()
    fake.instances, fake.volumes = [EXAMPLES["instances"]], [EXAMPLES["volumes"]]
    return fake


def test_keys_are_unique_and_fit_an_address():
    assert len(BY_KEY) == len(TYPES)
    assert all(re.fullmatch("[a-z0-9_]+", key) for key in BY_KEY)


@each_type
def test_a_type_declares_all_that_is_derived_from_it(kind):
    assert kind.noun and kind.service and kind.iam_actions
    assert re.compile(kind.id_pattern)
    assert len(set(kind.details)) == len(kind.details)


@each_of_ec2
def test_a_description_has_exactly_the_declared_details(kind, ec2):
    id = next(value for name, value in EXAMPLES[kind.key].items() if name in {"InstanceId", "VolumeId"})

    found = kind.describe(ec2.client(None, kind.service, "us-east-1"), [id])

    assert re.fullmatch(kind.id_pattern, id)
    assert found[id].id == id
    assert sorted(found[id].details) == sorted(kind.details)


@each_of_ec2
def test_an_error_is_never_an_empty_answer(kind, ec2):
    ec2.error = Throttled("RequestLimitExceeded", "", action="Describe", service="ec2", region="us-east-1")

    with pytest.raises(Throttled):
        kind.describe(ec2.client(None, kind.service, "us-east-1"), ["x-1"])


@each_type
def test_nothing_is_asked_about_nothing(kind, ec2):
    assert kind.describe(ec2.client(None, kind.service, "us-east-1"), []) == {}
    assert ec2.asked == []


@pytest.mark.parametrize("kind", [kind for kind in WHOLE if kind.limit is not None], ids=lambda kind: kind.key)
def test_a_type_keeps_what_its_limit_and_usage_add_up(kind):
    assert kind.limit.summed in {"", *kind.details}


@pytest.mark.django_db
def test_every_type_counts_in_the_figures():
    policy = factories.policy()
    backup = factories.backup(policy)
    # The contract has no figure for S3 syncs, which protect nothing.
    counted = [kind for kind in TYPES if kind.key != "s3syncs"]
    for kind in TYPES:
        factories.target(policy, resource_type=kind.key)
    for whole in WHOLE:
        factories.snapshot(backup, whole.kind, resource_type=whole.key)

    figures = dashboards.state(actor=Actor.of(policy.user))

    protected = {name: n for name, n in figures.items() if name.startswith("protected_")}
    snapshots = {name: n for name, n in figures.items() if name.startswith("snapshots_")}
    assert sum(protected.values()) == len(counted) and set(protected.values()) <= {0, 1, 2}
    assert sum(snapshots.values()) == len(WHOLE) and set(snapshots.values()) <= {0, 1, 2}
