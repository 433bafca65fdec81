"""S3 repositories in the simulated AWS: what is refused, what is left behind, how deleting survives."""

import uuid
from typing import Any

import pytest
from django.utils import timezone

from cpm.flows.s3 import repositories as flow
from cpm.flows.s3 import verification
from cpm.flows.table import ENGINE
from cpm.jobs import runner
from cpm.lib.errors import Conflict, InUse, NotAllowed, PreconditionFailed, ValidationFailed
from cpm.lib.states import DeletionStatus, Role, VerifyDepth, VerifyResult
from cpm.models import AuditRecord, Job, S3Repository, ServerSettings, Step
from cpm.repository.errors import WrongSecret
from cpm.repository.keys import Password
from cpm.repository.repository import Repository, open_repository
from cpm.services import accounts, repositories, repository_keys
from tests import factories
from tests.domain.world import World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]
BUCKET = "backups-of-ours"


@pytest.fixture
def bucket(world: World) -> str:
    """An encrypted bucket; transactional tests leave no regions behind, so they are made too."""
    world.region_id("us-east-1")
    world.region_id("us-west-2")
    return factories.bucket(world.aws, BUCKET)


def make(world: World, name: str = "main", **fields: Any) -> S3Repository:
    given = {"account": world.account.pk, "aws_bucket_name": BUCKET, "aws_region": "us-east-1", **fields}
    return repositories.create(actor=world.actor, name=name, **given)


def keys(world: World, bucket: str = BUCKET) -> list[str]:
    """All that is in the bucket, hidden versions included."""
    answer = world.aws.client("s3").list_object_versions(Bucket=bucket)
    return sorted(one["Key"] for one in [*answer.get("Versions", []), *answer.get("DeleteMarkers", [])])


def fill(world: World, row: S3Repository, count: int, folder: str = "packs/ab/") -> None:
    s3 = world.aws.client("s3")
    for number in range(count):
        s3.put_object(Bucket=BUCKET, Key=f"{row.prefix}{folder}{number:04d}", Body=b"x")


def refused(world: World, **fields: Any) -> tuple[str, str, str]:
    """Field, code and message of the one refusal; nothing of it stays, neither here nor in S3."""
    with pytest.raises(ValidationFailed) as caught:
        make(world, **fields)
    assert not S3Repository.objects.exists()
    (field, [(message, code)]) = next(iter(caught.value.errors.items()))
    return field, code, message


def test_a_repository_is_made_in_its_folder_and_opens_with_the_stored_key(world: World, bucket: str) -> None:
    row = make(world, description="Copies")

    repository = flow.opened(S3Repository.objects.get(pk=row.pk))

    assert {key.split("/")[2] for key in keys(world)} == {"config", "keys", "owner"}
    assert all(key.startswith("cpm/main/") for key in keys(world))
    assert repository.owner() == ServerSettings.objects.get().server_id
    assert [slot.name for slot in repository.slots()] == ["server"]
    row.refresh_from_db()
    assert (row.user, row.copies_stored, row.blocks_stored) == (world.user, 0, 0)
    assert row.bytes_stored > 0 and row.usage_updated_at is not None
    record = AuditRecord.objects.get(event_type="repository.created")
    assert record.after["name"] == "main" and row.secret not in str(record.after)


def test_a_bucket_holds_several_repositories_with_different_keys(world: World, bucket: str) -> None:
    one, two = make(world, "one"), make(world, "two")

    assert flow.key_of(one) != flow.key_of(two)
    assert flow.opened(one).id != flow.opened(two).id


def test_names_are_unique_for_a_user_and_in_a_bucket(world: World, bucket: str) -> None:
    make(world, "one")
    other = factories.bucket(world.aws, "another-bucket")

    with pytest.raises(Conflict) as of_user:
        make(world, "one", aws_bucket_name=other)
    neighbour = factories.account(
        factories.user(Role.MANAGED),
        authentication="C",
        access_key=world.account.access_key,
        secret_key=world.account.secret_key,
    )
    with pytest.raises(Conflict) as in_bucket:
        make(world, "one", account=neighbour.pk)

    assert of_user.value.field == "name" and in_bucket.value.field == "name"
    assert S3Repository.objects.count() == 1


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"aws_bucket_name": "not-there-at-all"}, "aws_bucket_name", "aws_not_found"),
        ({"aws_bucket_name": "s3://backups"}, "aws_bucket_name", "invalid_bucket"),
        ({"aws_region": "us-west-2"}, "aws_region", "wrong_region"),
        ({"aws_region": "nowhere-1"}, "aws_region", "unknown_region"),
        ({"name": "with space"}, "name", "invalid_name"),
    ],
)
def test_a_wrong_place_is_refused(
    world: World, bucket: str, fields: dict[str, str], field: str, code: str
) -> None:
    assert refused(world, **fields)[:2] == (field, code)
    assert keys(world) == []


