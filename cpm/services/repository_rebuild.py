"""What a S3 repository holds, recorded again when the database was lost. All it takes is the bucket and a key.

Rebuilding only adds, like that of the catalogue, and may run again at any time. Policies come back disabled and keep
everything. Copies that are recorded can be recovered like any other.
"""

import base64
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.db import transaction

from cpm import permissions
from cpm.aws import gateway
from cpm.aws.errors import AwsError
from cpm.flows.identities import account_number_of, encrypt_secret, identity_of
from cpm.flows.s3 import repositories as flow
from cpm.flows.server import catalogue_scan
from cpm.lib.errors import PreconditionFailed, ValidationFailed
from cpm.lib.names import name_problems
from cpm.lib.secrets import KeyFileError, SecretUnreadable
from cpm.models import Account, Actor, Backup, Policy, S3Repository, ServerSettings
from cpm.repository import manifest
from cpm.repository.errors import Damaged, ObjectMissing, WrongSecret
from cpm.repository.keys import RawKey, Secret
from cpm.repository.repository import CONFIG, Repository, open_repository
from cpm.services import audit, catalogue, repositories, repository_records, scope
from cpm.services.repository_records import FoundCopy, Group, Native, Unusable

RIGHT = catalogue.RIGHT
SESSION = "cpm-rebuild"
# DescribeSnapshots takes so many values in a filter.
ASKED_AT_ONCE = 200


@dataclass
class RebuildResult:
    """What was found and made. `problems` are sentences for the operator."""

    repository: S3Repository
    found: int = 0
    known: int = 0
    policies: int = 0
    backups: int = 0
    copies: int = 0
    problems: list[str] = field(default_factory=list)


