"""What a request to recover from S3 must fulfil beyond what every recovery must."""

import re
from collections.abc import Mapping
from typing import Any

from cpm.flows.recoveries import recover_instance_volumes
from cpm.flows.s3 import restore_plan
from cpm.lib.errors import PreconditionFailed
from cpm.lib.states import DeletionStatus, RetrievalTier, SnapshotKind, SnapshotStatus, Tier
from cpm.models import Account, Actor, Region, S3Copy, Snapshot
from cpm.services import recovery_checks
from cpm.services.recovery_checks import Problems

LONGEST_STAY = 365
_KEY_NAME = re.compile(r"[\w-]{8,64}|alias/[\w/-]{1,250}")
_WORKER_IDS = {
    "aws_vpc": re.compile(r"vpc-[0-9a-f]{8,17}"),
    "aws_security_group": re.compile(r"sg-[0-9a-f]{8,17}"),
    "aws_subnet": re.compile(r"(subnet-[0-9a-f]{8,17})?"),
}
_PASSWORD = "http_proxy_password_encrypted"  # noqa: S105 (the name of a field)


def recoverable(snapshot: Snapshot, request: Mapping[str, Any]) -> None:
    """Raise PreconditionFailed unless there is a readable copy in S3 of all that cannot be left out.

    That is a volume; of an instance, its root volume and what the request names. Other volumes that were never copied are
    left out with a warning, but not those whose copies cannot be read. Whether the backup's own snapshots still exist does
    not matter, and so neither does the status of the backup.
    """
    recovery_checks.finished(snapshot)
    rows = wanted(snapshot, request)
    of_instance, root = snapshot.kind == SnapshotKind.INSTANCE, snapshot.details.get("aws_root_device")
    if of_instance and not any(row.device == root for row in rows):
        raise PreconditionFailed(
            "not_in_s3", f"This backup has no copy of the root volume of {snapshot.source_id}."
        )
    for row in rows:
        if restore_plan.copies_of(row):
            continue
        if problem := _unreadable(row):
            raise PreconditionFailed(*problem)
        if not of_instance or row.device == root or request.get("instance_volumes"):
            more = " Its other volumes can be recovered one by one." if of_instance and row.device == root else ""
            raise PreconditionFailed(
                "not_in_s3", f"This backup has no complete copy of {row.source_id} in S3.{more}"
            )


def wanted(snapshot: Snapshot, request: Mapping[str, Any]) -> list[Snapshot]:
    """The records of the volumes that a request means, the root volume of an instance always among them."""
    if snapshot.kind != SnapshotKind.INSTANCE:
        return [snapshot]
    root, listed = snapshot.details.get("aws_root_device"), request.get("instance_volumes")
    rows = recover_instance_volumes.rows_of(snapshot)
    return [
        row
        for row in rows
        if not listed or row.device == root or recover_instance_volumes.override_of(row, request) is not None
    ]


def _unreadable(row: Snapshot) -> tuple[str, str] | None:
    """Code and words for a volume that has been copied, but whose copies cannot be read; None if it never was."""
    copies = list(S3Copy.objects.filter(snapshot=row, succeeded=True).select_related("repository"))
    living = [
        copy for copy in copies if copy.status == SnapshotStatus.COMPLETED and copy.repository is not None
    ]
    if any(one.repository and one.repository.deletion_status == DeletionStatus.IN_PROGRESS for one in living):
        return (
            "repository_deleted",
            f"The repository that holds the copy of {row.source_id} is being deleted.",
        )
    if living:
        return "copy_damaged", (
            f"The copy of {row.source_id} in S3 is damaged: verify the repository, or recover another backup. The volumes of"
            " an instance that are whole can be chosen with instance_volumes, unless it is the root volume."
        )
    return ("copy_deleted", f"The copy of {row.source_id} in S3 was deleted.") if copies else None