def test_a_bucket_without_encryption_is_refused(world: World, bucket: str) -> None:
    world.aws.fault(
        service="s3",
        action="GetBucketEncryption",
        error="ServerSideEncryptionConfigurationNotFoundError",
        status=404,
    )

    field, code, message = refused(world)

    assert (field, code) == ("aws_bucket_name", "not_encrypted") and "Switch it on" in message
    assert keys(world) == []


@pytest.mark.parametrize("action", ["ListObjectsV2", "PutObject", "GetObject", "GetBucketLocation"])
def test_a_missing_right_is_named_and_nothing_stays(world: World, bucket: str, action: str) -> None:
    world.aws.fault(service="s3", action=action, error="AccessDenied", status=403)

    field, code, message = refused(world)
    world.aws.clear_faults()

    assert (field, code) == ("aws_bucket_name", "aws_denied") and action in message
    assert keys(world) == []


def test_a_folder_of_another_server_is_refused_and_left_alone(world: World, bucket: str) -> None:
    row = make(world)
    before = keys(world)
    S3Repository.objects.all().delete()
    ServerSettings.objects.update(server_id=uuid.uuid4())

    field, code, message = refused(world)

    assert (field, code) == ("name", "foreign_repository") and "another server" in message
    assert keys(world) == before and row.prefix in message


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(world: World, bucket: str) -> None:
    world.aws.client("s3").put_object(Bucket=BUCKET, Key="cpm/main/holiday.jpg", Body=b"sun")

    assert refused(world)[:2] == ("name", "not_empty")
    assert keys(world) == ["cpm/main/holiday.jpg"]


def test_what_a_creation_left_that_broke_off_is_no_obstacle(world: World, bucket: str) -> None:
    make(world)
    S3Repository.objects.all().delete()

    again = make(world)

    assert flow.opened(again).owner() == ServerSettings.objects.get().server_id
    assert len(keys(world)) == 3


def test_deleting_removes_the_data_and_then_the_record(world: World, bucket: str) -> None:
    row, other = make(world), make(world, "other")
    fill(world, row, 3)

    repositories.delete(actor=world.actor, repository=row)
    row.refresh_from_db()
    assert row.deletion_status == DeletionStatus.IN_PROGRESS
    repositories.delete(actor=world.actor, repository=row)
    assert Job.objects.count() == 1
    world.run()

    assert not S3Repository.objects.filter(pk=row.pk).exists()
    assert {key.split("/")[1] for key in keys(world)} == {"other"}
    assert flow.opened(other).owner() is not None
    assert AuditRecord.objects.filter(event_type="repository.deleted").count() == 1


def test_deleting_removes_hidden_versions(world: World, bucket: str) -> None:
    s3 = world.aws.client("s3")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    row = make(world)
    assert row.versioned
    fill(world, row, 2)
    fill(world, row, 2)
    s3.delete_object(Bucket=BUCKET, Key=f"{row.prefix}packs/ab/0000")

    repositories.delete(actor=world.actor, repository=row)
    world.run()

    assert keys(world) == [] and not S3Repository.objects.exists()


def test_a_worker_that_dies_while_deleting_is_succeeded_by_another(
    world: World, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "PAGE", 4)
    row = make(world)
    fill(world, row, 10)
    repositories.delete(actor=world.actor, repository=row)

    class Killed(BaseException):
        pass

    pages = []

    def dying(*arguments: Any) -> None:
        genuine(*arguments)
        pages.append(1)
        if len(pages) == 2:
            raise Killed

    genuine = flow._delete_page
    with monkeypatch.context() as patch:
        patch.setattr(flow, "_delete_page", dying)
        with pytest.raises(Killed):
            runner.drain("s3", engine=ENGINE)
    left = keys(world)
    assert 3 < len(left) < 13 and f"{row.prefix}owner" in left
    world.expire_leases()
    world.run()

    assert keys(world) == [] and not S3Repository.objects.exists()


def test_what_cannot_be_deleted_is_said_and_tried_again(world: World, bucket: str) -> None:
    row = make(world)
    fill(world, row, 2)
    world.aws.fault(service="s3", action="DeleteObjects", error="AccessDenied", status=403)

    repositories.delete(actor=world.actor, repository=row)
    world.run()
    row.refresh_from_db()
    assert row.deletion_status == DeletionStatus.FAILED and "s3:DeleteObjects" in row.deletion_error
    world.aws.clear_faults()
    repositories.delete(actor=world.actor, repository=row)
    world.run()

    assert keys(world) == [] and not S3Repository.objects.exists()


def test_force_forgets_the_repository_whatever_s3_says(world: World, bucket: str) -> None:
    row, other = make(world), make(world, "other")
    world.aws.fault(service="s3", action="DeleteObjects", error="AccessDenied", status=403)
    repositories.delete(actor=world.actor, repository=row)
    repositories.delete(actor=world.actor, repository=row, force=True)
    world.run()

    assert [found.pk for found in S3Repository.objects.all()] == [other.pk]
    assert [key for key in keys(world) if key.startswith(row.prefix)]


def test_force_deletes_the_data_where_it_can(world: World, bucket: str) -> None:
    repositories.delete(actor=world.actor, repository=make(world), force=True)
    world.run()

    assert keys(world) == [] and not S3Repository.objects.exists()


