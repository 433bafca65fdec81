"""S3 repositories in the work of flows: opening one, taking stock of it, deleting it with its data.

Deletion empties the folder of every version of every object, in slices; what says whose folder it is goes last, so
that whoever meets a half-deleted one knows.
"""

import base64
import json
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from cpm.aws.errors import AwsError
from cpm.aws.gateway import AwsClient, client
from cpm.aws.s3_objects import S3Objects
from cpm.flows.cleanup import remains, uses
from cpm.flows.identities import decrypt_secret, identity_of
from cpm.flows.s3 import repository_health
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec, Wait
from cpm.jobs.queue import JobSpec
from cpm.lib.states import DeletionStatus
from cpm.models import S3Copy, S3Repository, ServerSettings
from cpm.repository import manifest
from cpm.repository.errors import Damaged, ForeignRepository, ObjectMissing
from cpm.repository.keys import RawKey
from cpm.repository.repository import CONFIG, OWNER, Repository, Settings, open_repository
from cpm.repository.store import Store
from cpm.repository.store_direct import DirectObjects
from cpm.repository.store_s3 import S3Store

KIND = SUBJECT = "repository"
DELETE = "repository.delete"
QUEUE = "s3"
SLICE_SECONDS = 60.0
PAGE = 1000
LOOKED_AT = 10
"""Of how many refused objects of a page the lock is looked up."""


def delete_job(row: S3Repository) -> JobSpec:
    return JobSpec(KIND, SUBJECT, row.pk, [StepSpec(DELETE)], user_id=row.user_id)


def store_of(row: S3Repository, *, session: str = "cpm-repository") -> Store:
    """The folder of a repository, as its account sees it. Raises what `identity_of` raises, and `AwsError`."""
    objects = S3Objects(identity_of(row.account, session=session), row.aws_region, row.aws_bucket_name)
    return S3Store(DirectObjects(objects, versioned=row.versioned), row.prefix)


def key_of(row: S3Repository) -> RawKey:
    """The raw key that this server opens the repository with. Raises `SecretUnreadable`."""
    return RawKey(base64.b64decode(decrypt_secret(row.secret)))


def opened(
    row: S3Repository, *, session: str = "cpm-repository", storage_class: str = "", archive_class: str = ""
) -> Repository:
    """The repository, which puts new objects as its row says, in that storage class.

    Raises `RepositoryError`, `AwsError`, and what `store_of` raises; `ForeignRepository` when it is another server's.
    """
    settings = Settings(
        storage_class=storage_class or None,
        archive_class=archive_class or None,
        encryption=row.encryption or None,
        kms_key=row.kms_key or None,
        lock_mode=row.lock_mode or None,
        retention=timedelta(days=row.lock_days) if row.lock_mode else None,
    )
    return open_repository(
        store_of(row, session=session),
        key_of(row),
        owner=ServerSettings.current().server_id,
        settings=settings,
    )


def owner_of(store: Store) -> uuid.UUID | None:
    """The server whose folder it is; None where no server has left its mark. Raises `Damaged` for a mark that is none."""
    try:
        return uuid.UUID(json.loads(store.get(OWNER))["server"])
    except ObjectMissing:
        return None
    except (ValueError, KeyError, TypeError):
        raise Damaged(OWNER, "it names no server") from None


def take_stock(row: S3Repository, repository: Repository) -> None:
    """Count what the repository holds and remember it on its row."""
    S3Repository.objects.filter(pk=row.pk).update(
        bytes_stored=sum(info.size for info in repository.store.list("")),
        blocks_stored=len(repository.view(lenient=True).blocks),
        copies_stored=sum(1 for _ in manifest.ids(repository.store)),
        usage_updated_at=timezone.now(),
    )


# -- steps ------------------------------------------------------------------------------------------------


def delete(context: StepContext) -> Outcome:
    """Empty the folder, then forget the repository. What S3 refuses to delete fails the step."""
    row = _row(context)
    if row is None:
        return Done("The repository is gone.")
    if context.cursor is None and _read(row):
        return Wait(30.0, message="A recovery or an explore session is reading copies in this repository.")
    owner = owner_of(store_of(row, session=_session(context)))
    if owner not in (None, ServerSettings.current().server_id):
        raise ForeignRepository(
            f"{row.prefix} of {row.aws_bucket_name} belongs to server {owner} now, so nothing in it was deleted. "
            "Delete the repository by force to forget it here."
        )
    s3 = client(identity_of(row.account, session=_session(context)), "s3", row.aws_region)
    ends = time.monotonic() + SLICE_SECONDS
    state: dict[str, Any] = context.cursor or _fresh(0)
    while time.monotonic() < ends:
        if context.refresh_aborted():
            return Wait(0.0, message="The deletion was asked to stop.")
        page = _page(s3, row, state)
        _delete_page(s3, row, page, state)
        if not page.get("IsTruncated"):
            if state["refused"]:
                return Failed(_refusal(state))
            if state["last"] and not _page(s3, row, _fresh(0)).get("Versions"):
                context.log(f"Repository {row.name} and its {state['deleted']} objects are deleted.")
                return Done(write=lambda: _forget(row, context.now))
            # What identifies the folder comes last; after that, whatever was written meanwhile.
            state = {**_fresh(state["deleted"]), "last": not state["last"]}
        context.save_cursor(state)
        context.progress(0, f"{state['deleted']} objects deleted.")
    return Wait(0.0, message=f"{state['deleted']} objects deleted.")