def rebuild(
    *,
    actor: Actor,
    account: Account,
    bucket: str,
    region: str,
    folder: str,
    secret: Secret,
    take_over: bool,
    now: datetime,
    name: str = "",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> RebuildResult:
    """Record the repository in that folder, under `name` or the folder's last word, and all that it holds.

    This server gets a key slot of its own. Raises `PermissionDenied` for anybody but root, `ValidationFailed` for a
    place that is wrong, `PreconditionFailed` for a secret that opens nothing, for a repository of another server
    (unless it is to be taken over), and when it cannot be read; an AwsError only for trouble that may pass. Manifests
    that are damaged are among the problems.
    """
    permissions.require(actor, RIGHT)
    row, repository = _opened(actor, account, bucket, region, folder, secret, take_over, name)
    result = RebuildResult(row)
    _tell_of_locks(repository, result)
    groups = _read(repository, result, on_progress)
    accounts = {
        number: one for one in Account.objects.filter(user=row.user_id) if (number := one.account_number)
    }
    accounts.setdefault(account_number_of(account, session=SESSION), account)
    natives = _natives(account, accounts, groups.values(), result)
    with transaction.atomic():
        ServerSettings.objects.select_for_update().get(pk=1)
        catalogue.skip_ids(Backup, max((int(one[0]) for one in groups), default=0))
        catalogue.skip_ids(Policy, _highest_policy(groups.values()))
    for key in sorted(groups, key=lambda key: key[1]):
        _record(Group(row, accounts, groups[key], natives), result, now)
    flow.take_stock(row, repository)
    _audit(actor, row, result)
    return result


def _opened(
    actor: Actor,
    account: Account,
    bucket: str,
    region: str,
    folder: str,
    secret: Secret,
    take_over: bool,
    name: str,
) -> tuple[S3Repository, Repository]:
    row = _row(account, bucket, region, f"{folder.strip('/')}/", name)
    with repositories.refusing():
        s3 = gateway.client(identity_of(row.account, session=SESSION), "s3", row.aws_region)
        repositories.check_place(s3, row)
    with repositories.reading(row):
        try:
            repository = open_repository(flow.store_of(row, session=SESSION), secret)
        except WrongSecret as error:
            raise PreconditionFailed(
                "wrong_secret", f"No key slot of {bucket}/{row.prefix} opens with it: {error}"
            ) from error
        _own(row, repository, take_over)
        if row.pk is None or not _opens(row, repository):
            _adopt(actor, row, repository)
    return row, repository


def _row(account: Account, bucket: str, region: str, prefix: str, name: str) -> S3Repository:
    """The record of that place, or a new one that is not stored. Raises `ValidationFailed`."""
    row = (
        S3Repository.objects.filter(aws_bucket_name=bucket, prefix=prefix)
        .select_related("account", "user")
        .first()
    )
    if row is not None and row.account.user_id != account.user_id:
        raise ValidationFailed.one(
            "folder", f"It is repository {row.name} of {row.user.username} already.", "unique"
        )
    if row is not None:
        repositories.refuse_deleted(row)
    called = name or prefix.rstrip("/").rsplit("/", 1)[-1]
    row = row or S3Repository(
        user=account.user,
        account=account,
        name=called,
        aws_bucket_name=bucket,
        aws_region=region,
        prefix=prefix,
    )
    if name_problems(row.name):
        raise ValidationFailed({"name": name_problems(row.name)})
    return row


def _own(row: S3Repository, repository: Repository, take_over: bool) -> None:
    server, owner = ServerSettings.current().server_id, repository.owner()
    if owner == server:
        return
    if not take_over:
        raise PreconditionFailed(
            "foreign_repository",
            f"The repository belongs to server {owner}. Two servers in one repository would delete each other's copies: "
            "take it over only if that server is gone for good.",
        )
    repository.take_over(server)


def _adopt(actor: Actor, row: S3Repository, repository: Repository) -> None:
    """A key slot of this server's own, and then the record with its key: so the stored key always opens."""
    key = RawKey(os.urandom(repositories.KEY_BYTES))
    repository.add_key(key, repositories.SLOT)
    row.secret = encrypt_secret(base64.b64encode(key.value).decode())
    with transaction.atomic():
        scope.locked(actor, "accounts.read", row.account, "account")
        event = "created" if row.pk is None else "key_rotated"
        repositories.insert(row)
        audit.record(actor, f"repository.{event}", row, after=audit.state_of(row))


def _opens(row: S3Repository, repository: Repository) -> bool:
    """Whether the stored key opens the repository; it does not when the field keys of this server are not the lost one's."""
    try:
        key = flow.key_of(row)
    except (SecretUnreadable, KeyFileError):
        return False
    return any(slot.unwrap(key, repository.id) is not None for slot in repository.slots())


def _tell_of_locks(repository: Repository, result: RebuildResult) -> None:
    until = repository.store.head(CONFIG).retain_until
    if until is not None and not result.repository.lock_mode:
        name = result.repository.name
        result.problems.append(
            f"Objects of {name} are locked until {until:%Y-%m-%d}: set the lock again with `cpm repo set {name} --lock-mode`."
        )


# -- reading ----------------------------------------------------------------------------------------------

Key = tuple[str, str]
"""The former id of a backup and its start."""


def _read(
    repository: Repository, result: RebuildResult, on_progress: Callable[[int, int], None]
) -> dict[Key, list[FoundCopy]]:
    """The copies by their backups. What cannot be read is among the problems."""
    groups: dict[Key, list[FoundCopy]] = defaultdict(list)
    infos = list(repository.store.list(manifest.COPIES))
    for done, info in enumerate(infos, 1):
        try:
            copy = repository.copy(info.key.removeprefix(manifest.COPIES))
            one = repository_records.found(
                copy, _class_of(repository, copy), datetime.fromtimestamp(info.modified, UTC)
            )
            groups[str(one.backup["id"]), str(one.backup["start_time"])].append(one)
        except ObjectMissing:
            continue
        except (Damaged, Unusable) as problem:
            words = str(problem) if isinstance(problem, Damaged) else f"{info.key}: {problem}"
            result.problems.append(f"{words} It is not recorded.")
        on_progress(done, len(infos))
    result.found = len(infos)
    return groups


def _class_of(repository: Repository, copy: manifest.Manifest) -> str:
    """The storage class of an archive's packs; nobody asks for that of a copy."""
    if not copy.draft.archive:
        return ""
    first = next(repository.store.list(copy.draft.area.packs), None)
    return (first.storage_class or "") if first else ""


def _highest_policy(groups: Iterable[list[FoundCopy]]) -> int:
    policies = [group[0].about.get("policy") or {} for group in groups]
    return max((int(policy.get("id") or 0) for policy in policies), default=0)


def _natives(
    account: Account,
    accounts: Mapping[str, Account],
    groups: Iterable[list[FoundCopy]],
    result: RebuildResult,
) -> set[Native]:
    """The snapshots that AWS still has of those that were copied."""
    wanted: dict[tuple[int, str], set[str]] = defaultdict(set)
    holders = {account.pk: account, **{one.pk: one for one in accounts.values()}}
    for one in (one for group in groups for one in group):
        region, aws_id = one.native
        holder = accounts.get(str(one.about["snapshot"].get("aws_account_number") or "")) or account
        if aws_id:
            wanted[holder.pk, region].add(aws_id)
    found: set[Native] = set()
    for (pk, region), ids in sorted(wanted.items()):
        try:
            ec2 = gateway.client(identity_of(holders[pk], session=SESSION), "ec2", region)
            found |= {
                (region, aws_id) for aws_id in catalogue_scan.completed(ec2, sorted(ids), ASKED_AT_ONCE)
            }
        except AwsError as error:
            if error.transient:
                raise
            result.problems.append(
                f"Snapshots in {region} of account {holders[pk].name} count as gone; rebuild again when this is mended: "
                f"{error.explain()}"
            )
    return found


# -- recording --------------------------------------------------------------------------------------------


def _record(group: Group, result: RebuildResult, now: datetime) -> None:
    try:
        with transaction.atomic():
            group.record(now)
    except Unusable as problem:
        result.problems.append(f"{group.where}: {problem}. It is not recorded.")
        return
    result.policies += group.new_policy
    result.backups += group.new_backup
    result.copies += group.copies
    result.known += group.known
    result.problems += group.problems


@transaction.atomic
def _audit(actor: Actor, row: S3Repository, result: RebuildResult) -> None:
    made = {"policies": result.policies, "backups": result.backups, "copies": result.copies}
    text = (
        f"S3 repository “{row.name}” rebuilt from its bucket: {result.policies} policies, {result.backups} backups, "
        f"{result.copies} copies."
    )
    audit.record(
        actor, "repository.rebuilt", row, after={**made, "problems": len(result.problems)}, text=text
    )
