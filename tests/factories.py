"""Plain functions that make model rows for tests. Every argument has a default; names are unique by a counter."""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

from django.utils import timezone

from cpm.flows.identities import encrypt_secret
from cpm.lib import secrets
from cpm.lib.states import (
    Authentication,
    BackupStatus,
    ExploreStatus,
    ExploreType,
    JobState,
    Role,
    SnapshotKind,
    SnapshotStatus,
    Tier,
)
from cpm.models import (
    Account,
    Alert,
    ApiKey,
    AuditRecord,
    Backup,
    DisableTime,
    ExploreSession,
    Job,
    LogLine,
    Notification,
    Policy,
    PolicySchedule,
    Recovery,
    Region,
    S3Copy,
    S3Repository,
    Schedule,
    ScriptLog,
    Snapshot,
    Target,
    TargetVolume,
    User,
    WorkerConfiguration,
    WorkerTag,
    WorkerTest,
)
from tests.simulated_aws import SimulatedAws

NOW = datetime(2026, 11, 21, 5, 0, tzinfo=UTC)
_numbers = count(1)
_label: ContextVar[str] = ContextVar("label", default="")


@contextmanager
def labelled(label: str) -> Iterator[None]:
    """What is made inside carries the label in its names and texts, so that answers show whose it is."""
    token = _label.set(label)
    yield
    _label.reset(token)


def _name(kind: str) -> str:
    return f"{_label.get()}{kind}-{next(_numbers)}"


def _text(text: str) -> str:
    return f"{_label.get()} {text}".lstrip()


def user(role: Role = Role.INDEPENDENT, **fields: Any) -> User:
    """A user without a password. For delegates give `original_user`."""
    return User.objects.create(**{"username": _name("user"), "password": "!", "role": role, **fields})


def root(**fields: Any) -> User:
    """The one root user, made if there is none yet."""
    return User.objects.filter(role=Role.ROOT).first() or user(Role.ROOT, **fields)


def delegate(of: User, **fields: Any) -> User:
    return user(Role.DELEGATE, original_user=of, **fields)


def api_key(of: User, **fields: Any) -> str:
    """A fresh API key of the user, in plain text."""
    key = secrets.new_api_key()
    ApiKey.objects.create(
        **{
            "user": of,
            "name": _name("key"),
            "prefix": key[:8],
            "key_hash": secrets.hash_api_key(key),
            **fields,
        }
    )
    return key


def account(of: User | None = None, **fields: Any) -> Account:
    return Account.objects.create(
        **{
            "user": of or user(),
            "name": _name("account"),
            "authentication": Authentication.ASSUME_ROLE,
            "account_number": f"{next(_numbers):012d}",
            "role_name": "cpm",
            **fields,
        }
    )


def schedule(of: User | None = None, **fields: Any) -> Schedule:
    return Schedule.objects.create(
        **{"user": of or user(), "name": _name("schedule"), "start_date": NOW, **fields}
    )


def disable_time(of: Schedule, **fields: Any) -> DisableTime:
    return DisableTime.objects.create(
        **{"schedule": of, "start_time": "22:00", "end_time": "06:00", **fields}
    )


def policy(of: Account | None = None, schedules: tuple[Schedule, ...] = (), **fields: Any) -> Policy:
    """A policy of the account and its user."""
    of = of or account()
    made = Policy.objects.create(**{"user": of.user, "account": of, "name": _name("policy"), **fields})
    PolicySchedule.objects.bulk_create(PolicySchedule(policy=made, schedule=item) for item in schedules)
    return made


def s3_repository(of: Account | None = None, bucket: str = "backups", **fields: Any) -> S3Repository:
    """The record of a repository; nothing is made in S3. Its key opens nothing."""
    of = of or account()
    name = fields.pop("name", _name("repository"))
    return S3Repository.objects.create(
        **{
            "user": of.user,
            "account": of,
            "name": name,
            "description": _text("Copies"),
            "aws_bucket_name": bucket,
            "aws_region": "us-east-1",
            "prefix": f"cpm/{name}/",
            "secret": encrypt_secret(b64encode(bytes(32)).decode()),
            **fields,
        }
    )


