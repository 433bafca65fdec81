"""Planning a recovery from S3: which copies are read, and the steps that make temporary snapshots of them.

For every volume [retrieve from the archive] -> write a snapshot at the target. What comes after works with these
snapshots as with copies on the way of any other recovery, and they are removed like those.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cpm.aws.errors import AwsError
from cpm.aws.gateway import AwsClient
from cpm.flows import polling
from cpm.flows.dr import dr_keys
from cpm.flows.recoveries.recover_base import Place, account_number, aws, refused
from cpm.flows.recoveries.recover_sources import Ready, Source
from cpm.flows.s3 import operation
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import StepSpec, Wait
from cpm.lib import places
from cpm.lib.states import (
    ArchiveClass,
    CopyStatus,
    DeletionStatus,
    KeyDetection,
    RetrievalTier,
    SnapshotStatus,
    Tier,
)
from cpm.models import Recovery, S3Copy, ServerSettings, Snapshot

WRITE, RETRIEVE = "recover.s3_write", "recover.s3_retrieve"
FILES, LOAD = "recover.s3_files", "recover.s3_load"
READS = (WRITE, FILES, LOAD)
"""The steps that read copies: volumes, files of an exported database, rows of one."""
DAYS_TO_KEEP = 7
"""How long what is retrieved from an archive stays readable, unless the request says otherwise."""
KEY_ARN = re.compile(
    r"arn:[\w-]+:kms:(?P<region>[\w-]+):(?P<account>\d{12}):(?P<key>key/[\w-]{1,64}|alias/[\w/-]{1,250})"
)


@dataclass(frozen=True, slots=True)
class Restored:
    """A volume as it will be at the target, and the steps that bring it there."""

    source: Source
    ready: Ready
    copy: S3Copy


def copies_of(row: Snapshot) -> list[S3Copy]:
    """The copies of a volume's snapshot that can be read, those outside of archives first, then the newest."""
    found = S3Copy.objects.filter(
        snapshot=row, status=SnapshotStatus.COMPLETED, succeeded=True, damaged=False, repository__isnull=False
    )
    usable = found.exclude(repository__deletion_status=DeletionStatus.IN_PROGRESS).select_related(
        "repository__account"
    )
    return sorted(usable, key=lambda copy: (copy.tier == Tier.ARCHIVE, -copy.pk))


def turn(context: StepContext, recovery: Recovery) -> Wait | None:
    """Take the policy for this recovery; a Wait while another operation in S3 has it. Raises `LeaseLost`.

    Frozen backups belong to nobody's cycle any more, nor do those whose policy is gone: they wait for nothing.
    """
    if recovery.policy is None or (recovery.backup is not None and recovery.backup.is_freezer_item):
        return None
    holder = operation.take(context, recovery.policy)
    if holder is None:
        return None
    running = f"{holder.kind} (job {holder.pk}, {holder.subject_type} {holder.subject_id})"
    words = (
        f"Waiting: {running} works in S3 for policy “{recovery.policy.name}”, and only one may at a time. To go on at once,"
        " abort that."
    )
    if context.cursor != holder.pk:
        context.log(words)
        context.save_cursor(holder.pk)
    return polling.again(context.now, message=words)


def choose(
    context: StepContext, recovery: Recovery, rows: Sequence[Snapshot], target: Place
) -> dict[int, Restored]:
    """For each record of a volume its copy and the steps that write it to the target, by the record's id.

    Raises PreconditionFailed when one has no copy, or no key may be used for it.
    """
    place = places.at(account_number(context, target.account), target.region)
    chosen: dict[int, Restored] = {}
    archived = 0
    for index, row in enumerate(rows):
        copies = copies_of(row)
        if not copies:
            raise refused(f"No copy of {row.source_id} in S3 can be read.")
        copy = copies[0]
        name = f"s3-{row.pk}"
        payload = {
            "name": name,
            "account": target.account,
            "region": target.region,
            "copy": copy.pk,
            "original": row.source_id,
            "index": index,
            "encryption": _encryption(context, row, target, recovery.request),
        }
        specs = [StepSpec(WRITE, payload, key=name, place=place)]
        if copy.tier == Tier.ARCHIVE:
            specs = retrieved_first(recovery, specs[0], archived)
            archived += 1
        source = Source(row, target, {"VolumeSize": row.capacity})
        chosen[row.pk] = Restored(source, Ready({"step": name}, tuple(specs)), copy)
    return chosen


def begun(recovery: Recovery, chosen: Mapping[int, Restored]) -> None:
    """Show on the record that its volumes are coming. Belongs into the transaction that plans the steps."""
    if chosen:
        shown(recovery, [one.copy for one in chosen.values()])


