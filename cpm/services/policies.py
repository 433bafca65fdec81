"""Policies: what is protected, how often, for how long, and where copies go."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import TypedDict, Unpack

from django.db import transaction

from cpm import features, permissions
from cpm.features import Feature
from cpm.flows.s3 import operation
from cpm.lib.errors import NotFound, PreconditionFailed, ValidationFailed
from cpm.lib.names import SERVER_DATA, Problem, name_problems
from cpm.lib.states import AutoRemove, ConsideredSuccessful
from cpm.models import Account, Actor, CustomTag, Policy, PolicySchedule, Schedule
from cpm.services import audit, backup_deletion, regions, run_times, scope

RIGHT = "policies.change"
SERVER_DATA_RIGHT = "policies.protect_server"

Problems = dict[str, list[Problem]]


class PolicyFields(TypedDict, total=False):
    """What may be set; what is left out keeps its value. `schedules` replaces all that there are."""

    description: str
    enabled: bool
    generations: int
    auto_remove_resource: AutoRemove
    dr_enabled: bool
    enable_agent_scripts: bool
    schedules: list[int]


class Options(TypedDict, total=False):
    """How scripts run, when a backup counts, and how it is tried again."""

    enable_agent_scripts: bool
    agent_script_timeout: int
    collect_script_output: bool
    considered_successful: ConsideredSuccessful
    number_of_retries: int
    minutes_between_retries: int
    num_failures_for_alert: int


class DrOptions(TypedDict, total=False):
    """Where copies of the snapshots go. Regions are ids; `dr_account` None means no other account."""

    dr_enabled: bool
    dr_frequency: int
    dr_regions: list[int]
    dr_timeout_hours: int
    dr_account: int | None
    dr_account_regions: list[int]
    copy_to_snapshot_original_region: bool
    dr_keep_original_snapshots: bool


# Least and most of every number that may be set, so that nonsense is refused before it reaches a flow.
LIMITS = {
    "generations": (1, 100_000),
    "agent_script_timeout": (1, 86_400),
    "number_of_retries": (0, 100),
    "minutes_between_retries": (0, 10_080),
    "num_failures_for_alert": (1, 1_000),
    "dr_frequency": (1, 10_000),
    "dr_timeout_hours": (1, 8_760),
}


@transaction.atomic
def create(*, actor: Actor, account: int, name: str, now: datetime, **fields: Unpack[PolicyFields]) -> Policy:
    """A new policy on that backup account; it belongs to the account's owner.

    Raises `ValidationFailed`, `NotFound` for an account or schedule out of reach, `Conflict` for a name that is
    taken, `PermissionDenied` when anybody but root makes the policy for the server's own data.
    """
    permissions.require(actor, RIGHT)
    rows = permissions.visible(actor.user, Account.objects.select_related("user"), RIGHT)
    found = scope.referred(rows, account, what="account", field="account")
    if found.is_dr_account:
        raise ValidationFailed.one(
            "account", "A DR account only receives copies; choose a backup account.", "dr_account"
        )
    if name == SERVER_DATA:
        permissions.require(actor, SERVER_DATA_RIGHT)
    policy = Policy(user=found.user, account=found, name=name)
    _save(policy, fields, now)
    audit.record(actor, "policy.created", policy, after=_state(policy))
    return policy


@transaction.atomic
def update(
    *, actor: Actor, policy: Policy, now: datetime, name: str | None = None, **fields: Unpack[PolicyFields]
) -> Policy:
    """Changes what is given. Owner and account of a policy never change. Raises what `create` raises."""
    row = scope.locked(actor, RIGHT, policy, "policy")
    was = _state(row)
    if name is not None and name != row.name:
        if SERVER_DATA in {name, row.name}:
            raise ValidationFailed.one(
                "name", f"“{SERVER_DATA}” is reserved; it is neither given nor taken away."
            )
        row.name = name
    _save(row, fields, now)
    audit.record(actor, "policy.updated", row, before=was, after=_state(row))
    return row


@transaction.atomic
def delete(*, actor: Actor, policy: Policy) -> None:
    """Removes the policy and, in the background, all its snapshots but for frozen backups.

    The records of its backups stay as long as the cleanup settings say. Raises `PreconditionFailed` while a
    backup, copy or recovery of it, or anything of it in S3, is running.
    """
    row = scope.locked(actor, RIGHT, policy, "policy")
    if operation.running(row) is not None:
        message = f"Something of policy {row.name} is running in S3. Wait for it, or abort it."
        raise PreconditionFailed("s3_operation_running", message)
    backup_deletion.delete_policy_snapshots(actor=actor, policy=row, native_only=False)
    audit.record(actor, "policy.deleted", row, before=_state(row))
    row.delete()


@transaction.atomic
def set_options(*, actor: Actor, policy: Policy, **options: Unpack[Options]) -> Policy:
    """Changes the options that are given. The policy for the server's own data has none: `NotFound`."""
    row = with_options(scope.locked(actor, RIGHT, policy, "policy"))
    was = _state(row)
    for name, value in options.items():
        setattr(row, name, value)
    _raise(_number_problems(row))
    row.save()
    audit.record(actor, "policy.updated", row, before=was, after=_state(row))
    return row


def with_options(policy: Policy) -> Policy:
    """The policy itself, or `NotFound` when it is the one that has no options."""
    if policy.name == SERVER_DATA:
        raise NotFound("policy with options", policy.pk)
    return policy


