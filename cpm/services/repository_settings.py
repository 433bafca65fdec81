"""How a S3 repository puts new objects and exports databases, and how often it is verified. Policies choose the storage class themselves."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from django.db import transaction

from cpm.aws.errors import AwsError
from cpm.aws.gateway import client
from cpm.flows.identities import identity_of
from cpm.flows.s3 import repositories as flow
from cpm.lib.errors import ValidationFailed
from cpm.lib.states import Encryption, LockMode, VerifyDepth
from cpm.models import Actor, S3Repository
from cpm.repository.errors import RepositoryError
from cpm.repository.store import PutOptions
from cpm.services import audit, repositories, scope
from cpm.services.blame import blaming, refusal

CHOICES = {"encryption": Encryption, "lock_mode": LockMode, "verify_depth": VerifyDepth}
# A lock that is extended every night must last until the next night is over.
LEAST_LOCK_DAYS = 2
LIMITS = {"lock_days": (0, 36_500), "verify_every_days": (0, 365)}
"""S3 locks objects for a hundred years at most."""
EXPORT = ("export_role_arn", "export_kms_key_id")
ROLE_ARN = re.compile(r"arn:[\w-]+:iam::\d{12}:role/[\w+=,.@/-]{1,512}")
FIELDS = (*CHOICES, *LIMITS, "kms_key", *EXPORT)


def configure(*, actor: Actor, repository: S3Repository, **settings: Any) -> S3Repository:
    """Change what `FIELDS` names; what is left out, or None, stays. Objects that are there already stay as they are.

    A key is tried out on the bucket, and a lock needs a bucket with Object Lock. COMPLIANCE may only become stricter,
    since nobody can take such a lock back. Raises `ValidationFailed`, and `PreconditionFailed` while it is deleted.
    """
    unknown = settings.keys() - set(FIELDS)
    if unknown:
        raise TypeError(f"unknown settings: {', '.join(sorted(unknown))}")
    with transaction.atomic():
        wanted = scope.locked(actor, repositories.RIGHT, repository, "S3 repository")
    repositories.refuse_deleted(wanted)
    _change(wanted, settings)
    _check_bucket(wanted, new_key=bool({"encryption", "kms_key"} & _given(settings)))
    with transaction.atomic():
        row = scope.locked(actor, repositories.RIGHT, repository, "S3 repository")
        repositories.refuse_deleted(row)
        was = audit.state_of(row)
        _change(row, settings)
        row.versioned = row.versioned or wanted.versioned
        row.save(update_fields=[*FIELDS, "versioned"])
        audit.record(actor, "repository.configured", row, before=was, after=audit.state_of(row))
    return row


def _given(settings: dict[str, Any]) -> set[str]:
    return {name for name, value in settings.items() if value is not None}


def _change(row: S3Repository, settings: dict[str, Any]) -> None:
    """Raises `ValidationFailed` for what makes no sense, or may not be any more."""
    was = copy(row)
    given = {name: settings[name] for name in _given(settings)}
    for name, value in given.items():
        setattr(row, name, value)
    # What only had a meaning together with a choice that is taken back goes with it, unless it was given again.
    if "kms_key" not in given and row.encryption != Encryption.KMS:
        row.kms_key = ""
    if "lock_days" not in given and not row.lock_mode:
        row.lock_days = 0
    _check_values(row)
    _check_stricter(was, row)


def _check_values(row: S3Repository) -> None:
    problems: dict[str, list[tuple[str, str]]] = {name: [] for name in FIELDS}
    for name, kind in CHOICES.items():
        if getattr(row, name) not in set(kind):
            known = ", ".join(f"“{one.value}”" for one in kind)
            problems[name].append((f"Choose one of {known}.", "invalid_choice"))
    for name, (least, most) in LIMITS.items():
        if not least <= getattr(row, name) <= most:
            problems[name].append((f"Give a number of days from {least} to {most}.", "out_of_range"))
    if row.kms_key and row.encryption != Encryption.KMS:
        problems["kms_key"].append(("A key is used with the encryption aws:kms only.", "needs_kms"))
    if row.lock_mode and row.lock_days < LEAST_LOCK_DAYS:
        words = f"A lock lasts for at least {LEAST_LOCK_DAYS} days, for it is extended once a day."
        problems["lock_days"].append((words, "lock_days_missing"))
    if row.lock_days and not row.lock_mode:
        words = "Days without a lock mode mean nothing; choose GOVERNANCE or COMPLIANCE."
        problems["lock_mode"].append((words, "lock_mode_missing"))
    if row.export_role_arn and not ROLE_ARN.fullmatch(row.export_role_arn):
        problems["export_role_arn"].append(("Give the ARN of a role, as arn:aws:iam::123456789012:role/export.", "invalid"))
    if row.export_role_arn and not (row.export_kms_key_id or row.kms_key):
        words = "RDS exports encrypted files only: name the key for that, or one for the whole repository."
        problems["export_kms_key_id"].append((words, "required"))
    if any(problems.values()):
        raise ValidationFailed(problems)


def _check_stricter(was: S3Repository, wanted: S3Repository) -> None:
    if was.lock_mode != LockMode.COMPLIANCE:
        return
    problems: dict[str, list[tuple[str, str]]] = {}
    if wanted.lock_mode != LockMode.COMPLIANCE:
        words = "This repository locks in COMPLIANCE mode, which nobody can take back."
        problems["lock_mode"] = [(words, "compliance_stays")]
    elif wanted.lock_days < was.lock_days:
        words = f"In COMPLIANCE mode the {was.lock_days} days may only become more."
        problems["lock_days"] = [(words, "compliance_stays")]
    if problems:
        raise ValidationFailed(problems)


def _check_bucket(row: S3Repository, *, new_key: bool) -> None:
    if row.lock_mode:
        with _refusing("lock_mode"):
            _check_lockable(row)
    if new_key and row.encryption == Encryption.KMS:
        with _refusing("kms_key" if row.kms_key else "encryption"):
            if row.kms_key:
                _check_key(row)
            _try_out(row)


def _check_lockable(row: S3Repository) -> None:
    """Raises `ValidationFailed` for a bucket without Object Lock. Remembers that such a bucket keeps versions."""
    s3 = client(identity_of(row.account, session="cpm-repository"), "s3", row.aws_region)
    try:
        found = s3.call("GetObjectLockConfiguration", Bucket=row.aws_bucket_name)
    except AwsError as error:
        if error.code != "ObjectLockConfigurationNotFoundError":
            raise
        found = {}
    if found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
        message = (
            f"Bucket {row.aws_bucket_name} has no Object Lock. Switch versioning and Object Lock on in S3, without a "
            "default retention, then set the lock here."
        )
        raise ValidationFailed.one("lock_mode", message, "no_object_lock")
    row.versioned = True


def _check_key(row: S3Repository) -> None:
    kms = client(identity_of(row.account, session="cpm-repository"), "kms", row.aws_region)
    found = kms.call("DescribeKey", KeyId=row.kms_key)["KeyMetadata"]
    state, usage = found.get("KeyState", "Enabled"), found.get("KeyUsage", "ENCRYPT_DECRYPT")
    kind = found.get("KeySpec", "SYMMETRIC_DEFAULT")
    if state != "Enabled":
        words = f"Key {row.kms_key} cannot be used: it is in state {state}. Enable it, or choose another one."
        raise ValidationFailed.one("kms_key", words, "key_unusable")
    if (usage, kind) != ("ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT"):
        words = f"Key {row.kms_key} is of kind {kind} for {usage}; S3 encrypts with symmetric keys only."
        raise ValidationFailed.one("kms_key", words, "key_unusable")


def _try_out(row: S3Repository) -> None:
    """Write and read one object as copies would be, and remove it."""
    store = flow.store_of(row)
    key = f"probe/{uuid.uuid4().hex}"
    store.put(key, b"key", options=PutOptions(encryption=row.encryption, kms_key=row.kms_key or None))
    try:
        store.get(key)
    finally:
        store.delete([key])


@contextmanager
def _refusing(field: str) -> Iterator[None]:
    try:
        with blaming(field, account="account", unreadable="account"):
            yield
    except RepositoryError as error:
        if isinstance(error.__cause__, AwsError):
            raise refusal(error.__cause__, field) from error
        raise ValidationFailed.one(field, str(error), "unsuitable") from error
