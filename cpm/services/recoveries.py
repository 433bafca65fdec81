"""Recoveries: bringing instances and volumes back from a backup, and the records of it."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction

from cpm import permissions
from cpm.flows import whole
from cpm.flows.identities import encrypt_secret
from cpm.flows.recoveries import database_password, recover
from cpm.flows.s3.restore_plan import copies_of
from cpm.jobs import queue
from cpm.lib.errors import Conflict, PreconditionFailed, ValidationFailed
from cpm.lib.states import CopyStatus, RecoveryStatus, RecoveryType, SnapshotKind
from cpm.models import Actor, Job, Recovery, Snapshot
from cpm.resources.rds_database import RdsDatabase
from cpm.resources.registry import DR_KINDS
from cpm.services import (
    audit,
    database_recovery_checks,
    recovery_checks,
    s3_recovery_checks,
    scope,
    whole_recovery_checks,
)

START, DELETE, ABORT_FROM_S3 = "recoveries.start", "recoveries.delete", "s3_operations.abort"
GOING = (CopyStatus.INITIALIZING, CopyStatus.IN_PROGRESS)
Request = Mapping[str, Any]


def recover_volume(
    *, actor: Actor, snapshot: Snapshot, request: Request, credentials: Mapping[str, str] | None, now: datetime
) -> Recovery:
    """Make a new volume from the snapshot of a volume or its DR copy, and attach it if asked to.

    Raises PreconditionFailed when the backup cannot be recovered from, ValidationFailed for what makes no sense.
    """
    if snapshot.kind not in {SnapshotKind.VOLUME, SnapshotKind.DR_VOLUME}:
        raise PreconditionFailed("not_a_volume", "This record is not the snapshot of a volume.")
    permissions.require(actor, START)
    recovery_checks.recoverable(snapshot)
    problems = recovery_checks.Problems()
    where = recovery_checks.target(actor, snapshot, request, problems)
    recovery_checks.volume(snapshot, request, where["target_region"], problems)
    problems.raise_any()
    kept = {**_given(request), **where, "preserve_tags": request.get("preserve_tags", True)}
    return _start(actor, snapshot, RecoveryType.VOLUME, kept, credentials, now)


def recover_instance(
    *, actor: Actor, snapshot: Snapshot, request: Request, credentials: Mapping[str, str] | None, now: datetime
) -> Recovery:
    """Launch the instance of a backup again, or as many as asked for; what is not said is as it was.

    Raises PreconditionFailed when the backup cannot be recovered from, ValidationFailed for what makes no sense.
    """
    if snapshot.kind != SnapshotKind.INSTANCE:
        raise PreconditionFailed("not_an_instance", "This record is not that of an instance.")
    permissions.require(actor, START)
    recovery_checks.recoverable(snapshot)
    problems = recovery_checks.Problems()
    where = recovery_checks.target(actor, snapshot, request, problems)
    recovery_checks.instance(snapshot, request, where["target_region"], problems)
    problems.raise_any()
    kept = {
        **_given(request),
        **where,
        "restore_from": recovery_checks.restore_from(snapshot, request),
        "num_instances_to_recover": request.get("num_instances_to_recover", 1),
        "preserve_tags": request.get("preserve_tags", True),
    }
    return _start(actor, snapshot, RecoveryType.INSTANCE, kept, credentials, now)


def recover_whole(
    *, actor: Actor, snapshot: Snapshot, request: Request, credentials: Mapping[str, str] | None, now: datetime
) -> Recovery:
    """Make a database, cluster, table or file system again from its snapshot or DR copy; never over the original.

    Raises PreconditionFailed when the backup cannot be recovered from or AWS cannot be asked, ValidationFailed for what
    makes no sense or what AWS has no room for (a name that is taken, a class or subnet group that does not exist).
    """
    permissions.require(actor, START)
    kind = whole_recovery_checks.type_of(snapshot)
    whole_recovery_checks.recoverable(snapshot)
    problems = recovery_checks.Problems()
    where = recovery_checks.target(actor, snapshot, request, problems)
    problems.add_all(kind.problems(whole.held(snapshot), request))
    problems.raise_any()
    problems.add_all(whole_recovery_checks.preflight(snapshot, request, where, credentials))
    problems.raise_any()
    return _start(actor, snapshot, kind.recovery_type, {**_given(request), **where}, credentials, now)


def recover_volume_from_s3(
    *, actor: Actor, snapshot: Snapshot, request: Request, credentials: Mapping[str, str] | None, now: datetime
) -> Recovery:
    """Make a new volume from the copy of a volume's snapshot in S3, and attach it if asked to.

    Works when the snapshot itself is gone, for volumes of instances and for others alike. Raises what
    `recover_volume` raises.
    """
    if snapshot.kind != SnapshotKind.VOLUME:
        raise PreconditionFailed("not_a_volume", "This record is not the snapshot of a volume.")
    permissions.require(actor, START)
    s3_recovery_checks.recoverable(snapshot, request)
    problems = recovery_checks.Problems()
    where = s3_recovery_checks.target(actor, snapshot, request, problems)
    recovery_checks.volume(snapshot, request, where["target_region"], problems)
    s3_recovery_checks.check(snapshot, request, where, problems)
    problems.raise_any()
    given = s3_recovery_checks.kept(_given(request))
    kept = {**given, **where, "preserve_tags": request.get("preserve_tags", True)}
    return _start(actor, snapshot, RecoveryType.VOLUME, kept, credentials, now, from_s3=True)


def recover_instance_from_s3(
    *, actor: Actor, snapshot: Snapshot, request: Request, credentials: Mapping[str, str] | None, now: datetime
) -> Recovery:
    """Launch the instance of a backup again, its volumes from their copies in S3. Raises what `recover_instance` raises."""
    if snapshot.kind != SnapshotKind.INSTANCE:
        raise PreconditionFailed("not_an_instance", "This record is not that of an instance.")
    permissions.require(actor, START)
    s3_recovery_checks.recoverable(snapshot, request)
    request = {**request, "restore_from": recovery_checks.restore_from(snapshot, request, copies_of)}
    problems = recovery_checks.Problems()
    where = s3_recovery_checks.target(actor, snapshot, request, problems)
    recovery_checks.instance(snapshot, request, where["target_region"], problems)
    s3_recovery_checks.check(snapshot, request, where, problems)
    problems.raise_any()
    kept = {
        **s3_recovery_checks.kept(_given(request)),
        **where,
        "num_instances_to_recover": request.get("num_instances_to_recover", 1),
        "preserve_tags": request.get("preserve_tags", True),
    }
    return _start(actor, snapshot, RecoveryType.INSTANCE, kept, credentials, now, from_s3=True)


def recover_database_from_s3(
    *, actor: Actor, snapshot: Snapshot, request: Request, credentials: Mapping[str, str] | None, now: datetime
) -> Recovery:
    """Bring a database back from its copy in S3: its files into a bucket, or its rows into a new PostgreSQL database.

    The password of that is kept encrypted until the recovery is over. Raises what `recover_whole` raises.
    """
    if snapshot.kind != RdsDatabase.kind:
        raise PreconditionFailed("not_a_database", "This record is not the snapshot of an RDS database.")
    permissions.require(actor, START)
    s3_recovery_checks.recoverable(snapshot, request)
    problems = recovery_checks.Problems()
    where = s3_recovery_checks.target(actor, snapshot, request, problems)
    database_recovery_checks.check(snapshot, request, problems)
    problems.raise_any()
    if not request.get("export_bucket"):
        problems.add_all(whole_recovery_checks.preflight(snapshot, request, where, credentials))
        problems.raise_any()
    given = _given(request)
    secret = {name: given.pop(name, "") for name in (database_password.FIELD,)}
    kept = {**given, **where, "preserve_tags": request.get("preserve_tags", True)}
    return _start(
        actor, snapshot, RecoveryType.RDS_DATABASE, kept, credentials, now, from_s3=True, more_secrets=secret
    )


def abort(*, actor: Actor, recovery: Recovery) -> None:
    """Stop a running recovery; what it has made is removed. Raises PreconditionFailed if it is over."""
    permissions.require(actor, START)
    with transaction.atomic():
        if not _stop(actor, recovery):
            raise PreconditionFailed("not_running", "The recovery is not running.")


def abort_from_s3(*, actor: Actor, recovery: Recovery) -> None:
    """Stop a running recovery from S3, as those may who run operations in S3. Raises `Conflict` if it is none, or over.

    One that has been asked to stop already is asked again without harm.
    """
    with transaction.atomic():
        row = scope.locked(actor, ABORT_FROM_S3, recovery, "recovery")
        if not row.from_s3:
            raise Conflict("not_from_s3", f"Recovery {row.pk} does not recover from S3.")
        if not _stop(actor, row) and row.status != RecoveryStatus.IN_PROGRESS:
            raise Conflict("not_running", f"Recovery {row.pk} is not running.")


def _stop(actor: Actor, recovery: Recovery) -> bool:
    """Ask the recovery's job to stop; whether it was open and had not been asked."""
    job = Job.objects.filter(kind=recover.KIND, subject_type=recover.SUBJECT, subject_id=recovery.pk).first()
    if job is None or not queue.request_abort(job.pk):
        return False
    for status in ("s3_status", "retrieve_status"):
        going = Recovery.objects.filter(pk=recovery.pk, from_s3=True, **{f"{status}__in": GOING})
        going.update(**{status: CopyStatus.ABORTING})
    audit.record(actor, "recovery.aborted", recovery, text=f"Recovery {recovery.pk} asked to stop.")
    return True