@transaction.atomic
def set_dr(*, actor: Actor, policy: Policy, **options: Unpack[DrOptions]) -> Policy:
    """Changes the DR options that are given, and checks the whole: DR that is on has somewhere to copy to.

    Raises `ValidationFailed`, `NotFound` for regions that are unknown or DR accounts out of reach, and `FeatureOff`
    for a DR account on a server without cross-account DR.
    """
    row = scope.locked(actor, RIGHT, policy, "policy")
    was = _state(row)
    if options.get("dr_account") is not None:
        features.require(Feature.CROSS_ACCOUNT)
    for name in ("dr_regions", "dr_account_regions"):
        if name in options:
            options[name] = regions.enabled_ids(options[name], field=_dr_field(name))  # type: ignore[literal-required]
    account = options.pop("dr_account", row.dr_account_id)
    for name, value in options.items():
        setattr(row, name, value)
    row.dr_account = None if account is None else _dr_account(row, account)
    _raise(_dr_problems(row))
    row.save()
    audit.record(actor, "policy.updated", row, before=was, after=_state(row))
    return row


@transaction.atomic
def add_custom_tag(
    *,
    actor: Actor,
    policy: Policy,
    tag_name: str,
    tag_value: str = "",
    name_is_prefix: bool = False,
    value_is_prefix: bool = False,
) -> CustomTag:
    """One more tag that brings resources under the policy."""
    row = scope.locked(actor, RIGHT, policy, "policy")
    if not tag_name.strip():
        raise ValidationFailed.one("tag_name", "A tag needs a name.", "blank")
    tag = CustomTag.objects.create(
        policy=row,
        tag_name=tag_name,
        tag_value=tag_value,
        name_is_prefix=name_is_prefix,
        value_is_prefix=value_is_prefix,
    )
    audit.record(actor, "custom_tag.created", tag, after=audit.state_of(tag))
    return tag


@transaction.atomic
def delete_custom_tag(*, actor: Actor, tag: CustomTag) -> None:
    """The tag brings nothing more under the policy; what it has brought stays."""
    policy = scope.locked(actor, RIGHT, tag.policy, "policy")
    row = policy.custom_tags.filter(pk=tag.pk).first()
    if row is None:
        raise NotFound("custom tag", tag.pk)
    audit.record(actor, "custom_tag.deleted", row, before=audit.state_of(row))
    row.delete()


def _state(policy: Policy) -> audit.State:
    schedules = policy.policy_schedules.order_by("schedule").values_list("schedule", flat=True)
    return audit.state_of(policy, schedules=list(schedules))


def _save(policy: Policy, fields: PolicyFields, now: datetime) -> None:
    for name, value in fields.items():
        if name != "schedules":
            setattr(policy, name, value)
    problems = _number_problems(policy)
    problems["name"] += name_problems(policy.name)
    _raise(problems)
    with scope.name_is_unique("policy", "policy_name_of_user"):
        policy.save()
    if "schedules" in fields:
        _set_schedules(policy, fields["schedules"])
    run_times.refresh(Policy.objects.filter(pk=policy.pk), now=now)


def _set_schedules(policy: Policy, ids: Iterable[int]) -> None:
    mine = Schedule.objects.filter(user=policy.user_id)
    wanted = scope.all_referred(mine, ids, what="schedule", field="schedules")
    policy.policy_schedules.exclude(schedule__in=wanted).delete()
    have = set(policy.policy_schedules.values_list("schedule_id", flat=True))
    PolicySchedule.objects.bulk_create(
        PolicySchedule(policy=policy, schedule=schedule) for schedule in wanted if schedule.pk not in have
    )


def _number_problems(policy: Policy) -> Problems:
    problems: Problems = defaultdict(list)
    for name, (least, most) in LIMITS.items():
        if not least <= getattr(policy, name) <= most:
            problems[name].append((f"This must be a number from {least} to {most}.", "invalid"))
    return problems


def _dr_field(name: str) -> str:
    """Where the public API shows a DR option: what is about another account stands in an object of its own."""
    return (
        name
        if name in {"dr_regions", "dr_enabled", "dr_frequency", "dr_timeout_hours"}
        else f"cross_account_dr.{name}"
    )


def _dr_account(policy: Policy, id: int) -> Account:
    field = _dr_field("dr_account")
    account = scope.referred(Account.objects.filter(user=policy.user_id), id, what="account", field=field)
    if not account.is_dr_account:
        raise ValidationFailed.one(
            field, f"“{account.name}” is a backup account; choose a DR account.", "not_dr_account"
        )
    return account


def _dr_problems(policy: Policy) -> Problems:
    problems = _number_problems(policy)
    if policy.dr_enabled and not policy.dr_regions and policy.dr_account is None:
        problems["dr_regions"].append(
            ("DR needs at least one region, or a DR account, to copy to.", "required")
        )
    if policy.dr_account is not None and not (
        policy.dr_account_regions or policy.copy_to_snapshot_original_region
    ):
        problems[_dr_field("dr_account_regions")].append(
            (
                "Choose regions of the DR account, or that every snapshot goes to its original region there.",
                "required",
            )
        )
    if policy.dr_account is None and not policy.dr_keep_original_snapshots:
        problems[_dr_field("dr_keep_original_snapshots")].append(
            ("Originals can only be given up for copies in a DR account; choose one.", "no_dr_account")
        )
    return problems


def _raise(problems: Problems) -> None:
    if any(problems.values()):
        raise ValidationFailed(problems)
