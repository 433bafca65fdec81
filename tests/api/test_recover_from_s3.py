"""Recoveries from S3 over REST: what is started, shown and stopped."""

import pytest

from cpm.models import AuditRecord, Job, Recovery
from tests import factories
from tests.api.caller import codes

pytestmark = pytest.mark.django_db


@pytest.fixture
def volume(owner):
    """The record of a volume whose snapshot is gone and whose copy is archived."""
    backup = factories.backup(factories.policy(factories.account(owner)), status="M")
    made = factories.snapshot(backup, status="deleted", capacity=1)
    factories.s3_copy(made, tier="A", archive_class="GLACIER")
    return made


def path(volume, kind="volumes"):
    return f"backups/{volume.backup_id}/snapshots/{kind}/{volume.pk}/recover_from_s3/"


def test_a_moved_backup_is_recoverable_from_s3_alone(call, volume):
    _, shown = call("GET", f"backups/{volume.backup_id}/")
    native, _ = call("POST", path(volume).replace("recover_from_s3", "recover"), {})
    status, started = call("POST", path(volume), {})

    assert shown["is_recoverable"] is True
    assert (native, status) == (412, 202)
    assert started["s3_recover_status"] == {"status": "Z", "progress_percent": []}
    assert started["status"] == "P" and started["recovery_type"] == "V"


def test_a_database_comes_back_as_files_or_as_rows(call, owner):
    backup = factories.backup(factories.policy(factories.account(owner)))
    made = factories.snapshot(backup, kind="rds_databases", details={"engine": "postgres", "storage_type": "gp3"})
    factories.s3_copy(made)
    where = path(made, "rds_databases")

    status, started = call("POST", where, {"export_bucket": "files-of-ours", "export_prefix": "back/"})
    refused, answer = call("POST", where, {"master_username": "shop", "master_password": "brief"})

    assert (status, started["recovery_type"], started["s3_recover_status"]["status"]) == (202, "R", "Z")
    assert refused == 400
    assert codes(answer) == {"aws_resource_id": ["required"], "master_password": ["invalid"]}


def test_progress_is_shown_for_each_volume(call, volume):
    recovery = factories.recovery(
        volume,
        from_s3=True,
        s3_status="P",
        s3_progress=[100, 7],
        retrieve_status="S",
        retrieve_progress=[100],
    )

    _, shown = call("GET", f"recoveries/{recovery.pk}/")

    assert shown["s3_recover_status"] == {"status": "P", "progress_percent": [100, 7]}
    assert shown["glacier_retrieve_status"] == {"status": "S", "progress_percent": [100]}


def test_the_same_request_starts_once(call, volume):
    key = {"idempotency-key": "one-and-the-same"}

    first = call("POST", path(volume), {}, **key)
    again = call("POST", path(volume), {}, **key)

    assert first == again and first[0] == 202
    assert Recovery.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"retrieve_options": {"days_to_keep": 3}}, "retrieve_options.retrieval_tier"),
        ({"retrieve_options": {"retrieval_tier": "X"}}, "retrieve_options.retrieval_tier"),
        ({"encryption_key": "arn:aws:kms:eu-west-1:123456789012:key/1"}, "encryption_key"),
        ({"worker_configuration": {"aws_vpc": "vpc-1"}}, "worker_configuration.aws_subnet"),
        ({"region": "nowhere-1"}, "region"),
    ],
)
def test_what_makes_no_sense_is_a_400(call, volume, body, field):
    status, answer = call("POST", path(volume), body)

    assert status == 400 and field in answer["errors"][0]
    assert not Recovery.objects.exists()


def test_a_volume_without_an_id_is_a_400(call, volume):
    machine = factories.snapshot(volume.backup, "instances", details={"aws_root_device": volume.device})
    type(volume).objects.filter(pk=volume.pk).update(parent=machine)

    status, answer = call("POST", path(machine, "instances"), {"instance_volumes": [{}]})

    assert status == 400 and codes(answer) == {"instance_volumes": ["required"]}
    assert not Recovery.objects.exists()


def test_without_a_readable_copy_it_is_a_412(call, volume):
    volume.s3_copies.update(damaged=True)

    status, answer = call("POST", path(volume), {})

    assert status == 412 and codes(answer) == {"non_field_errors": ["copy_damaged"]}


def test_an_abort_asks_the_job_to_stop_and_is_recorded(call, owner, volume):
    _, started = call("POST", path(volume), {})
    where = f"recoveries/{started['id']}/recover_from_s3/abort/"
    Recovery.objects.update(s3_status="P")

    status, content = call("POST", where)
    again, _ = call("POST", where)
    _, shown = call("GET", f"recoveries/{started['id']}/")

    assert (status, content, again) == (201, b"", 201)
    assert shown["s3_recover_status"]["status"] == "G"
    assert Job.objects.get(kind="recovery").abort_requested_at is not None
    assert AuditRecord.objects.filter(event_type="recovery.aborted").count() == 1


@pytest.mark.parametrize("fields", [{"from_s3": False, "status": "P"}, {"from_s3": True, "status": "R"}])
def test_what_does_not_run_from_s3_cannot_be_aborted(call, volume, fields):
    recovery = factories.recovery(volume, **fields)

    status, answer = call("POST", f"recoveries/{recovery.pk}/recover_from_s3/abort/")

    assert status == 400 and codes(answer)["non_field_errors"][0] in {"not_from_s3", "not_running"}