def delete(*, actor: Actor, recovery: Recovery) -> None:
    """Delete the record of a recovery that is over; never what it has recovered."""
    with transaction.atomic():
        row = scope.locked(actor, DELETE, recovery, "recovery")
        if row.status == RecoveryStatus.IN_PROGRESS:
            raise PreconditionFailed("recovery_running", "The recovery is running; its record is still needed.")
        text = f"Record of recovery {row.pk} deleted."
        audit.record(actor, "recovery.deleted", row, before=audit.state_of(row), text=text)
        row.delete()


def _given(request: Request) -> dict[str, Any]:
    """The request without what is not said and without credentials, which are never stored."""
    return {key: value for key, value in request.items() if value is not None and key != "credentials"}


def _start(
    actor: Actor,
    snapshot: Snapshot,
    kind: RecoveryType,
    request: dict[str, Any],
    credentials: Mapping[str, str] | None,
    now: datetime,
    *,
    from_s3: bool = False,
    more_secrets: Mapping[str, str] | None = None,
) -> Recovery:
    secret = _secret(credentials, more_secrets or {})
    backup = snapshot.backup
    with transaction.atomic():
        recovery = Recovery.objects.create(
            user=backup.user,
            account=backup.account,
            policy=backup.policy,
            backup=backup,
            snapshot=snapshot,
            recovery_type=kind,
            from_dr=snapshot.kind in DR_KINDS,
            from_s3=from_s3,
            request=request,
            recovery_time=now,
            backup_time=backup.start_time,
            frozen_item_name=backup.name if backup.is_freezer_item else "",
        )
        queue.create_jobs([recover.job(recovery, secret=secret)], engine_queues=recover.QUEUES)
        what = f"{snapshot.source_id} from backup {backup.pk} of policy “{backup.policy_name}”"
        audit.record(
            actor,
            "recovery.started",
            recovery,
            after=audit.state_of(recovery),
            text=f"Recovery {recovery.pk} of {what} started.",
        )
    return recovery


def _secret(credentials: Mapping[str, str] | None, more: Mapping[str, str]) -> str:
    """What is secret as a text that only this server can read; it is erased when the job is over."""
    others = {name: value for name, value in more.items() if value}
    if not credentials or not any(credentials.values()):
        return encrypt_secret(json.dumps(others)) if others else ""
    given = {name: credentials.get(name) or "" for name in ("aws_access_key", "aws_secret_key")}
    missing = [name for name, value in given.items() if not value]
    if missing:
        raise ValidationFailed({"credentials": [(f"{name} is missing.", "required") for name in missing]})
    return encrypt_secret(json.dumps({**others, **given}))
