"""The suite of every store, over the gateway's own client for block I/O."""

import uuid

import pytest

from cpm.aws import gateway
from cpm.aws.identity import Keys
from cpm.aws.s3_objects import S3Objects
from cpm.repository.store_direct import DirectObjects
from cpm.repository.store_s3 import S3Store
from tests import simulated_aws
from tests.repository import seaweed
from tests.repository.test_stores import (  # noqa: F401  # collected here with the stores below
    test_a_listing_of_many_pages_is_complete,
    test_a_whole_life_of_a_repository,
    test_locked_objects_stay_until_their_time_and_the_lock_grows_with_the_copies,
    test_objects_are_put_once_read_in_ranges_listed_in_order_and_deleted,
    test_the_store_passes_the_probe_and_leaves_nothing,
)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory):
    running = simulated_aws.start(tmp_path_factory.mktemp("simulator"))
    yield running.client("s3"), running.credentials()
    running.stop()


@pytest.fixture(scope="module")
def other_s3(tmp_path_factory):
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as client:
        yield client, seaweed.KEYS


def direct_store(server, *, locked=False):
    client, credentials = server
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket, **({"ObjectLockEnabledForBucket": True} if locked else {}))
    gateway.configure(gateway.GatewayConfig(endpoint_url=client.meta.endpoint_url))
    objects = S3Objects(Keys(*credentials), "us-east-1", bucket)
    return S3Store(DirectObjects(objects, versioned=locked), "some/folder")


@pytest.fixture(params=["simulator", "other_s3"])
def store(request):
    return direct_store(request.getfixturevalue(request.param))


@pytest.fixture(params=["simulator", "other_s3"])
def locking_store(request):
    return direct_store(request.getfixturevalue(request.param), locked=True)
