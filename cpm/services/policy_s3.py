"""A policy's options for copies in S3 and for their archive: what they may be, and what they cost beyond need."""

from collections import defaultdict
from collections.abc import Mapping
from fractions import Fraction
from typing import TypedDict, Unpack

from django.db import transaction

from cpm import features
from cpm.features import Feature
from cpm.flows.s3.retention_rules import MONTH, Span
from cpm.lib.errors import ValidationFailed
from cpm.lib.names import SERVER_DATA, Problem
from cpm.lib.states import ArchiveClass, DeletionStatus, RetentionUnit, StorageClass
from cpm.models import Actor, Policy, S3Repository
from cpm.services import audit, scope
from cpm.services.policies import RIGHT

Problems = dict[str, list[Problem]]


class S3Options(TypedDict, total=False):
    """What may be set; what is left out keeps its value. `s3_repository` is an id, or None for none."""

    s3_enabled: bool
    s3_repository: int | None
    s3_copy_interval: int
    s3_delete_originals: bool
    s3_storage_class: StorageClass
    s3_keep_by_generations: bool
    s3_generations: int
    s3_keep_by_time: bool
    s3_keep_time: int
    s3_keep_time_unit: RetentionUnit
    archive_enabled: bool
    archive_storage_class: ArchiveClass
    archive_every: int
    archive_every_unit: RetentionUnit
    archive_keep: int
    archive_keep_unit: RetentionUnit


# Where the public API shows each option; refusals name it like this.
SHOWN_AS: Mapping[str, str] = {
    "s3_enabled": "enabled",
    "s3_repository": "repository",
    "s3_copy_interval": "copy_interval",
    "s3_delete_originals": "delete_aws_snapshot_after_copy",
    "s3_storage_class": "s3_storage_class",
    "s3_keep_by_generations": "retention_generation_based.enabled",
    "s3_generations": "retention_generation_based.num_generations",
    "s3_keep_by_time": "retention_time_based.enabled",
    "s3_keep_time": "retention_time_based.every_how_many",
    "s3_keep_time_unit": "retention_time_based.every_unit",
    "archive_enabled": "enable_copy_to_glacier",
    "archive_storage_class": "archive_storage_class",
    "archive_every": "copy_to_glacier.every_how",
    "archive_every_unit": "copy_to_glacier.every_unit",
    "archive_keep": "retain_in_glacier.retain_duration",
    "archive_keep_unit": "retain_in_glacier.retain_unit",
}
# Least and most of every number. What comes with a unit is also held to `LONGEST`.
LIMITS: Mapping[str, tuple[int, int]] = {
    "s3_copy_interval": (1, 10_000),
    "s3_generations": (1, 100_000),
    "s3_keep_time": (1, 36_500),
    "archive_every": (1, 36_500),
    "archive_keep": (1, 36_500),
}
LONGEST = Span(100, RetentionUnit.YEARS)
# Shorter than this copies are not worth the reading; the public API names the week.
SHORTEST_IN_S3 = Span(1, RetentionUnit.WEEKS)
# Amazon S3 pricing: days that are paid for at least, however soon the data is deleted.
BILLED_DAYS_IA = 30
BILLED_DAYS: Mapping[str, int] = {ArchiveClass.GLACIER: 90, ArchiveClass.DEEP_ARCHIVE: 180}


@transaction.atomic
def set_copy_to_s3(*, actor: Actor, policy: Policy, **options: Unpack[S3Options]) -> Policy:
    """Changes the options that are given, and checks the whole: what is on has all that it needs.

    Raises `ValidationFailed` with the names of the public API, `NotFound` for a repository that is not of the policy's
    user, and `FeatureOff` for copies that are on without the feature.
    """
    row = scope.locked(actor, RIGHT, policy, "policy")
    was = audit.state_of(row)
    wanted = options.pop("s3_repository", row.s3_repository_id)
    for name, value in options.items():
        setattr(row, name, value)
    if row.s3_enabled:
        features.require(Feature.COPY_TO_S3)
    row.s3_repository = None if wanted is None else _repository(row, wanted)
    problems = _problems(row)
    if any(problems.values()):
        raise ValidationFailed({SHOWN_AS[name]: found for name, found in problems.items()})
    row.save(update_fields=[*SHOWN_AS, "last_modified"])
    audit.record(actor, "policy.updated", row, before=was, after=audit.state_of(row))
    return row