def _fresh(deleted: int) -> dict[str, Any]:
    return {
        "last": False,
        "deleted": deleted,
        "refused": 0,
        "why": "",
        "locked": "",
        "key": "",
        "version": "",
    }


def _refusal(state: dict[str, Any]) -> str:
    if state["locked"]:
        until = datetime.fromisoformat(state["locked"])
        return (
            f"{state['refused']} objects could not be deleted: they are locked, some until {until:%Y-%m-%d %H:%M} UTC. "
            "Delete the repository again after that."
        )
    return f"{state['refused']} objects could not be deleted. S3 said: {state['why']}"


def _page(s3: AwsClient, row: S3Repository, state: dict[str, Any]) -> dict[str, Any]:
    """Versions from where the last page ended, those of objects that others would hide included."""
    marks = {"KeyMarker": state["key"], "VersionIdMarker": state["version"]}
    wanted = {name: mark for name, mark in marks.items() if mark}
    return s3.call(
        "ListObjectVersions", Bucket=row.aws_bucket_name, Prefix=row.prefix, MaxKeys=PAGE, **wanted
    )


def _delete_page(s3: AwsClient, row: S3Repository, page: dict[str, Any], state: dict[str, Any]) -> None:
    found: Iterable[dict[str, Any]] = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
    doomed = [
        {"Key": one["Key"], "VersionId": one["VersionId"]}
        for one in found
        if state["last"] or not _identifies(one["Key"].removeprefix(row.prefix))
    ]
    if doomed:
        answer = s3.call(
            "DeleteObjects", Bucket=row.aws_bucket_name, Delete={"Objects": doomed, "Quiet": True}
        )
        refused = answer.get("Errors", ())
        state["deleted"] += len(doomed) - len(refused)
        state["refused"] += len(refused)
        if refused:
            first = refused[0]
            state["why"] = f"{first.get('Key')}: {first.get('Code')} {first.get('Message', '')}".strip()
            ends = [_locked_until(s3, row, one) for one in refused[:LOOKED_AT]]
            state["locked"] = max(state["locked"], *ends)
    state["key"], state["version"] = page.get("NextKeyMarker", ""), page.get("NextVersionIdMarker", "")


def _locked_until(s3: AwsClient, row: S3Repository, one: dict[str, Any]) -> str:
    """When the lock of a version ends; empty where none is known."""
    where = {"Bucket": row.aws_bucket_name, "Key": one.get("Key", "")}
    if one.get("VersionId"):
        where["VersionId"] = one["VersionId"]
    try:
        until = s3.call("HeadObject", **where).get("ObjectLockRetainUntilDate")
    except AwsError as error:
        if error.transient:
            raise
        return ""
    return until.astimezone(UTC).isoformat() if until and until > timezone.now() else ""


def _identifies(key: str) -> bool:
    return key in (OWNER, CONFIG) or key.startswith("keys/")


def _deletion_failed(context: StepContext, message: str) -> None:
    """The data is not gone; the record goes only if that was asked for at any price."""
    row = S3Repository.objects.select_for_update().filter(pk=context.subject_id).first()
    if row is None:
        return
    if row.deletion_forced:
        context.warn(
            f"Repository {row.name} is forgotten; data may remain in {row.aws_bucket_name}/{row.prefix}. {message}"
        )
        _forget(row, context.now)
        return
    row.deletion_status, row.deletion_error = DeletionStatus.FAILED, message
    row.save(update_fields=["deletion_status", "deletion_error"])


def _deletion_cancelled(context: StepContext) -> None:
    S3Repository.objects.filter(pk=context.subject_id).update(
        deletion_status=DeletionStatus.FAILED,
        deletion_forced=False,
        deletion_error="The deletion was aborted.",
    )


def _read(row: S3Repository) -> bool:
    """Whether copies in the repository are being read now."""
    living = S3Copy.objects.filter(repository=row, status__in=remains.LIVING)
    return bool(uses.read(set(living.values_list("backup_id", flat=True))))


def _forget(row: S3Repository, now: datetime) -> None:
    """The record goes, and with it what is known of its copies."""
    remains.forget(row, now=now)
    row.delete()
    repository_health.refresh_alert(row.user, now=now)


def _row(context: StepContext) -> S3Repository | None:
    return S3Repository.objects.select_related("account", "user").filter(pk=context.subject_id).first()


def _session(context: StepContext) -> str:
    return f"cpm-job-{context.job_id}"


KINDS = (
    StepKind(DELETE, QUEUE, delete, failed=_deletion_failed, cancelled=_deletion_cancelled),
)