def s3_copy(of: Snapshot | None = None, **fields: Any) -> S3Copy:
    """The record of a completed copy of the snapshot, in a repository of its account unless `repository` says else."""
    of = of or snapshot()
    if "repository" not in fields:
        fields["repository"] = s3_repository(of.backup.account)
    return S3Copy.objects.create(
        **{
            "backup": of.backup, "snapshot": of, "copy_id": uuid4().hex, "status": SnapshotStatus.COMPLETED,
            "succeeded": True, "start_time": NOW, "end_time": NOW, **fields,
        }
    )  # fmt: skip


def archived(of: Snapshot) -> None:
    """The copies of the snapshot lie in an archive."""
    S3Copy.objects.filter(snapshot=of).update(tier=Tier.ARCHIVE, archive_id=uuid4().hex, archive_class="GLACIER")


def recovery_from_s3(of: Recovery) -> Job:
    """The recovery runs, from S3; its job."""
    Recovery.objects.filter(pk=of.pk).update(from_s3=True, s3_status="P", status="P")
    return Job.objects.create(
        kind="recovery", subject_type="recovery", subject_id=of.pk, user=of.user, state=JobState.RUNNING
    )


def s3_operation(of: Policy | Backup, kind: str = "s3_copy", **fields: Any) -> Job:
    """A running job that has the policy, or the policy of the backup that is copied, for itself in S3."""
    held = of.policy if isinstance(of, Backup) else of
    assert held
    made = Job.objects.create(
        **{
            "kind": kind, "subject_type": "backup" if isinstance(of, Backup) else kind, "subject_id": of.pk,
            "user": of.user, "state": JobState.RUNNING, **fields,
        }
    )  # fmt: skip
    Policy.objects.filter(pk=held.pk).update(s3_job=made)
    return made


def bucket(
    aws: SimulatedAws, name: str, region: str = "us-east-1", account: str | None = None, **more: Any
) -> str:
    """An empty bucket of the simulated AWS with default encryption."""
    s3 = aws.client("s3", region, account)
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    s3.create_bucket(Bucket=name, **where, **more)
    rules = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
    s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": rules})
    return name


def target(of: Policy | None = None, **fields: Any) -> Target:
    """An instance target unless `resource_type` says otherwise."""
    return Target.objects.create(
        **{
            "policy": of or policy(),
            "resource_type": "instances",
            "aws_region": "us-east-1",
            "aws_resource_id": f"i-{next(_numbers):017x}",
            "name": _name("target"),
            **fields,
        }
    )


def target_volume(of: Target, **fields: Any) -> TargetVolume:
    return TargetVolume.objects.create(
        **{"target": of, "aws_resource_id": f"vol-{next(_numbers):017x}", **fields}
    )


def backup(of: Policy | None = None, **fields: Any) -> Backup:
    """A finished, successful backup of the policy."""
    of = of or policy()
    return Backup.objects.create(
        **{
            "user": of.user,
            "account": of.account,
            "policy": of,
            "policy_name": of.name,
            "account_name": of.account.name,
            "status": BackupStatus.SUCCESSFUL,
            "start_time": NOW,
            "end_time": NOW,
            **fields,
        }
    )


def script_log(of: Backup, **fields: Any) -> ScriptLog:
    return ScriptLog.objects.create(
        **{"backup": of, "title": "before", "log": _text("a line"), "exit_code": 0, **fields}
    )


def snapshot(of: Backup | None = None, kind: SnapshotKind = SnapshotKind.VOLUME, **fields: Any) -> Snapshot:
    """A completed snapshot record of the backup."""
    of = of or backup()
    return Snapshot.objects.create(
        **{
            "backup": of,
            "kind": kind,
            "resource_type": "instances" if kind == SnapshotKind.INSTANCE else "volumes",
            "account": of.account,
            "account_name": of.account_name,
            "aws_account_number": of.account.account_number if of.account else "",
            "region": "us-east-1",
            "aws_id": f"snap-{next(_numbers):017x}",
            "source_id": f"vol-{next(_numbers):017x}",
            "status": SnapshotStatus.COMPLETED,
            "succeeded": True,
            "start_time": NOW,
            "end_time": NOW,
            **fields,
        }
    )