def hints(policy: Policy) -> list[str]:
    """What is allowed but surely not meant, one sentence each; empty while copies are off."""
    if not policy.s3_enabled:
        return []
    found = []
    if policy.s3_storage_class == StorageClass.STANDARD_IA and not policy.s3_keep_by_time:
        found.append(
            f"Infrequent Access bills at least {BILLED_DAYS_IA} days; make sure that {policy.s3_generations} generations "
            "last that long."
        )
    if not policy.archive_enabled:
        return found
    billed = BILLED_DAYS[policy.archive_storage_class]
    left = _archived(policy).days - _least_in_s3(policy)
    if left < billed:
        name = ArchiveClass(policy.archive_storage_class).label
        found.append(
            f"{name} bills at least {billed} days, and archived backups stay there for {int(left)} only. Keeping them "
            "longer costs nothing more."
        )
    if not policy.s3_keep_by_time:
        found.append(
            "How long copies stay in S3 depends on generations, and the archive's retention counts from the backup: a "
            "copy that leaves S3 too late for a month in the archive is not archived but stays in S3 for that time."
        )
    return found


def _repository(policy: Policy, id: int) -> S3Repository:
    """The repository, locked against its deletion."""
    field = SHOWN_AS["s3_repository"]
    mine = S3Repository.objects.filter(user=policy.user_id).select_for_update(of=("self",), no_key=True)
    found = scope.referred(mine, id, what="S3 repository", field=field)
    if found.deletion_status != DeletionStatus.NONE:
        message = (
            f"S3 repository “{found.name}” is being deleted, or its deletion has failed; choose another."
        )
        raise ValidationFailed.one(field, message, "being_deleted")
    return found


def _problems(policy: Policy) -> Problems:
    """What is wrong, by column. Comparisons are made once the numbers themselves are good."""
    problems: Problems = defaultdict(list)
    for name, (least, most) in LIMITS.items():
        if not least <= getattr(policy, name) <= most:
            problems[name].append((f"This must be a number from {least} to {most}.", "invalid"))
    for name in ("s3_keep_time", "archive_every", "archive_keep"):
        if name not in problems and _span(policy, name).days > LONGEST.days:
            problems[name].append(("This must not be longer than 100 years.", "invalid"))
    if not problems:
        _check_copies(policy, problems)
        _check_retention(policy, problems)
    return problems


def _check_copies(policy: Policy, problems: Problems) -> None:
    """Copies that are off may lack anything; what was copied before still expires and is archived."""
    if not policy.s3_enabled:
        return
    if policy.name == SERVER_DATA:
        message = (
            "The server's own data is not copied to S3: the keys of its repositories are in that data. Copy it to "
            "another region with DR."
        )
        problems["s3_enabled"].append((message, "server_data"))
    if policy.s3_repository is None:
        problems["s3_repository"].append(("Choose the repository to copy to.", "required"))
    if not (policy.s3_keep_by_generations or policy.s3_keep_by_time):
        message = "Copies are kept by generations, by time or by both: switch one on."
        problems["s3_keep_by_generations"].append((message, "no_retention"))


def _check_retention(policy: Policy, problems: Problems) -> None:
    if policy.s3_keep_by_time:
        _check_time_in_s3(policy, problems)
    if not policy.archive_enabled:
        return
    # With less than a month left it would be deleted as good as at once (`retention_rules.expires_at_once`).
    if _archived(policy).days < _least_in_s3(policy) + MONTH.days:
        message = (
            "The time in the archive counts from the backup, not from the move: it must be a month longer than the time "
            "in S3, or the backup would be deleted as soon as it is archived."
        )
        problems["archive_keep"].append((message, "too_short"))


def _check_time_in_s3(policy: Policy, problems: Problems) -> None:
    if _kept(policy).days < SHORTEST_IN_S3.days:
        message = "Storage in S3 for less than one week is not supported."
        problems["s3_keep_time"].append((message, "too_short"))
    elif (
        policy.s3_storage_class == StorageClass.STANDARD_IA
        and not policy.s3_keep_by_generations
        and _kept(policy).days < BILLED_DAYS_IA
    ):
        message = (
            f"Infrequent Access bills at least {BILLED_DAYS_IA} days: keep copies that long, which costs nothing more, or "
            "choose another storage class."
        )
        problems["s3_storage_class"].append((message, "billed_longer"))


def _least_in_s3(policy: Policy) -> Fraction:
    """Days that copies stay in S3 for sure; how long generations last is not known beforehand."""
    return _kept(policy).days if policy.s3_keep_by_time else Fraction(0)


def _kept(policy: Policy) -> Span:
    return _span(policy, "s3_keep_time")


def _archived(policy: Policy) -> Span:
    return _span(policy, "archive_keep")


def _span(policy: Policy, name: str) -> Span:
    """A number with its unit."""
    return Span(getattr(policy, name), RetentionUnit(getattr(policy, f"{name}_unit")))
