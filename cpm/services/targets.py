"""Targets: the AWS resources under a policy. Adding one asks AWS whether it exists; reading never does."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict, Unpack

from django.db import IntegrityError, transaction

from cpm import permissions
from cpm.aws import gateway
from cpm.aws.errors import AwsError, RegionDisabled
from cpm.aws.identity import Identity
from cpm.flows.identities import identity_of
from cpm.lib.errors import NON_FIELD, Conflict, NotFound, PreconditionFailed, ValidationFailed
from cpm.lib.secrets import KeyFileError, SecretUnreadable
from cpm.lib.states import AmiOption, WhichVolumes
from cpm.models import Account, Actor, Policy, Target, TargetVolume
from cpm.resources.base import Described, ResourceType
from cpm.resources.registry import BY_KEY, WHOLE_BY_KEY
from cpm.resources.whole import WholeResource
from cpm.services import audit, regions, scope, target_limits

RIGHT = "policies.change"
INSTANCES, VOLUMES = "instances", "volumes"
LONGEST_TIMEOUT = 86_400


class InstanceOptions(TypedDict, total=False):
    """What may be chosen for an instance; what is left out keeps its value.

    From `enable_agent_vss` on they are about application consistency through AWS Systems Manager.
    """

    which_volumes: WhichVolumes
    ami_backup_option: AmiOption
    ami_reboot_option: bool
    force_full_s3_copy: bool
    aws_root_device: str
    enable_agent_vss: bool
    vss_volumes: str
    enable_agent_scripts: bool
    agent_script_timeout: int
    collect_script_output: bool
    use_remote_agent: bool


AGENT_OPTIONS = (
    "enable_agent_vss", "vss_volumes", "enable_agent_scripts", "agent_script_timeout", "collect_script_output",
    "use_remote_agent",
)  # fmt: skip


def add_instance(
    *,
    actor: Actor,
    policy: Policy,
    region: str,
    resource_id: str,
    now: datetime,
    **options: Unpack[InstanceOptions],
) -> Target:
    """Puts an instance under the policy. A Windows instance gets an initial AMI unless told otherwise.

    Raises `ValidationFailed` when AWS does not know the instance or does not answer, `Conflict` when the policy has
    it already, `LimitExceeded` when the owner may not protect more instances.
    """
    found = _described(actor, policy, BY_KEY[INSTANCES], region, resource_id)
    if found.details["platform"] == "windows":
        options.setdefault("ami_backup_option", AmiOption.SINGLE)
    target = _new(policy, INSTANCES, region, found, now)
    _apply(target, options)
    return insert(actor, target)


@transaction.atomic
def update_instance(*, actor: Actor, target: Target, **options: Unpack[InstanceOptions]) -> Target:
    """Changes the options that are given. Raises `ValidationFailed`, `NotFound`."""
    row = scope.locked(actor, RIGHT, target, BY_KEY[INSTANCES].noun)
    was = audit.state_of(row)
    _apply(row, options)
    row.save()
    audit.record(actor, "target.updated", row, before=was, after=audit.state_of(row))
    return row


def add_volume(*, actor: Actor, policy: Policy, region: str, resource_id: str, now: datetime) -> Target:
    """Puts a volume under the policy, independent of any instance. Raises what `add_instance` raises."""
    found = _described(actor, policy, BY_KEY[VOLUMES], region, resource_id)
    return insert(actor, _new(policy, VOLUMES, region, found, now))


def add_whole(
    *,
    actor: Actor,
    policy: Policy,
    key: str,
    region: str,
    resource_id: str,
    now: datetime,
    options: Mapping[str, Any] | None = None,
) -> Target:
    """Puts a resource that AWS snapshots as a whole under the policy, with what was chosen for it.

    Raises what `add_instance` raises, and `ValidationFailed` for a resource that is protected as a part of another one and
    for options that do not go together.
    """
    kind = WHOLE_BY_KEY[key]
    chosen = _chosen(kind, {}, options or {})
    found = _described(actor, policy, kind, region, resource_id)
    if unfit := kind.unfit(found):
        raise ValidationFailed.one(kind.id_field, unfit, "unfit")
    target = _new(policy, key, region, found, now)
    target.options = chosen
    return insert(actor, target)


@transaction.atomic
def update_whole(*, actor: Actor, target: Target, options: Mapping[str, Any]) -> Target:
    """Changes the options that are given. Raises `ValidationFailed`, `NotFound`."""
    kind = WHOLE_BY_KEY[target.resource_type]
    row = scope.locked(actor, RIGHT, target, kind.noun)
    was = audit.state_of(row)
    row.options = _chosen(kind, row.options, options)
    row.save()
    audit.record(actor, "target.updated", row, before=was, after=audit.state_of(row))
    return row


def _chosen(kind: WholeResource, before: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a target after a change; what nobody chose has its default."""
    defaults = {one.name: one.default for one in kind.target_takes}
    chosen = {**defaults, **before, **options}
    problems = kind.option_problems(chosen)
    if problems:
        raise ValidationFailed({field: [(message, "invalid")] for field, message in problems.items()})
    return chosen


