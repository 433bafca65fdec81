"""S3 repositories: made in a bucket of an account, looked after, and deleted with their data."""

import base64
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Q

from cpm import permissions
from cpm.aws import errors as aws_errors
from cpm.aws.errors import AwsError
from cpm.aws.gateway import AwsClient, client
from cpm.flows.identities import encrypt_secret, identity_of
from cpm.flows.s3 import repositories as flow
from cpm.flows.s3 import verification
from cpm.flows.s3.verification import Verification
from cpm.flows.table import QUEUES
from cpm.jobs import queue
from cpm.lib.errors import Conflict, InUse, PreconditionFailed, ValidationFailed
from cpm.lib.names import name_problems
from cpm.lib.secrets import KeyFileError, SecretUnreadable
from cpm.lib.states import DeletionStatus, RecoveryStatus, VerifyDepth, VerifyResult
from cpm.models import Account, Actor, Job, Recovery, S3Repository, ServerSettings
from cpm.repository import errors as engine_errors
from cpm.repository import repository as engine
from cpm.repository.errors import RepositoryError
from cpm.repository.keys import PREFIX as KEYS
from cpm.repository.keys import RawKey
from cpm.repository.store import Store
from cpm.services import audit, regions, scope
from cpm.services.blame import blaming, refusal

log = structlog.get_logger(__name__)

RIGHT = "s3_repositories.change"
FOLDER = "cpm"
SLOT = "server"
"""Name of the key slot that this server opens a repository with."""
KEY_BYTES = 32
DAY = timedelta(days=1)
BUCKET = "aws_bucket_name"
BLAMED: Mapping[type[AwsError], str] = {
    aws_errors.BadCredentials: "account",
    aws_errors.RegionDisabled: "aws_region",
}

# S3 user guide, "General purpose bucket naming rules".
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# What buckets in these two regions say of themselves.
_LOCATIONS = {None: "us-east-1", "": "us-east-1", "EU": "eu-west-1"}
# What a creation that broke off can have left: nothing of it is anybody's data.
_UNFINISHED = (engine.OWNER, engine.CONFIG)
_UNFINISHED_FOLDERS = (KEYS, "probe/")


@transaction.atomic
def create(
    *, actor: Actor, account: int, name: str, aws_bucket_name: str, aws_region: str, description: str = ""
) -> S3Repository:
    """A new repository in its own folder of the bucket, owned by the account's user.

    The account's credentials are tried out on the bucket; whatever is wrong with it raises `ValidationFailed`, and
    nothing stays behind. Raises `NotFound` for an account out of reach, `Conflict` for a name that is taken.
    """
    permissions.require(actor, RIGHT)
    reachable = permissions.visible(actor.user, Account.objects.select_related("user"), RIGHT)
    # Locked, so that the account cannot be deleted meanwhile.
    holder = scope.referred(
        reachable.select_for_update(of=("self",), no_key=True), account, what="account", field="account"
    )
    _check_fields(name, aws_bucket_name, aws_region)
    key = os.urandom(KEY_BYTES)
    row = S3Repository(
        user=holder.user, account=holder, name=name, description=description, aws_bucket_name=aws_bucket_name,
        aws_region=aws_region, prefix=f"{FOLDER}/{name}/", secret=encrypt_secret(base64.b64encode(key).decode()),
    )  # fmt: skip
    if S3Repository.objects.filter(user=holder.user, name=name).exists():
        raise Conflict("unique", "There is a S3 repository with this name already.", field="name")
    with refusing():
        s3 = client(identity_of(holder, session="cpm-repository"), "s3", aws_region)
        check_place(s3, row)
        _check_encryption(s3, row)
        # Whoever creates the same one at this moment waits here for the end of this transaction.
        insert(row)
        _make(row, RawKey(key))
    audit.record(actor, "repository.created", row, after=audit.state_of(row))
    return row


@transaction.atomic
def update(*, actor: Actor, repository: S3Repository, description: str | None = None) -> S3Repository:
    """Changes the description; everything else of a repository is where its data is, and never changes."""
    row = scope.locked(actor, RIGHT, repository, "S3 repository")
    was = audit.state_of(row)
    row.description = row.description if description is None else description
    row.save(update_fields=["description"])
    audit.record(actor, "repository.updated", row, before=was, after=audit.state_of(row))
    return row