def test_data_that_another_server_took_over_is_never_deleted(world: World, bucket: str) -> None:
    row = make(world)
    flow.opened(row).take_over(uuid.uuid4())
    before = keys(world)

    repositories.delete(actor=world.actor, repository=row)
    world.run()
    row.refresh_from_db()
    assert row.deletion_status == DeletionStatus.FAILED
    assert "belongs to server" in row.deletion_error
    repositories.delete(actor=world.actor, repository=row, force=True)
    world.run()

    assert keys(world) == before and not S3Repository.objects.exists()


def test_what_is_used_stays(world: World, bucket: str) -> None:
    row = make(world)
    factories.policy(world.account, s3_repository=row, name="web")

    for force in (False, True):
        with pytest.raises(InUse, match="policy web"):
            repositories.delete(actor=world.actor, repository=row, force=force)
    row.policies.all().delete()
    with pytest.raises(InUse, match="S3 repository main"):
        accounts.delete(actor=world.actor, account=world.account)

    assert S3Repository.objects.get().deletion_status == DeletionStatus.NONE


def test_verification_keeps_its_result(world: World, bucket: str) -> None:
    row = make(world)

    found = repositories.verify(actor=world.actor, repository=row, depth=VerifyDepth.FULL)
    row.refresh_from_db()
    assert not found.report.damage
    assert (row.last_verify_result, row.last_verify_depth) == (VerifyResult.SOUND, VerifyDepth.FULL)
    assert row.last_verified_at is not None and row.last_verified_at <= timezone.now()
    fill(world, row, 1, folder="copies/")
    repositories.start_verification(actor=world.actor, repository=row, depth=VerifyDepth.LIST)
    world.run()

    row.refresh_from_db()
    assert row.last_verify_result == VerifyResult.DAMAGED and "copies/0000" in row.last_verify_details
    assert Step.objects.get(kind=verification.STEP).state == "succeeded"


def test_a_repository_that_cannot_be_read_says_so(world: World, bucket: str) -> None:
    row = make(world)
    world.aws.client("s3").delete_object(Bucket=BUCKET, Key=f"{row.prefix}config")

    with pytest.raises(PreconditionFailed, match="config"):
        repositories.verify(actor=world.actor, repository=row, depth=VerifyDepth.LIST)

    row.refresh_from_db()
    assert row.last_verify_result == VerifyResult.FAILED and "config" in row.last_verify_details


def test_keys_are_added_replaced_and_removed(world: World, bucket: str) -> None:
    row = make(world)
    by: dict[str, Any] = {"actor": world.actor, "repository": row}
    first, second = Password("correct horse"), Password("battery staple")

    added = repository_keys.add(**by, secret=first, name="safe")
    server = ServerSettings.objects.get().server_id
    assert open_repository(flow.store_of(row), first, owner=server).id == flow.opened(row).id
    replaced = repository_keys.rotate(**by, slot_id=added.id, secret=second)
    with pytest.raises(WrongSecret):
        open_repository(flow.store_of(row), first)
    repository_keys.remove(**by, slot_id=replaced.id)

    with pytest.raises(WrongSecret):
        open_repository(flow.store_of(row), second)
    assert [(slot.name, ours) for slot, ours in repository_keys.slots(**by)] == [("server", True)]
    events = AuditRecord.objects.filter(event_type__startswith="repository.key_").values_list(
        "event_type", flat=True
    )
    assert sorted(events) == ["repository.key_added", "repository.key_removed", "repository.key_rotated"]


def test_the_servers_own_key_is_replaced_by_itself_only(world: World, bucket: str) -> None:
    row = make(world)
    by: dict[str, Any] = {"actor": world.actor, "repository": row}
    [(own, _)] = repository_keys.slots(**by)
    old = flow.key_of(row)

    with pytest.raises(NotAllowed):
        repository_keys.remove(**by, slot_id=own.id)
    with pytest.raises(NotAllowed):
        repository_keys.rotate(**by, slot_id=own.id, secret=Password("correct horse"))
    made = repository_keys.rotate_own(**by)

    row.refresh_from_db()
    assert [slot.id for slot, _ in repository_keys.slots(**by)] == [made.id]
    assert flow.key_of(row) != old
    with pytest.raises(WrongSecret):
        open_repository(flow.store_of(row), old)


def test_a_rotation_that_breaks_off_locks_nobody_out(
    world: World, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = make(world)
    by: dict[str, Any] = {"actor": world.actor, "repository": row}

    with monkeypatch.context() as patch:
        patch.setattr(repository_keys, "encrypt_secret", lambda _: (_ for _ in ()).throw(OSError("disk")))
        with pytest.raises(OSError, match="disk"):
            repository_keys.rotate_own(**by)
    before = flow.opened(S3Repository.objects.get())
    with monkeypatch.context() as patch:
        patch.setattr(Repository, "remove_key", lambda *_: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises(OSError, match="gone"):
            repository_keys.rotate_own(**by)

    assert flow.opened(S3Repository.objects.get()).id == before.id
