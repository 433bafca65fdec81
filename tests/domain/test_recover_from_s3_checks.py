"""What is refused when a recovery from S3 is asked for, before anything starts."""

import pytest
from django.utils import timezone

from cpm.lib.errors import Conflict, InUse, PreconditionFailed, ValidationFailed
from cpm.models import Actor, Job, Recovery, S3Copy, S3Repository, Snapshot
from cpm.services import recoveries, repositories
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def row():
    """The record of a volume's snapshot with a copy of which nothing but the record exists."""
    backup = factories.backup(factories.policy(factories.account(factories.root())))
    made = factories.snapshot(backup, capacity=1, device="/dev/sdf", details={"type": "gp3"})
    factories.s3_copy(made, archive_class="DEEP_ARCHIVE")
    return made


def start(row, **request):
    call = (
        recoveries.recover_instance_from_s3 if row.kind == "instances" else recoveries.recover_volume_from_s3
    )
    row = Snapshot.objects.get(pk=row.pk)
    actor = Actor.of(row.backup.user)
    return call(actor=actor, snapshot=row, request=request, credentials=None, now=timezone.now())


@pytest.mark.parametrize(
    ("copy", "code"),
    [
        ({"damaged": True}, "copy_damaged"),
        ({"status": "deleted"}, "copy_deleted"),
        ({"repository": None}, "copy_deleted"),
        ({"status": "pending", "succeeded": None}, "not_in_s3"),
        ({"status": "error", "succeeded": False}, "not_in_s3"),
    ],
)
def test_without_a_copy_that_can_be_read_nothing_starts(row, copy, code):
    S3Copy.objects.filter(snapshot=row).update(**copy)

    with pytest.raises(PreconditionFailed) as caught:
        start(row)

    assert caught.value.error_code() == code and not Job.objects.exists()


def test_a_repository_that_is_being_deleted_is_no_source(row):
    S3Repository.objects.update(deletion_status="I")

    with pytest.raises(PreconditionFailed) as caught:
        start(row)

    assert caught.value.error_code() == "repository_deleted"


@pytest.mark.parametrize(
    ("request_body", "field", "code"),
    [
        ({"encryption_key": "no key"}, "encryption_key", "invalid"),
        ({"encryption_key": "arn:aws:kms:eu-west-1:123456789012:key/1"}, "encryption_key", "wrong_region"),
        ({"encryption_key": "arn:aws:kms:us-east-1:999999999999:alias/theirs"}, "encryption_key", "wrong_account"),
        ({"region": "nowhere-1"}, "region", "not_found"),
        ({"retrieve_options": {"retrieval_tier": "S"}}, "retrieve_options", "not_archived"),
        ({"worker_configuration": {"aws_vpc": "vpc"}}, "worker_configuration.aws_vpc", "invalid"),
        ({"attach_to": "i-0123456789abcdef0"}, "device", "required"),
    ],
)
def test_what_makes_no_sense_is_refused(row, request_body, field, code):
    with pytest.raises(ValidationFailed) as caught:
        start(row, **request_body)

    assert code in {found for _, found in caught.value.errors[field]}
    assert not Job.objects.exists()


def test_there_is_no_expedited_retrieval_from_deep_archive(row):
    S3Copy.objects.update(tier="A")

    with pytest.raises(ValidationFailed, match="no expedited retrieval"):
        start(row, retrieve_options={"retrieval_tier": "E"})

    assert start(row, retrieve_options={"retrieval_tier": "B"}).from_s3


def test_the_password_of_a_proxy_is_not_stored(row):
    worker = {
        "aws_vpc": "vpc-0123456789abcdef0", "aws_security_group": "sg-0123456789abcdef0", "aws_subnet": "",
        "requires_http_proxy": True, "http_proxy_address": "proxy", "http_proxy_port": 3128,
        "http_proxy_password_encrypted": "hidden",
    }  # fmt: skip

    recovery = start(row, worker_configuration=worker)

    recovery.refresh_from_db()
    assert recovery.request["worker_configuration"]["http_proxy_port"] == 3128
    assert "hidden" not in str(recovery.request)


def test_a_repository_stays_while_a_recovery_reads_from_it(row):
    recovery = start(row)
    kept = S3Repository.objects.get()

    with pytest.raises(InUse, match=f"recovery {recovery.pk}"):
        repositories.delete(actor=Actor.of(row.backup.user), repository=kept, force=True)

    Recovery.objects.update(status="F")
    repositories.delete(actor=Actor.of(row.backup.user), repository=kept)
    kept.refresh_from_db()
    assert kept.deletion_status == "I"


def test_a_native_recovery_cannot_be_aborted_as_one_from_s3(row):
    recovery = factories.recovery(row)

    with pytest.raises(Conflict, match="does not recover from S3"):
        recoveries.abort_from_s3(actor=Actor.of(row.backup.user), recovery=recovery)


def machine_of(row, root):
    """The instance that the volume belongs to, from now on, with its root volume at that device."""
    machine = factories.snapshot(row.backup, "instances", details={"aws_root_device": root})
    Snapshot.objects.filter(pk=row.pk).update(parent=machine)
    return machine


def test_an_instance_without_a_copy_of_its_root_volume_is_refused_at_once(row):
    machine = machine_of(row, "/dev/xvda")
    with pytest.raises(PreconditionFailed, match="no copy of the root volume") as caught:
        start(machine)
    assert caught.value.error_code() == "not_in_s3"

    root = factories.snapshot(row.backup, parent=machine, device="/dev/xvda", capacity=1)
    with pytest.raises(PreconditionFailed, match=f"no complete copy of {root.source_id}.*one by one"):
        start(machine, restore_from="I")

    factories.s3_copy(root)
    assert start(machine).request["restore_from"] == "S"
    Snapshot.objects.filter(pk=machine.pk).update(details={**machine.details, "platform": "windows"})
    assert start(machine).request["restore_from"] == "I"


def test_a_volume_that_is_asked_for_must_have_been_copied(row):
    machine = machine_of(row, "/dev/sdf")
    never = factories.snapshot(row.backup, parent=machine, device="/dev/sdg", capacity=1)

    with pytest.raises(PreconditionFailed, match=f"no complete copy of {never.source_id}"):
        start(machine, instance_volumes=[{"volume_id": never.source_id}])

    assert start(machine).from_s3


def test_volumes_that_are_not_asked_for_may_be_damaged(row):
    machine = machine_of(row, "/dev/sdf")
    broken = factories.snapshot(row.backup, parent=machine, device="/dev/sdg", capacity=1)
    factories.s3_copy(broken, damaged=True)

    with pytest.raises(PreconditionFailed, match=f"The copy of {broken.source_id} in S3 is damaged"):
        start(machine)

    assert start(machine, instance_volumes=[{"volume_id": row.source_id}]).from_s3