@transaction.atomic
def delete(*, actor: Actor, repository: S3Repository, force: bool = False) -> None:
    """Starts the deletion of the data; the record goes with it. With `force` the record goes also when S3 keeps data.

    Raises `InUse` while policies copy to it or recoveries read from it. Repeating it is harmless, and forces a deletion that runs already.
    """
    row = scope.locked(actor, RIGHT, repository, "S3 repository")
    policies = [f"policy {name}" for name in row.policies.order_by("name").values_list("name", flat=True)]
    going = Recovery.objects.filter(
        status=RecoveryStatus.IN_PROGRESS, from_s3=True, backup__s3_copies__repository=row
    )
    recoveries = [f"recovery {pk}" for pk in going.order_by("pk").values_list("pk", flat=True).distinct()]
    if policies or recoveries:
        raise InUse("S3 repository", [*policies, *recoveries])
    running = row.deletion_status == DeletionStatus.IN_PROGRESS
    if running and row.deletion_forced >= force:
        return
    row.deletion_status, row.deletion_forced, row.deletion_error = DeletionStatus.IN_PROGRESS, force, ""
    row.save(update_fields=["deletion_status", "deletion_forced", "deletion_error"])
    how = ", by force" if force else ""
    text = f"Deletion of S3 repository “{row.name}” and its data in {row.aws_bucket_name} requested{how}."
    audit.record(actor, "repository.deleted", row, before=audit.state_of(row), text=text)
    if not running:
        queue.create_jobs([flow.delete_job(row)], engine_queues=QUEUES)


def start_verification(*, actor: Actor, repository: S3Repository, depth: VerifyDepth) -> None:
    """Have a worker verify the repository; the result appears on its record. Raises `PreconditionFailed` while it is
    being deleted."""
    with transaction.atomic():
        row = scope.locked(actor, RIGHT, repository, "S3 repository")
        refuse_deleted(row)
        text = f"Verification of S3 repository “{row.name}” requested: {depth.label.lower()}."
        audit.record(actor, "repository.verification_requested", row, text=text)
        queue.create_jobs([verification.job(row, depth)], engine_queues=verification.QUEUES)


def verify_due(*, now: datetime) -> list[Job]:
    """Start the verifications that are due by the repositories' own settings.

    Any number of processes may call this at once, and as often as they like: a repository has one a day at most.
    """
    with transaction.atomic():
        rows = S3Repository.objects.select_for_update(of=("self",), skip_locked=True, no_key=True)
        waiting = rows.filter(verify_every_days__gt=0, deletion_status=DeletionStatus.NONE)
        due = [row for row in waiting.select_related("account").order_by("pk") if _is_due(row, now)]
        specs = [verification.job(row, VerifyDepth(row.verify_depth)) for row in due]
        return queue.create_jobs(specs, engine_queues=verification.QUEUES) if specs else []


def _is_due(row: S3Repository, now: datetime) -> bool:
    # One that could not be carried out is tried again the next day.
    failed = row.last_verify_result == VerifyResult.FAILED
    wait = DAY if failed else row.verify_every_days * DAY
    if (row.last_verified_at or row.created_at) + wait > now:
        return False
    jobs = Job.objects.filter(kind=verification.KIND, subject_type=verification.SUBJECT, subject_id=row.pk)
    return not jobs.filter(Q(finished_at=None) | Q(created_at__gt=now - DAY)).exists()