@transaction.atomic
def remove(*, actor: Actor, target: Target) -> None:
    """Takes the resource out of the policy. Its snapshots stay until retention removes them."""
    row = scope.locked(actor, RIGHT, target, BY_KEY[target.resource_type].noun)
    text = f"{row.aws_resource_id} removed from policy “{row.policy.name}”."
    audit.record(actor, "target.deleted", row, before=audit.state_of(row), text=text)
    row.delete()


def add_instance_volume(*, actor: Actor, target: Target, resource_id: str) -> TargetVolume:
    """Selects a volume of the instance, to be included or excluded as the target's `which_volumes` says.

    Raises `ValidationFailed` when the volume does not exist or is not attached to this instance.
    """
    found = _described(actor, target.policy, BY_KEY[VOLUMES], target.aws_region, resource_id)
    if found.details["attached_to"] != target.aws_resource_id:
        message = f"{resource_id} is not attached to {target.aws_resource_id}."
        raise ValidationFailed.one("aws_resource_id", message, "not_attached")
    try:
        with transaction.atomic():
            row = scope.locked(actor, RIGHT, target, BY_KEY[INSTANCES].noun)
            details = {**found.details, "name": found.name}
            volume = TargetVolume.objects.create(target=row, aws_resource_id=found.id, details=details)
            text = f"{volume.aws_resource_id} selected for {row.aws_resource_id} in policy “{row.policy.name}”."
            audit.record(actor, "target_volume.created", volume, after=audit.state_of(volume), text=text)
            return volume
    except IntegrityError as error:
        message = f"{resource_id} is selected for this instance already."
        raise Conflict("unique", message, field="aws_resource_id") from error


@transaction.atomic
def remove_instance_volume(*, actor: Actor, volume: TargetVolume) -> None:
    """Takes the volume out of the selection."""
    target = scope.locked(actor, RIGHT, volume.target, BY_KEY[INSTANCES].noun)
    row = target.volumes.filter(pk=volume.pk).first()
    if row is None:
        raise NotFound("volume", volume.pk)
    text = f"{row.aws_resource_id} no longer selected for {target.aws_resource_id} in policy “{target.policy.name}”."
    audit.record(actor, "target_volume.deleted", row, before=audit.state_of(row), text=text)
    row.delete()


def changeable(actor: Actor, policy: Policy) -> Policy:
    """The policy as it is now, with its account, if the actor may change it. Raises `PermissionDenied`, `NotFound`."""
    permissions.require(actor, RIGHT)
    rows = permissions.visible(actor.user, Policy.objects.filter(pk=policy.pk), RIGHT)
    current = rows.select_related("account__assume_from_account").first()
    if current is None:
        raise NotFound("policy", policy.pk)
    return current


def identity(account: Account, policy: Policy) -> Identity:
    """As whom AWS is asked about the targets of a policy. Raises `PreconditionFailed`."""
    try:
        return identity_of(account, session=f"cpm-policy-{policy.pk}")
    except (SecretUnreadable, KeyFileError) as error:
        raise PreconditionFailed("secret_unreadable", str(error)) from error


