"""One suite for every store: a directory, the simulator's S3, and an S3 server written by others."""

import random
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from cpm.aws import gateway
from cpm.aws.identity import Keys
from cpm.aws.s3_objects import S3Objects, Stored
from cpm.repository import locks
from cpm.repository.copying import copy_volume
from cpm.repository.errors import (
    Damaged,
    ForeignRepository,
    ObjectExists,
    ObjectLocked,
    ObjectMissing,
    RepositoryExists,
    StoreUnavailable,
    StoreUnsuitable,
)
from cpm.repository.prune import prune
from cpm.repository.reader import Reader
from cpm.repository.repository import Settings, create, open_repository
from cpm.repository.store import PutOptions, probe
from cpm.repository.store_direct import DirectObjects, _info
from cpm.repository.store_local import LocalStore
from cpm.repository.store_s3 import S3Store
from cpm.repository.verify import Depth, verify
from tests import simulated_aws
from tests.repository import seaweed
from tests.repository.world import (
    AT_ONCE,
    SECRET,
    SERVER,
    SMALL_PACK,
    Volume,
    draft,
    holds,
    objects,
    referenced_only,
)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    running = simulated_aws.start(tmp_path_factory.mktemp("simulator"))
    yield running
    running.stop()


@pytest.fixture
def simulator(simulated):
    simulated.clear_faults()
    return simulated.client("s3"), simulated.credentials()


@pytest.fixture(scope="module")
def other_s3(tmp_path_factory):
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as client:
        yield client, seaweed.KEYS


def s3_store(server, *, locked=False):
    client, credentials = server
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket, **({"ObjectLockEnabledForBucket": True} if locked else {}))
    gateway.configure(gateway.GatewayConfig(endpoint_url=client.meta.endpoint_url))
    objects = S3Objects(Keys(*credentials), "us-east-1", bucket)
    return S3Store(DirectObjects(objects, versioned=locked), "some/folder")


@pytest.fixture(params=["directory", "simulator", "other_s3"])
def store(request, tmp_path):
    if request.param == "directory":
        return LocalStore(tmp_path / "store")
    return s3_store(request.getfixturevalue(request.param))


@pytest.fixture(params=["directory", "simulator", "other_s3"])
def locking_store(request, tmp_path):
    if request.param == "directory":
        return LocalStore(tmp_path / "store")
    return s3_store(request.getfixturevalue(request.param), locked=True)


def test_objects_are_put_once_read_in_ranges_listed_in_order_and_deleted(store):
    content = random.Random(1).randbytes(300_000)
    store.put("packs/b", memoryview(content))
    store.put("packs/a", b"")
    store.put("index/c", b"x")

    with pytest.raises(ObjectExists):
        store.put("packs/b", b"other")
    target = memoryview(bytearray(1000))

    assert store.get("packs/b") == content and store.get("packs/b", 10, 20) == content[10:30]
    assert store.get("packs/b", 299_990, 100) == content[-10:] and store.get("packs/a") == b""
    assert store.read_into("packs/b", 299_500, target) == 500 and bytes(target[:500]) == content[-500:]
    assert [(info.key, info.size) for info in store.list("packs/")] == [("packs/a", 0), ("packs/b", 300_000)]
    assert abs(store.head("packs/b").modified - datetime.now(UTC).timestamp()) < 120
    store.put("packs/b", b"replaced", if_absent=False)
    assert store.get("packs/b") == b"replaced"
    store.delete(["packs/a", "packs/b", "packs/never"])
    assert objects(store) == {"index/c"}
    for call in (store.head, store.get, lambda key: store.read_into(key, 0, target)):
        with pytest.raises(ObjectMissing):
            call("packs/b")


def test_the_store_passes_the_probe_and_leaves_nothing(store):
    probe(store)

    assert objects(store) == set()


def test_a_listing_of_many_pages_is_complete(store):
    keys = [f"many/{number:04d}" for number in range(1003)]
    for key in keys:
        store.put(key, b"")

    assert [info.key for info in store.list("many/")] == keys
    store.delete(keys)
    assert objects(store) == set()