def verify(
    *,
    actor: Actor,
    repository: S3Repository,
    depth: VerifyDepth,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verification:
    """Verify it now, in this process. The result stays on the record. Raises `PreconditionFailed` when it cannot be
    read at all."""
    with transaction.atomic():
        row = scope.locked(actor, RIGHT, repository, "S3 repository")
        refuse_deleted(row)
    with reading(row):
        found = verification.check(row, depth, on_progress=on_progress)
    damage = found.report.damage
    with transaction.atomic():
        text = (
            f"S3 repository “{row.name}” verified ({depth.label.lower()}): {len(damage)} objects are damaged."
        )
        audit.record(actor, "repository.verified", row, text=text)
    return found


@contextmanager
def reading(row: S3Repository) -> Iterator[None]:
    """Turns what keeps a repository from being read or changed into `PreconditionFailed`."""
    try:
        yield
    except AwsError as error:
        raise PreconditionFailed("repository_unreachable", error.explain()) from error
    except (RepositoryError, SecretUnreadable, KeyFileError) as error:
        message = f"S3 repository {row.name} in {row.aws_bucket_name}: {error}"
        raise PreconditionFailed("repository_unreadable", message) from error


def refuse_deleted(row: S3Repository) -> None:
    if row.deletion_status == DeletionStatus.IN_PROGRESS:
        raise PreconditionFailed("being_deleted", f"S3 repository {row.name} is being deleted.")


# -- creating ---------------------------------------------------------------------------------------------


def _check_fields(name: str, bucket: str, region: str) -> None:
    problems = {"name": name_problems(name)}
    if not _BUCKET_NAME.fullmatch(bucket):
        words = "A bucket's name has 3 to 63 small letters, digits, dots and dashes, without s3:// before it."
        problems[BUCKET] = [(words, "invalid_bucket")]
    if any(problems.values()):
        raise ValidationFailed(problems)
    regions.require_enabled(region, field="aws_region")


def check_place(s3: AwsClient, row: S3Repository) -> None:
    """The bucket is there, in that region. Remembers whether it keeps versions. Raises `ValidationFailed`, `AwsError`."""
    said = s3.call("GetBucketLocation", Bucket=row.aws_bucket_name).get("LocationConstraint")
    region = _LOCATIONS.get(said, str(said))
    if region != row.aws_region:
        message = (
            f"Bucket {row.aws_bucket_name} is in {region}, not in {row.aws_region}; give its own region."
        )
        raise ValidationFailed.one("aws_region", message, "wrong_region")
    versioning = s3.call("GetBucketVersioning", Bucket=row.aws_bucket_name)
    row.versioned = versioning.get("Status") in ("Enabled", "Suspended")


def _check_encryption(s3: AwsClient, row: S3Repository) -> None:
    try:
        s3.call("GetBucketEncryption", Bucket=row.aws_bucket_name)
    except AwsError as error:
        if error.code != "ServerSideEncryptionConfigurationNotFoundError":
            raise
        message = (
            f"Bucket {row.aws_bucket_name} has no default encryption. Switch it on (SSE-S3 or SSE-KMS), then "
            "create the repository."
        )
        raise ValidationFailed.one(BUCKET, message, "not_encrypted") from error


def insert(row: S3Repository) -> None:
    with (
        scope.name_is_unique("S3 repository", "s3_repository_name_of_user"),
        scope.name_is_unique("S3 repository in this bucket", "s3_repository_place"),
    ):
        row.save()


def _make(row: S3Repository, key: RawKey) -> None:
    """Initialise the engine's repository. If that fails, what was written is removed again."""
    store = flow.store_of(row)
    server = ServerSettings.current().server_id
    _clear_unfinished(row, store)
    try:
        made = engine.create(store, key, owner=server, slot_name=SLOT)
        # As a copy would read it, with the stored key.
        flow.take_stock(row, flow.opened(row))
    except (RepositoryError, AwsError) as error:
        if not isinstance(error, engine_errors.ForeignRepository | engine_errors.RepositoryExists):
            _remove(row, store)
        raise
    log.info("repository made", repository=row.pk, bucket=row.aws_bucket_name, id=made.id.hex())


def _clear_unfinished(row: S3Repository, store: Store) -> None:
    """The folder must be empty, but for what a creation by this very server left when it broke off."""
    where = f"The folder {row.prefix} of bucket {row.aws_bucket_name}"
    owner = flow.owner_of(store)
    if owner is not None and owner != ServerSettings.current().server_id:
        message = (
            f"{where} holds a repository of another server ({owner}). Two servers in one repository would delete each "
            "other's copies: choose another name or another bucket."
        )
        raise ValidationFailed.one("name", message, "foreign_repository")
    keys = [info.key for info in store.list("")]
    strange = [key for key in keys if key not in _UNFINISHED and not key.startswith(_UNFINISHED_FOLDERS)]
    if strange or (keys and owner is None):
        message = (
            f"{where} is not empty: it has {(strange or keys)[0]}. Choose another name, or empty it first."
        )
        raise ValidationFailed.one("name", message, "not_empty")
    if keys:
        _remove(row, store)


def _remove(row: S3Repository, store: Store) -> None:
    """Take everything out of the folder, the owner's mark last."""
    try:
        keys = [info.key for info in store.list("")]
        store.delete([key for key in keys if key != engine.OWNER])
        store.delete([key for key in keys if key == engine.OWNER])
    except (RepositoryError, AwsError) as error:
        log.warning("leftovers not removed", bucket=row.aws_bucket_name, folder=row.prefix, error=str(error))


@contextmanager
def refusing() -> Iterator[None]:
    """Whatever AWS or the store refuses becomes a refusal of the input that led there."""
    try:
        with blaming(BUCKET, account="account", unreadable="account", fields=BLAMED):
            yield
    except RepositoryError as error:
        if isinstance(error.__cause__, AwsError):
            raise refusal(error.__cause__, BUCKET, BLAMED) from error
        field = "name" if isinstance(error, engine_errors.RepositoryExists) else BUCKET
        raise ValidationFailed.one(field, str(error), "unsuitable") from error


def in_reach(actor: Actor) -> Any:
    """The repositories that the actor may see."""
    permissions.require(actor, "s3_repositories.read")
    rows = S3Repository.objects.select_related("account", "user")
    return permissions.visible(actor.user, rows, "s3_repositories.read")
