"""Settings of a S3 repository: encryption, Object Lock and verification, against the simulated AWS."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from typer.testing import CliRunner

from cpm import cli
from cpm.commands import terminal
from cpm.flows.s3 import repositories as flow
from cpm.lib.errors import PreconditionFailed, ValidationFailed
from cpm.lib.states import DeletionStatus, Encryption, LockMode, SnapshotKind
from cpm.models import AuditRecord, LogLine, S3Repository
from cpm.repository import locks
from cpm.services import repositories, repository_settings
from tests import factories
from tests.domain import stored
from tests.domain.world import World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]
PLAIN, LOCKABLE = "plain-bucket", "lockable-bucket"


def make(world: World, bucket: str = PLAIN) -> S3Repository:
    world.region_id("us-east-1")
    factories.bucket(world.aws, bucket, ObjectLockEnabledForBucket=bucket == LOCKABLE)
    return repositories.create(
        actor=world.actor,
        account=world.account.pk,
        name="main",
        aws_bucket_name=bucket,
        aws_region="us-east-1",
    )


def configure(world: World, row: S3Repository, **settings: Any) -> S3Repository:
    return repository_settings.configure(actor=world.actor, repository=row, **settings)


def refused(world: World, row: S3Repository, **settings: Any) -> tuple[str, str]:
    before = S3Repository.objects.values().get()
    with pytest.raises(ValidationFailed) as caught:
        configure(world, row, **settings)
    assert S3Repository.objects.values().get() == before
    (field, [(_, code)]) = next(iter(caught.value.errors.items()))
    return field, code


@pytest.mark.parametrize(
    ("given", "field", "code"),
    [
        ({"kms_key": "alias/mine"}, "kms_key", "needs_kms"),
        ({"encryption": "AES256", "kms_key": "alias/mine"}, "kms_key", "needs_kms"),
        ({"encryption": "rot13"}, "encryption", "invalid_choice"),
        ({"encryption": "aws:kms", "kms_key": "alias/none"}, "kms_key", "aws_not_found"),
        ({"lock_mode": "GOVERNANCE"}, "lock_days", "lock_days_missing"),
        ({"lock_mode": "GOVERNANCE", "lock_days": 1}, "lock_days", "lock_days_missing"),
        ({"lock_days": 7}, "lock_mode", "lock_mode_missing"),
        ({"lock_mode": "GOVERNANCE", "lock_days": 7}, "lock_mode", "no_object_lock"),
        ({"lock_mode": "GOVERNANCE", "lock_days": 40_000}, "lock_days", "out_of_range"),
        ({"verify_every_days": -1}, "verify_every_days", "out_of_range"),
        ({"verify_depth": "deep"}, "verify_depth", "invalid_choice"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_field(
    world: World, given: dict[str, Any], field: str, code: str
) -> None:
    assert refused(world, make(world), **given) == (field, code)


def test_new_objects_are_encrypted_with_the_key_and_unusable_keys_are_refused(world: World) -> None:
    row = make(world)
    kms = world.aws.client("kms")
    key, off = (kms.create_key()["KeyMetadata"] for _ in range(2))
    signing = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]
    kms.disable_key(KeyId=off["KeyId"])

    assert refused(world, row, encryption="aws:kms", kms_key=off["Arn"]) == ("kms_key", "key_unusable")
    assert refused(world, row, encryption="aws:kms", kms_key=signing["Arn"]) == ("kms_key", "key_unusable")
    world.aws.fault(service="s3", action="PutObject", error="AccessDenied", status=403, count=1)
    assert refused(world, row, encryption="aws:kms", kms_key=key["Arn"]) == ("kms_key", "aws_denied")
    row = configure(world, row, encryption="aws:kms", kms_key=key["Arn"])

    repository = flow.opened(row)
    repository.store.put("index/x", b"x", options=repository.put_options())
    head = world.aws.client("s3").head_object(Bucket=PLAIN, Key=f"{row.prefix}index/x")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key["Arn"])
    assert not list(repository.store.list("probe/"))
    record = AuditRecord.objects.get(event_type="repository.configured")
    assert record.after["kms_key"] == key["Arn"]
    assert configure(world, row, encryption=Encryption.BUCKET).kms_key == ""


def test_locked_objects_stay_and_a_deletion_says_until_when(world: World) -> None:
    row = configure(
        world, make(world, LOCKABLE), lock_mode=LockMode.GOVERNANCE, lock_days=3, verify_every_days=1
    )
    repository = flow.opened(row)
    repository.store.put("index/x", b"x", options=repository.put_options())
    ends = f"{timezone.now() + timedelta(days=3):%Y-%m-%d}"

    repositories.delete(actor=world.actor, repository=row)
    world.run()
    row.refresh_from_db()
    assert row.deletion_status == DeletionStatus.FAILED
    assert f"locked, some until {ends}" in row.deletion_error
    assert {info.key for info in repository.store.list("index/")} == {"index/x"}
    repositories.delete(actor=world.actor, repository=row, force=True)
    world.run()

    assert not S3Repository.objects.exists()
    assert LogLine.objects.filter(message__contains=f"some until {ends}", level="Warning").exists()


def test_an_extension_locks_what_opens_the_repository_too(world: World) -> None:
    row = configure(world, make(world, LOCKABLE), lock_mode=LockMode.GOVERNANCE, lock_days=3)
    repository = flow.opened(row)

    assert locks.extend(repository) == 0 and repository.store.head("config").retain_until is None
    stored.copy(row, stored.backup(world.policy()).snapshots.get(kind=SnapshotKind.VOLUME), [2, 3])
    locks.extend(repository)

    until = timezone.now() + timedelta(days=3)
    for info in repository.store.list(""):
        kept = repository.store.head(info.key).retain_until
        assert (kept is None) == (info.key == "owner")
        assert kept is None or abs(kept - until) < timedelta(minutes=5)


def test_compliance_only_becomes_stricter(world: World) -> None:
    row = configure(world, make(world, LOCKABLE), lock_mode=LockMode.COMPLIANCE, lock_days=3)

    assert refused(world, row, lock_days=2) == ("lock_days", "compliance_stays")
    assert refused(world, row, lock_mode=LockMode.GOVERNANCE) == ("lock_mode", "compliance_stays")
    assert refused(world, row, lock_mode=LockMode.NONE) == ("lock_mode", "compliance_stays")

    assert configure(world, row, lock_days=4).lock_days == 4
    assert configure(world, row, verify_every_days=0).lock_mode == LockMode.COMPLIANCE


def test_nothing_is_set_while_it_is_deleted(world: World) -> None:
    row = make(world)
    repositories.delete(actor=world.actor, repository=row)

    with pytest.raises(PreconditionFailed, match="being deleted"):
        configure(world, row, verify_every_days=1)


def test_settings_are_made_on_the_command_line_and_in_the_admin(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "join_running_stack", lambda _: {})
    monkeypatch.setattr(terminal.console, "width", 240)
    row = make(world, LOCKABLE)
    options = (
        "--lock-mode",
        "GOVERNANCE",
        "--lock-days",
        "5",
        "--verify-every",
        "0",
        "--encryption",
        "AES256",
    )

    said = CliRunner().invoke(cli.app, ["repo", "set", "main", *options])
    wrong = CliRunner().invoke(cli.app, ["repo", "set", "main", "--lock-days", "0"])
    client = Client()
    client.force_login(world.user)
    address = reverse("admin:cpm_s3repository_configure", args=[row.pk])
    shown = client.get(address).content.decode()
    form = {
        "encryption": "AES256",
        "kms_key": "",
        "lock_mode": "GOVERNANCE",
        "lock_days": "6",
        "verify_every_days": "2",
    }
    answered = client.post(address, {**form, "verify_depth": "full"})
    again = client.post(address, {**form, "lock_days": "0", "verify_depth": "full"})

    row.refresh_from_db()
    assert said.exit_code == 0 and "Governance" in said.output and "never" in said.output, said.output
    assert wrong.exit_code == 1 and "at least 2 days" in wrong.output
    assert 'value="5"' in shown and answered.status_code == 302
    assert again.status_code == 200 and "at least 2 days" in again.content.decode()
    assert (row.lock_days, row.verify_every_days, row.verify_depth, row.encryption) == (
        6,
        2,
        "full",
        "AES256",
    )
