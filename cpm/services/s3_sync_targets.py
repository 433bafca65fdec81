"""S3 syncs of policies: which bucket is mirrored to where. What could harm the source or another mirror is refused."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack

from django.db import transaction

from cpm.aws import errors as aws_errors
from cpm.aws import gateway
from cpm.aws.errors import AwsError
from cpm.flows.backups import backup_s3_sync
from cpm.lib.errors import ValidationFailed
from cpm.lib.states import SyncStorageClass
from cpm.models import Account, Actor, Policy, Target, User
from cpm.resources import s3_bucket
from cpm.resources.base import Described
from cpm.resources.registry import BY_KEY
from cpm.s3_sync.errors import Unsuitable
from cpm.s3_sync.mirror import Mirror
from cpm.services import audit, regions, scope, targets
from cpm.services.blame import refusal
from cpm.services.targets import RIGHT

KEY = s3_bucket.S3Bucket.key
SOURCE, BUCKET, ACCOUNT = "name", "destination_bucket_name", "destination_account"
PREFIXES = ("source_prefix", "destination_prefix")
LONGEST_PREFIX = 900
"""Bytes. S3 takes keys of 1024, so that something is left for the names behind it."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class SyncOptions(TypedDict, total=False):
    """What may be chosen for a sync; what is left out keeps its value. Without a `destination_account` it is the policy's."""

    source_prefix: str
    destination_account: int | None
    destination_prefix: str
    keep_source_prefix: bool
    delete_extra: bool
    storage_class: SyncStorageClass