def test_a_whole_life_of_a_repository(store, tmp_path):
    repository = create(store, SECRET, owner=SERVER)
    first, second = Volume([2, 4, 0, 3, 6, 8]), Volume([2, 10, 0, 3, 12, 8])
    one = copy_volume(repository, draft(first), first, pack_bytes=SMALL_PACK, background=2)
    two = copy_volume(
        repository, draft(second), second, parent=one, changed=[1, 4], pack_bytes=SMALL_PACK, background=2
    )
    archive = copy_volume(repository, draft(first, archive=True), first)

    assert (
        holds(repository, one, first) and holds(repository, two, second) and holds(repository, archive, first)
    )
    repository.delete_copy(one.copy_id)
    for _ in range(3):
        prune(repository, delays=AT_ONCE, repack_below=1.0)
    after = open_repository(store, SECRET, owner=SERVER)

    assert verify(after, Depth.FULL).findings == [] and referenced_only(after)
    Reader(after, two).restore(tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == b"".join(second.content(number) for number in range(6))
    assert holds(after, archive, first)


def test_locked_objects_stay_until_their_time_and_the_lock_grows_with_the_copies(locking_store):
    now = [datetime.now(UTC).timestamp()]
    settings = Settings(lock_mode="GOVERNANCE", retention=timedelta(days=1))
    repository = create(locking_store, SECRET, owner=SERVER, settings=settings, clock=lambda: now[0])
    volume = Volume([2, 4])
    until = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
    one = copy_volume(repository, draft(volume), volume)
    (pack,) = locking_store.list("packs/")
    early = locking_store.head(pack.key).retain_until
    kept = copy_volume(repository, draft(volume, retain_until=until.isoformat()), volume)

    extended = locks.extend(repository)

    assert early and early < until and locking_store.head(pack.key).retain_until == until
    assert extended >= 3 and locks.extend(repository) == 0
    for key in (pack.key, f"copies/{kept.copy_id}", "config"):
        with pytest.raises(ObjectLocked):
            locking_store.delete([key])
    with pytest.raises(ObjectLocked):
        repository.delete_copy(one.copy_id)
    assert prune(repository, delays=AT_ONCE).deleted == 0 and holds(repository, kept, volume)


def test_what_kept_copies_need_is_locked_anew_at_every_extension(tmp_path):
    now = [datetime.now(UTC).timestamp()]
    settings = Settings(lock_mode="COMPLIANCE", retention=timedelta(days=7))
    store = LocalStore(tmp_path)
    repository = create(store, SECRET, owner=SERVER, settings=settings, clock=lambda: now[0])
    first, second = Volume([2, 4]), Volume([6, 8])
    kept = copy_volume(repository, draft(first), first)
    [kept_pack] = [info.key for info in store.list("packs/")]
    archive = copy_volume(repository, draft(first, archive=True), first)
    doomed = copy_volume(repository, draft(second), second)
    [lost_pack] = [info.key for info in store.list("packs/") if info.key != kept_pack]
    early = {info.key: store.head(info.key).retain_until for info in store.list("")}
    for until in early.values():
        assert until is None or until - datetime.now(UTC) < timedelta(days=7, minutes=1)
    store._lock(doomed.draft.key, datetime.now(UTC) - timedelta(days=1))
    repository.delete_copy(doomed.copy_id)
    now[0] += timedelta(days=5).total_seconds()

    locks.extend(repository)
    now[0] += 60
    again = locks.extend(repository)
    now[0] += timedelta(days=5).total_seconds()
    locks.extend(repository, without=[kept.copy_id])

    soon = datetime.now(UTC) + timedelta(days=11)
    needed = {info.key for info in store.list("") if (store.head(info.key).retain_until or soon) > soon}
    assert {"config", "keys/00000001", kept_pack, kept.draft.key, archive.draft.key} <= needed
    assert {info.key for info in store.list("archives/")} <= needed
    assert lost_pack not in needed and store.head(lost_pack).retain_until == early[lost_pack]
    assert again == 0
    latest = store.head(archive.draft.key).retain_until
    assert store.head(kept.draft.key).retain_until < latest and store.head(kept_pack).retain_until < latest


def test_damage_keeps_no_other_copy_from_being_locked(tmp_path):
    now = [datetime.now(UTC).timestamp()]
    settings = Settings(lock_mode="GOVERNANCE", retention=timedelta(days=7))
    store = LocalStore(tmp_path)
    repository = create(store, SECRET, owner=SERVER, settings=settings, clock=lambda: now[0])
    volume = Volume([2, 4])
    copies = [copy_volume(repository, draft(volume), volume) for _ in range(2)]
    (tmp_path / copies[0].draft.key).write_bytes(b"rotten")
    before = store.head(copies[1].draft.key).retain_until
    now[0] += timedelta(days=5).total_seconds()

    with pytest.raises(Damaged, match=copies[0].copy_id):
        locks.extend(repository)

    assert store.head(copies[1].draft.key).retain_until - before > timedelta(days=4)


def test_packs_that_are_locked_wait_for_the_end_of_their_lock(tmp_path):
    settings = Settings(lock_mode="COMPLIANCE", retention=timedelta(seconds=-1))
    store = LocalStore(tmp_path)
    repository = create(store, SECRET, owner=SERVER, settings=settings)
    volume = Volume([2, 4])
    copy = copy_volume(repository, draft(volume), volume)
    (pack,) = store.list("packs/")
    store.retain(pack.key, datetime.now(UTC) + timedelta(hours=1), "COMPLIANCE")
    repository.delete_copy(copy.copy_id)

    report = prune(repository, delays=AT_ONCE)

    assert report.locked == 1 and report.condemned == 0
    store._lock(pack.key, datetime.now(UTC) - timedelta(hours=1))
    prune(repository, delays=AT_ONCE)
    prune(repository, delays=AT_ONCE)
    assert list(store.list("packs/")) == []


def test_a_store_that_ignores_conditions_is_refused(tmp_path):
    class Careless(LocalStore):
        def put(self, key, data, *, if_absent=True, options=None):
            super().put(key, data, if_absent=False, options=options)

    with pytest.raises(StoreUnsuitable, match="If-None-Match"):
        create(Careless(tmp_path), SECRET, owner=SERVER)
    assert objects(LocalStore(tmp_path)) == set()


def test_a_repository_has_one_owner_and_is_created_once(tmp_path):
    store = LocalStore(tmp_path)
    repository = create(store, SECRET, owner=SERVER)
    stranger = uuid.uuid4()

    with pytest.raises(ForeignRepository):
        create(store, SECRET, owner=stranger)
    with pytest.raises(ForeignRepository):
        open_repository(store, SECRET, owner=stranger)
    with pytest.raises(RepositoryExists):
        create(store, SECRET, owner=SERVER)
    repository.take_over(stranger)

    assert open_repository(store, SECRET, owner=stranger).owner() == stranger


def test_a_creation_that_broke_off_is_completed(tmp_path):
    store = LocalStore(tmp_path)
    root = create(store, SECRET, owner=SERVER).root
    store.delete(["config"])

    again = create(store, SECRET, owner=SERVER)

    assert again.root == root and open_repository(store, SECRET).root == root


def test_a_write_whose_answer_was_lost_is_recognised_by_its_bytes(simulator, simulated):
    store = s3_store(simulator)
    simulated.fault(service="s3", action="PutObject", lost_response=True, count=1)

    store.put("packs/a", b"mine")

    assert store.get("packs/a") == b"mine"
    simulated.fault(service="s3", action="PutObject", error="InternalError", status=500, count=1)
    with pytest.raises(ObjectExists):
        store.put("packs/a", b"others")


def test_what_does_not_come_back_is_given_up(simulator, simulated):
    store = s3_store(simulator)
    simulated.fault(service="s3", action="GetObject", error="InternalError", status=500)

    with pytest.raises(StoreUnavailable):
        store.get("config")
    simulated.clear_faults()
    with pytest.raises(ObjectMissing):
        store.get("config")


def test_storage_class_and_encryption_reach_s3(simulator):
    store = s3_store(simulator)
    options = PutOptions(storage_class="GLACIER", encryption="AES256")
    store.put("packs/a", b"cold", options=options)

    info = store.head("packs/a")

    assert info.storage_class == "GLACIER" and info.retrieval == "needed"
    store.retrieve("packs/a", tier="Bulk", days=2)
    assert store.head("packs/a").retrieval in ("ongoing", "ready")


def test_the_state_of_a_retrieval_is_read_from_its_header():
    def retrieval(storage_class, header):
        stored = Stored("packs/a", 1, datetime.now(UTC), "e", storage_class, header)
        info = _info(stored, headed=True)
        return info.retrieval, info.retrieved_until

    done = 'ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"'

    assert retrieval("STANDARD", None) == (None, None) and retrieval("GLACIER", None) == ("needed", None)
    assert retrieval("DEEP_ARCHIVE", 'ongoing-request="true"') == ("ongoing", None)
    assert retrieval("GLACIER", done) == ("ready", datetime(2012, 12, 21, tzinfo=UTC))