def target(
    actor: Actor, snapshot: Snapshot, request: Mapping[str, Any], problems: Problems
) -> dict[str, Any]:
    """The account and region to recover to. `region` is the name of a region, where `to_region` is an id."""
    where = recovery_checks.target(actor, snapshot, request, problems)
    name = request.get("region")
    if name:
        if Region.objects.filter(aws_region=name, enabled=True).exists():
            where["target_region"] = name
        else:
            problems.add("region", f"There is no region {name}.", "not_found")
    return where


def check(
    snapshot: Snapshot, request: Mapping[str, Any], where: Mapping[str, Any], problems: Problems
) -> None:
    """Checks of the fields that only 7.45 and 7.68 have. `where` is what `target` has found."""
    _keys(request, where, problems)
    retrieval(snapshot, request, problems)
    _worker(request.get("worker_configuration") or {}, problems)
    account = request.get("from_account")
    if account is not None and account != snapshot.account_id:
        problems.add(
            "from_account", "The copies in S3 are those of the account that was backed up.", "not_offered"
        )


def kept(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request without the password of a proxy, which is not stored."""
    worker = request.get("worker_configuration")
    if not worker:
        return dict(request)
    return {**request, "worker_configuration": {k: v for k, v in worker.items() if k != _PASSWORD}}


def _keys(request: Mapping[str, Any], where: Mapping[str, Any], problems: Problems) -> None:
    key, region = request.get("encryption_key"), where["target_region"]
    if not key:
        return
    arn = restore_plan.KEY_ARN.fullmatch(key)
    if arn is None and not _KEY_NAME.fullmatch(key):
        problems.add("encryption_key", "Must be the ARN, the id or the alias (alias/…) of a KMS key.")
    elif arn is not None and arn["region"] != region:
        problems.add(
            "encryption_key", f"This key is one of {arn['region']}, not of {region}.", "wrong_region"
        )
    elif arn is not None and arn["key"].startswith("alias/") and _elsewhere(arn["account"], where):
        words = "An alias of another account cannot be used; give the ARN of the key that it stands for."
        problems.add("encryption_key", words, "wrong_account")
    if request.get("use_default_volume_encryption_keys"):
        problems.add("encryption_key", "Either a key or the default keys, not both.")


def _elsewhere(number: str, where: Mapping[str, Any]) -> bool:
    """Whether that is not the number of the account to recover to; False while that one's is not known."""
    target = Account.objects.filter(pk=where["target_account"]).values_list("account_number", flat=True).first()
    return bool(target) and target != number


def retrieval(snapshot: Snapshot, request: Mapping[str, Any], problems: Problems) -> None:
    options = request.get("retrieve_options")
    if not options:
        return
    copies = [found[0] for row in wanted(snapshot, request) if (found := restore_plan.copies_of(row))]
    archived = [copy for copy in copies if copy.tier == Tier.ARCHIVE]
    if not archived:
        words = "The copies of this backup are not archived; nothing is to be retrieved."
        problems.add("retrieve_options", words, "not_archived")
    tier, days = options.get("retrieval_tier"), options.get("days_to_keep")
    if tier not in set(RetrievalTier):
        problems.add("retrieve_options.retrieval_tier", "Must be E, S or B.", "invalid_choice")
    elif not all(restore_plan.fits_tier(tier, copy.archive_class) for copy in archived):
        words = "S3 has no expedited retrieval from Deep Archive; choose S or B."
        problems.add("retrieve_options.retrieval_tier", words, "not_offered")
    if days is not None and not 1 <= days <= LONGEST_STAY:
        problems.add("retrieve_options.days_to_keep", f"Must be 1 to {LONGEST_STAY}.")


def _worker(worker: Mapping[str, Any], problems: Problems) -> None:
    if not worker:
        return
    for field, pattern in _WORKER_IDS.items():
        given = worker.get(field) or ""
        if not pattern.fullmatch(str(given)):
            problems.add(f"worker_configuration.{field}", f"“{given}” is not the id of such a resource.")
    for field in ("http_proxy_address", "http_proxy_port"):
        if worker.get("requires_http_proxy") and not worker.get(field):
            problems.add(f"worker_configuration.{field}", "Needed for a proxy.", "required")