def shown(recovery: Recovery, copies: Sequence[S3Copy]) -> None:
    """Show on the record that what these copies hold is coming. Belongs into the transaction that plans the steps."""
    archived = sum(copy.tier == Tier.ARCHIVE for copy in copies)
    Recovery.objects.filter(pk=recovery.pk).exclude(s3_status=CopyStatus.ABORTING).update(
        s3_status=CopyStatus.INITIALIZING,
        s3_progress=[0] * len(copies),
        retrieve_status=CopyStatus.INITIALIZING if archived else CopyStatus.NOT_STARTED,
        retrieve_progress=[0] * archived,
    )


def retrieved_first(recovery: Recovery, write: StepSpec, index: int) -> list[StepSpec]:
    options = recovery.request.get("retrieve_options") or {}
    payload = {
        "copy": write.payload["copy"],
        "original": write.payload["original"],
        "index": index,
        "tier": RetrievalTier(options.get("retrieval_tier") or RetrievalTier.STANDARD).value,
        "days": options.get("days_to_keep") or DAYS_TO_KEEP,
    }
    key = f"retrieve-{write.key}"
    return [StepSpec(RETRIEVE, payload, key=key), replace(write, after=(*write.after, key))]


# -- keys -------------------------------------------------------------------------------------------------


def _encryption(
    context: StepContext, row: Snapshot, target: Place, request: Mapping[str, Any]
) -> dict[str, Any]:
    """How the snapshot is encrypted: with the key asked for, the region's default one, or like the original."""
    given = request.get("encryption_key")
    if given:
        return _with(_arn(context, target, given))
    if not row.encrypted:
        return {}
    key = row.details.get("kms_key_id")
    if request.get("use_default_volume_encryption_keys") or not key:
        return _with(None)
    if (row.account_id, row.region) == (target.account, target.region):
        return _with(_arn(context, target, key))
    return _with(_matching(context, row, key, target))


def _with(arn: str | None) -> dict[str, Any]:
    return {"encrypted": True, "kms_key": arn}


def _matching(context: StepContext, row: Snapshot, key: str, target: Place) -> str | None:
    """The key at the target that stands for the original's; None for the region's default key."""
    other = "Give an encryption_key, or use the default keys."
    try:
        choice = dr_keys.choose(
            source_kms=_source_kms(context, row, key),
            target_kms=aws(context, target, "kms"),
            key_id=key,
            default_alias=dr_keys.EBS_ALIAS,
            # The copy in S3 is not bound to the key, unlike a snapshot that is copied.
            cross_account=False,
            detection=KeyDetection(ServerSettings.current().encryption_key_detection),
        )
    except dr_keys.NoKey as error:
        raise refused(f"{row.source_id}: {error} {other}") from None
    except AwsError as error:
        if error.transient:
            raise
        raise refused(
            f"{row.source_id}: the key of the original cannot be looked at. {error.explain()} {other}"
        ) from None
    if choice.fallback:
        context.warn(f"No key in {target.region} matches that of {row.source_id}: the default key is used.")
    return _arn(context, target, choice.key_id) if choice.key_id else None


def _source_kms(context: StepContext, row: Snapshot, key: str) -> AwsClient:
    if row.account_id is None:
        raise refused(
            f"{row.source_id} was encrypted in an account that is not known any more. Give an encryption_key, or use"
            " the default keys."
        )
    return aws(context, Place(row.account_id, row.region), "kms")


def _arn(context: StepContext, target: Place, key: str) -> str:
    """The ARN of a key given by id, alias or ARN, as StartSnapshot wants it. A key, not an alias, may be another account's."""
    shown = KEY_ARN.fullmatch(key)
    if shown is not None and shown["key"].startswith("key/"):
        return key
    if shown is not None and shown["account"] != account_number(context, target.account):
        raise refused(f"{key} is an alias of another account. Give the ARN of the key that it stands for.")
    name = shown["key"] if shown is not None else key
    kms = aws(context, target, "kms")
    key_id = _key_of_alias(kms, name) if name.startswith("alias/") else name
    for found in kms.paginate("ListKeys", "Keys"):
        if found["KeyId"] == key_id:
            return str(found["KeyArn"])
    raise refused(f"There is no KMS key {key} in {target.region}.")


def _key_of_alias(kms: AwsClient, alias: str) -> str | None:
    """The id of the key that an alias stands for; None for an unknown alias, or one without a key."""
    for found in kms.paginate("ListAliases", "Aliases"):
        if found["AliasName"] == alias:
            return found.get("TargetKeyId")
    return None


def fits_tier(tier: str, archive_class: str) -> bool:
    """Whether S3 retrieves from that storage class in that way."""
    return not (tier == RetrievalTier.EXPEDITED and archive_class == ArchiveClass.DEEP_ARCHIVE)