def _described(actor: Actor, policy: Policy, kind: ResourceType, region: str, resource_id: str) -> Described:
    """What AWS says of the resource, once the actor may change the policy. No transaction is open meanwhile."""
    current = changeable(actor, policy)
    regions.require_enabled(region, field="aws_region")
    if not re.fullmatch(kind.id_pattern, resource_id):
        message = f"“{resource_id}” is not the id of a resource of this type: {kind.noun}."
        raise ValidationFailed.one(kind.id_field, message, "invalid_id")
    caller = identity(current.account, current)
    try:
        found = kind.describe(gateway.client(caller, kind.service, region), [resource_id])
    except AwsError as error:
        field = "aws_region" if isinstance(error, RegionDisabled) else NON_FIELD
        raise ValidationFailed.one(field, error.explain(), f"aws_{error.family}") from error
    if resource_id not in found:
        raise ValidationFailed.one(
            kind.id_field, _absent(kind, resource_id, region, current.account), "does_not_exist"
        )
    return found[resource_id]


def _absent(kind: ResourceType, resource_id: str, region: str, account: Account) -> str:
    return f"AWS has no {kind.noun} {resource_id} in {region} that account “{account.name}” can see."


def _new(policy: Policy, key: str, region: str, found: Described, now: datetime) -> Target:
    return Target(
        policy=policy,
        resource_type=key,
        aws_region=region,
        aws_resource_id=found.id,
        name=found.name[:255],
        tagged=found.tagged,
        details=dict(found.details),
        last_seen_at=now,
    )


def insert(actor: Actor, target: Target) -> Target:
    """Saves a new target. Raises `Conflict` when the policy has it already, `LimitExceeded`, `NotFound`."""
    try:
        with transaction.atomic():
            policy = scope.locked(actor, RIGHT, target.policy, "policy")
            target_limits.check(policy.user_id, target)
            target.save(force_insert=True)
            text = f"{target.aws_resource_id} added to policy “{policy.name}”."
            audit.record(actor, "target.created", target, after=audit.state_of(target), text=text)
    except IntegrityError as error:
        message = f"{target.aws_resource_id} is in this policy already."
        raise Conflict("unique", message, field=BY_KEY[target.resource_type].id_field) from error
    return target


def _apply(target: Target, options: InstanceOptions) -> None:
    for name, value in options.items():
        if name != "aws_root_device":
            setattr(target, name, value)
    if "aws_root_device" in options:
        _set_root_device(target, options["aws_root_device"])
    _check_agent(target)


def _set_root_device(target: Target, device: str) -> None:
    """Take this device for the root device; the empty one means the one that AWS names."""
    target.options = {name: value for name, value in target.options.items() if name != "aws_root_device"}
    if not device or device == target.details.get("root_device"):
        return
    devices: Sequence[str] = sorted(target.details.get("volumes", {}).values())
    if device not in devices:
        message = (
            f"{target.aws_resource_id} has no EBS volume at {device}; it has {', '.join(devices) or 'none'}."
        )
        raise ValidationFailed.one("aws_root_device", message, "unknown_device")
    target.options["aws_root_device"] = device


def _check_agent(target: Target) -> None:
    """Refuse what could not act, so that nobody believes in a consistency that is not there."""
    field = "application_consistent_backup"
    if target.use_remote_agent:
        message = "CPM has no agent of its own; AWS Systems Manager is used instead. Set this to false."
        raise ValidationFailed.one(f"{field}.use_remote_agent", message, "no_remote_agent")
    if target.enable_agent_vss:
        _check_vss(target, field)
    if target.vss_volumes:
        message = "VSS through AWS Systems Manager takes all drives; leave this empty."
        raise ValidationFailed.one(f"{field}.vss_volumes", message, "vss_needs_all_volumes")
    if not 1 <= target.agent_script_timeout <= LONGEST_TIMEOUT:
        message = f"This must be a number from 1 to {LONGEST_TIMEOUT}."
        raise ValidationFailed.one(f"{field}.agent_script_timeout", message)


def _check_vss(target: Target, field: str) -> None:
    """AWSEC2-CreateVssSnapshot (Systems Manager) snapshots all volumes of a Windows instance, and nothing else."""
    if target.details.get("platform") != "windows":
        message = "Only Windows instances have VSS; use scripts for others."
        raise ValidationFailed.one(field, message, "windows_only")
    if target.which_volumes != WhichVolumes.ALL:
        message = "VSS works on all volumes of an instance; set which_volumes to A."
        raise ValidationFailed.one(field, message, "vss_needs_all_volumes")
    if target.ami_backup_option == AmiOption.ONLY:
        message = "AMIs are made without VSS; choose another ami_backup_option or no VSS."
        raise ValidationFailed.one(field, message, "vss_needs_snapshots")