def recovery(of: Snapshot | None = None, **fields: Any) -> Recovery:
    of = of or snapshot()
    return Recovery.objects.create(
        **{
            "user": of.backup.user,
            "account": of.account,
            "policy": of.backup.policy,
            "backup": of.backup,
            "snapshot": of,
            "recovery_type": "V",
            "recovery_time": NOW,
            "backup_time": of.backup.start_time,
            **fields,
        }
    )


def explore_session(of: Snapshot | None = None, **fields: Any) -> ExploreSession:
    """An open session over the snapshot of a volume."""
    of = of or snapshot(capacity=1)
    now = timezone.now()
    return ExploreSession.objects.create(
        **{
            "user": of.backup.user,
            "backup": of.backup,
            "account": of.account,
            "name": _name("session"),
            "explore_type": ExploreType.INDEPENDENT_VOLUMES,
            "status": ExploreStatus.OPEN,
            "volume_ids": [of.source_id],
            "snapshots": [of.pk],
            "start_time": now,
            "expires_at": now + timedelta(days=1),
            **fields,
        }
    )


def alert(of: User | None = None, **fields: Any) -> Alert:
    return Alert.objects.create(
        **{
            "user": of or user(),
            "category": _name("category"),
            "severity": "W",
            "title": _text("Something is wrong"),
            "message_body": _text("This is what happened."),
            "alert_time": NOW,
            **fields,
        }
    )


def audit_record(by: User | None = None, **fields: Any) -> AuditRecord:
    """A record of something that this user has changed."""
    by = by or user()
    original = by.original_user
    return AuditRecord.objects.create(
        **{
            "event_type": "policy.updated",
            "log": "Policy “web” changed: generations 7 → 10.",
            "user_id": by.pk,
            "username": by.username,
            "user_type": by.role,
            "original_user_id": original.pk if original else None,
            "original_username": original.username if original else "",
            "owner_id": by.environment.pk,
            "source": "192.0.2.1",
            "subject_type": "policy",
            **fields,
        }
    )


def notification(of: User | None = None, **fields: Any) -> Notification:
    """Settings that send nothing, by the server's role."""
    return Notification.objects.create(
        **{
            "user": of or user(),
            "authentication": Authentication.SERVER_ROLE,
            "region": "us-east-1",
            **fields,
        }
    )


def log_line(subject_type: str, subject_id: int | None, message: str = "A line.", **fields: Any) -> LogLine:
    return LogLine.objects.create(
        **{"subject_type": subject_type, "subject_id": subject_id, "message": _text(message), "time": NOW, **fields}
    )


def worker_configuration(of: Account | None = None, **fields: Any) -> WorkerConfiguration:
    """Workers in us-east-1, without a proxy."""
    of = of or account()
    if "region" not in fields:
        fields["region"] = Region.objects.get_or_create(aws_region="us-east-1", defaults={"disp_name": "Virginia"})[0]
    return WorkerConfiguration.objects.create(
        **{
            "user": of.user,
            "account": of,
            "aws_vpc": "vpc-0123456789abcdef0",
            "aws_security_group": "sg-0123456789abcdef0",
            **fields,
        }
    )


def worker_tag(of: Account | None = None, **fields: Any) -> WorkerTag:
    return WorkerTag.objects.create(
        **{"account": of or account(), "key": _name("key"), "value": _text("value"), **fields}
    )


def worker_test(of: WorkerConfiguration | None = None, **fields: Any) -> WorkerTest:
    """A test that has just begun."""
    return WorkerTest.objects.create(
        **{"configuration": of or worker_configuration(), "start_time": NOW, "details": "", **fields}
    )