DEFAULTS: SyncOptions = {
    "source_prefix": "", "destination_account": None, "destination_prefix": "", "keep_source_prefix": False,
    "delete_extra": False, "storage_class": SyncStorageClass.STANDARD,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A sync as it shall be, looked at in AWS."""

    bucket: Described
    mirror: Mirror
    options: dict[str, Any]


def add(
    *, actor: Actor, policy: Policy, name: str, destination_bucket_name: str, now: datetime, **options: Unpack[SyncOptions]
) -> Target:
    """Has the policy mirror the bucket of that name.

    Raises `ValidationFailed` for buckets that AWS does not show and for what `_check` refuses, `Conflict` when the
    policy mirrors the bucket already, `PreconditionFailed` for an account that cannot be used, `NotFound`.
    """
    current = targets.changeable(actor, policy)
    wanted = _looked_at(current, name, {**DEFAULTS, **options, BUCKET: destination_bucket_name})
    row = Target(policy=current, resource_type=KEY)
    _apply(row, wanted, now)
    with transaction.atomic():
        _settle(actor, row, wanted)
        return targets.insert(actor, row)


def update(
    *, actor: Actor, target: Target, name: str, destination_bucket_name: str, now: datetime, **options: Unpack[SyncOptions]
) -> Target:
    """Changes what is given, also the source. Raises what `add` raises."""
    current = targets.changeable(actor, target.policy)
    wanted = _looked_at(current, name, {**target.options, **options, BUCKET: destination_bucket_name})
    taken = f"{name} is in this policy already."
    with transaction.atomic(), scope.is_unique("target_once_in_policy", field=SOURCE, otherwise=taken):
        row = scope.locked(actor, RIGHT, target, "S3 sync")
        was = audit.state_of(row)
        _apply(row, wanted, now)
        _settle(actor, row, wanted)
        row.save()
        audit.record(actor, "target.updated", row, before=was, after=audit.state_of(row))
    return row


# -- looking ------------------------------------------------------------------------------------------------


def _looked_at(policy: Policy, name: str, options: dict[str, Any]) -> _Wanted:
    """The sync, once all that can be known without a transaction is found good."""
    mirror = _checked(name, options)
    source = targets.identity(policy.account, policy)
    with _refusing(SOURCE):
        bucket = _source(policy, gateway.client(source, "s3", gateway.home_region(source)), name)
        region = regions.require_enabled(bucket.details["region"], field=SOURCE)
        if mirror.delete_extra and mirror.source_base:
            _refuse_empty(gateway.client(source, "s3", region), mirror)
    holder = _account(policy, options[ACCOUNT])
    with _refusing(BUCKET):
        theirs = targets.identity(holder, policy)
        asked = gateway.client(theirs, "s3", gateway.home_region(theirs))
        options["destination_region"] = _destination_region(asked, holder, mirror.destination_bucket)
    options[ACCOUNT] = holder.pk
    options["storage_class"] = SyncStorageClass(options["storage_class"]).value
    return _Wanted(bucket, mirror, options)


def _checked(name: str, options: dict[str, Any]) -> Mirror:
    """Raises `ValidationFailed` for names, prefixes and overlaps that make no mirror."""
    problems: dict[str, list[tuple[str, str]]] = {}
    for field, bucket in ((SOURCE, name), (BUCKET, options[BUCKET])):
        if not re.fullmatch(BY_KEY[KEY].id_pattern, bucket):
            words = "Give the name of a bucket alone, without s3:// before it and a path behind it."
            problems[field] = [(words, "invalid_bucket")]
    for field in PREFIXES:
        if options[field].startswith("/"):
            words = "Keys in S3 begin without a slash; leave it out."
            problems[field] = [(words, "leading_slash")]
        elif len(options[field].encode()) > LONGEST_PREFIX or _CONTROL.search(options[field]):
            words = f"A prefix has {LONGEST_PREFIX} bytes at most, and no control characters."
            problems[field] = [(words, "invalid_prefix")]
    if problems:
        raise ValidationFailed(problems)
    try:
        mirror = backup_s3_sync.mirror_of(name, options)
    except Unsuitable as error:
        raise ValidationFailed.one("destination_prefix", str(error), "overlaps_itself") from error
    if why := backup_s3_sync.why_not(mirror):
        raise ValidationFailed.one("destination_prefix", why, "overlaps_repository")
    return mirror


def _source(policy: Policy, s3: gateway.AwsClient, name: str) -> Described:
    found = BY_KEY[KEY].describe(s3, [name])
    if name not in found:
        message = f"AWS has no S3 bucket {name} that account “{policy.account.name}” can see."
        raise ValidationFailed.one(SOURCE, message, "does_not_exist")
    return found[name]


def _refuse_empty(s3: gateway.AwsClient, mirror: Mirror) -> None:
    """A mistyped prefix looks like an empty source, of which a mirror is empty, too."""
    found = s3.call("ListObjectsV2", Bucket=mirror.source_bucket, Prefix=mirror.source_base, MaxKeys=1)
    if not found.get("KeyCount"):
        message = (
            f"Bucket {mirror.source_bucket} has no object below {mirror.source_base}, and with delete_extra the sync would"
            " empty its destination. Correct the prefix, or put an object there first."
        )
        raise ValidationFailed.one("source_prefix", message, "empty_source")


def _account(policy: Policy, id: int | None) -> Account:
    rows = Account.objects.filter(user=policy.user_id).select_related("assume_from_account")
    return scope.referred(rows, policy.account_id if id is None else id, what="account", field=ACCOUNT)


def _destination_region(s3: gateway.AwsClient, account: Account, bucket: str) -> str:
    try:
        return s3_bucket.region_of(s3, bucket)
    except aws_errors.NotFound as error:
        message = f"AWS has no S3 bucket {bucket} that account “{account.name}” can see."
        raise ValidationFailed.one(BUCKET, message, "does_not_exist") from error


@contextmanager
def _refusing(field: str) -> Iterator[None]:
    """What AWS refuses inside is a mistake in that field."""
    try:
        yield
    except AwsError as error:
        raise refusal(error, field) from error


# -- writing ------------------------------------------------------------------------------------------------


def _apply(row: Target, wanted: _Wanted, now: datetime) -> None:
    row.aws_region, row.aws_resource_id = wanted.bucket.details["region"], wanted.bucket.id
    row.name, row.details = wanted.bucket.id, dict(wanted.bucket.details)
    row.options, row.last_seen_at = wanted.options, now


def _settle(actor: Actor, row: Target, wanted: _Wanted) -> None:
    """What may have changed while AWS was asked, and what others may change at this moment. Needs a transaction."""
    policy = scope.locked(actor, RIGHT, row.policy, "policy")
    # Nobody deletes the account meanwhile, and of two syncs that are made at once the second sees the first.
    rows = Account.objects.select_for_update(of=("self",), no_key=True).filter(user=policy.user_id)
    scope.referred(rows, wanted.options[ACCOUNT], what="account", field=ACCOUNT)
    User.objects.select_for_update().get(pk=policy.user_id)
    for other in _others(policy, row, wanted.mirror.destination_bucket):
        _refuse_overlap(wanted.mirror, other)


def _others(policy: Policy, row: Target, bucket: str) -> Iterator[Target]:
    rows = Target.objects.filter(
        policy__user=policy.user_id, resource_type=KEY, options__destination_bucket_name=bucket
    )
    yield from rows.exclude(pk=row.pk).select_related("policy").order_by("pk")


def _refuse_overlap(mirror: Mirror, target: Target) -> None:
    """Two mirrors in one place are extra objects to each other."""
    other = backup_s3_sync.mirror_of(target.aws_resource_id, target.options)
    ours, theirs = mirror.destination_base, other.destination_base
    if not (mirror.delete_extra or other.delete_extra) or not (ours.startswith(theirs) or theirs.startswith(ours)):
        return
    message = (
        f"The S3 sync of {target.aws_resource_id} in policy “{target.policy.name}” writes to"
        f" {other.destination_bucket}/{theirs}, too, and with delete_extra one would delete what the other has copied."
        " Give each a prefix of its own, or switch delete_extra off for both."
    )
    raise ValidationFailed.one("destination_prefix", message, "overlaps_other")
