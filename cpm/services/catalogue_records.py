"""Records of one backup from what AWS shows of it: the backup, its instances, its snapshots and their copies."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from cpm.flows import tags, whole
from cpm.flows.cleanup.deletion import IMAGES
from cpm.flows.server.catalogue_scan import Found, number_of
from cpm.lib.names import SERVER_DATA
from cpm.lib.states import BackupStatus, DrStatus, SnapshotKind, SnapshotStatus
from cpm.models import Account, Backup, Policy, Snapshot, Target
from cpm.models.base import new_ids
from cpm.resources import ec2_capture
from cpm.services import catalogue_whole, policies, policy_s3

Place = tuple[str, str]
Known = Mapping[Place, Snapshot]
Initial = dict[tuple[int, str], Snapshot]
"""Initial AMIs by the former id of their backup and their instance."""

OUTCOME = "Rebuilt from the tags of its snapshots."
# On the record of an original that AWS no longer has, or that was not looked for.
ABSENT = "not_found_by_rebuild"


def known(found: Sequence[Found]) -> Known:
    """The records that exist of these, by AWS id and region."""
    ids = [one.aws_id for one in found]
    rows = Snapshot.objects.filter(aws_id__in=ids).select_related("backup", "parent")
    return {**catalogue_whole.in_making(found), **{(row.aws_id, row.region): row for row in rows}}


def policy_with_words(account: Account, name: str) -> Policy | None:
    """The policy of that name, else the first whose name has these words in the names of snapshots; None for no words."""
    policies = list(Policy.objects.filter(user=account.user_id).order_by("pk")) if name else []
    exact = [policy for policy in policies if policy.name == name]
    alike = [policy for policy in policies if whole.words_of(policy.name) == name]
    return next(iter([*exact, *alike]), None)


def policy_named(account: Account, name: str) -> tuple[Policy, bool]:
    """The policy of that name and whether it was made: disabled, and keeping everything, since nothing tells its rules."""
    policy = Policy.objects.filter(user=account.user_id, name=name).first()
    if policy is not None:
        return policy, False
    policy = Policy.objects.create(
        user=account.user,
        account=account,
        name=name,
        enabled=False,
        generations=policies.LIMITS["generations"][1],
        s3_generations=policy_s3.LIMITS["s3_generations"][1],
        description="Rebuilt: check targets, generations, DR, copies in S3 and schedules before you enable it.",
    )
    return policy, True


def add_targets(policy: Policy, group: Iterable[Found]) -> None:
    """What these snapshots were made of becomes targets of the policy."""
    for one in filter(lambda one: one.listed, group):
        catalogue_whole.add_target(policy.pk, one)
    others = [one for one in group if not one.listed and one.target_id not in {"", SERVER_DATA}]
    wanted = {(one.source_region, one.target_id) for one in others}
    for region, resource in sorted(wanted):
        kind = "instances" if resource.startswith("i-") else "volumes"
        Target.objects.get_or_create(
            policy=policy, resource_type=kind, aws_region=region, aws_resource_id=resource
        )


class Group:
    """All that AWS has of one backup. `record` writes what is not known yet."""

    def __init__(
        self, account: Account, policy: Policy, number: int, found: Sequence[Found], known: Known, initial: Initial
    ) -> None:
        self.account, self.policy, self.number = account, policy, number
        self.found = sorted(found, key=lambda one: (one.copy, one.start, one.aws_id))
        self.known, self.initial = known, initial
        self.known_before = sum((one.aws_id, one.region) in known for one in found)
        self.made = 0
        self.problems: list[str] = []
        self.backup: Backup
        self._parents: dict[str, Snapshot | None] = {}

    def record(self, now: datetime) -> bool:
        """Write the records; True when the backup itself was not known."""
        rows = [row for one in self.found if (row := self.known.get((one.aws_id, one.region)))]
        self.backup = rows[0].backup if rows else self._new_backup(now)
        for one in self.found:
            row = self.known.get((one.aws_id, one.region)) or self._snapshot(one)
            if one.native_kind == SnapshotKind.INITIAL_AMI:
                native = row.original or row
                self.initial.setdefault((self.number, native.source_id), native)
        self._link_initial_amis()
        return not rows

    def _new_backup(self, now: datetime) -> Backup:
        start = min(one.start for one in self.found)
        leaves: dict[tuple[str, str, str], bool] = {}
        for one in self.found:
            leaves[one.source] = leaves.get(one.source, False) or one.state is SnapshotStatus.COMPLETED
        copies = [one for one in self.found if one.copy]
        # The id that the tags name, where it is free: then tags and records speak of the same thing again.
        taken = Backup.objects.filter(pk=self.number).exists()
        return Backup.objects.create(
            pk=new_ids(Backup, 1)[0] if taken else self.number,
            user=self.account.user,
            account=self.account,
            policy=self.policy,
            policy_name=self.policy.name,
            account_name=self.account.name,
            status=self._status(leaves),
            dr_status=_dr_status(copies),
            dr_regions=_regions(one for one in copies if one.account.pk == self.account.pk),
            dr_account_regions=_regions(one for one in copies if one.account.pk != self.account.pk),
            start_time=start,
            end_time=max(start, *(one.start for one in self.found)),
            outcome=OUTCOME,
        )

    def _status(self, leaves: Mapping[tuple[str, str, str], bool]) -> BackupStatus:
        expected = max((number_of(one.labels, tags.COUNT) or 0 for one in self.found), default=0)
        if not any(leaves.values()):
            return BackupStatus.FAILED
        if len(leaves) < expected:
            self.problems.append(
                f"Backup {self.number} of {self.policy.name}: {len(leaves)} of {expected} snapshots are there."
            )
        return BackupStatus.SUCCESSFUL if all(leaves.values()) and len(leaves) >= expected else BackupStatus.SOME_FAILED

    def _snapshot(self, one: Found) -> Snapshot:
        parent = self._parent(one)
        original = self._original(one, parent) if one.copy else None
        row = None if one.copy else self._absent(one)
        row = row or Snapshot(backup=self.backup, parent=parent)
        _fill(row, one, original)
        if one.copy and one.account.pk != self.account.pk:
            row.details["dr_account"] = one.account.name
        row.save()
        self.made += 1
        return row

    def _absent(self, one: Found) -> Snapshot | None:
        """The record that an earlier rebuild made for an original that it did not find."""
        rows = self._natives(one).filter(aws_id="")
        return rows.filter(details__has_key=ABSENT).first()

    def _original(self, one: Found, parent: Snapshot | None) -> Snapshot:
        found = self._natives(one).order_by("pk").first()
        if found is not None:
            return found
        row = Snapshot(backup=self.backup, parent=parent)
        _fill(row, one, None)
        row.kind, row.account, row.region = one.native_kind, self.account, one.source_region
        row.account_name, row.aws_account_number = self.account.name, self.account.account_number
        row.aws_id, row.status = "", SnapshotStatus.DELETED
        row.details = {**row.details, ABSENT: True}
        row.save()
        return row

    def _natives(self, one: Found) -> QuerySet[Snapshot]:
        """The records of originals from the same source."""
        where = {"region": one.source_region} if one.listed else {}
        return self.backup.snapshots.filter(kind=one.native_kind, source_id=one.source_id, original=None, **where)

    def _parent(self, one: Found) -> Snapshot | None:
        """The record of the instance, made from the configuration in the tags; None where that is missing."""
        if not one.instance_id:
            return None
        if one.instance_id not in self._parents:
            rows = self.backup.snapshots.filter(kind=SnapshotKind.INSTANCE, source_id=one.instance_id)
            self._parents[one.instance_id] = rows.first() or self._new_parent(one.instance_id)
        return self._parents[one.instance_id]

    def _new_parent(self, instance: str) -> Snapshot | None:
        where = f"Backup {self.number} of {self.policy.name}"
        config = next(
            (one.configuration for one in self.found if one.configuration.get("id") == instance), None
        )
        if config is None:
            self.problems.append(
                f"{where}: the configuration of {instance} is not in the tags; only its volumes can be recovered."
            )
            return None
        if config.get("user_data_left_out"):
            self.problems.append(f"{where}: the user data of {instance} is not kept in tags; give it at recovery.")
        details = {**ec2_capture.instance_details({}, {}), **_ATTRIBUTES, **config["instance"]}
        details["block_devices"] = [{**_DEVICE, **device} for device in details["block_devices"]]
        members = [one for one in self.found if one.instance_id == instance]
        worked = all(one.state is SnapshotStatus.COMPLETED for one in members)
        name = details["tags"].get("Name", "")
        return Snapshot.objects.create(
            backup=self.backup,
            kind=SnapshotKind.INSTANCE,
            resource_type="instances",
            account=self.account,
            account_name=self.account.name,
            aws_account_number=self.account.account_number,
            region=config["region"],
            source_id=instance,
            source_name=name,
            instance_name=name,
            status=SnapshotStatus.COMPLETED if worked else SnapshotStatus.ERROR,
            succeeded=worked,
            progress=100,
            start_time=self.backup.start_time,
            end_time=self.backup.end_time,
            details=details,
        )

    def _link_initial_amis(self) -> None:
        """Instances that start from an initial AMI of this or an earlier backup."""
        for parent in filter(None, self._parents.values()):
            wanted = (parent.details.get("initial_ami_backup") or 0, parent.source_id)
            if wanted in self.initial and "initial_ami" not in parent.details:
                parent.details["initial_ami"] = self.initial[wanted].pk
                parent.save(update_fields=["details"])


_ATTRIBUTES = {"aws_user_data": "", "aws_disable_api_termination": False, "aws_shutdown_behaviour": "stop"}
_DEVICE = {
    "delete_on_termination": False, "type": "", "iops": None, "throughput": None, "encrypted": False, "capacity": None,
}  # fmt: skip


def _fill(row: Snapshot, one: Found, original: Snapshot | None) -> None:
    """What the tags and AWS's description say of a snapshot or image."""
    row.kind, row.account, row.region, row.aws_id = one.kind, one.account, one.region, one.aws_id
    row.original = original
    row.account_name, row.aws_account_number = one.account.name, one.account.account_number
    row.status, row.succeeded = one.state, one.state is SnapshotStatus.COMPLETED
    row.progress = 100 if row.succeeded else 0
    state = one.described["State"] if one.listed is None else one.state.label.lower()
    row.error = "" if row.succeeded else f"AWS shows it as {state}."
    row.start_time = row.end_time = one.start
    if one.listed:
        catalogue_whole.fill(row, one, original)
    else:
        _fill_of_ec2(row, one)


def _fill_of_ec2(row: Snapshot, one: Found) -> None:
    config, described = one.configuration, one.described
    image = one.kind in IMAGES
    server = one.source_id == SERVER_DATA
    row.resource_type = "server" if server else "instances" if one.instance_id else "volumes"
    row.source_id, row.instance_id = one.source_id, "" if image else one.instance_id
    row.instance_name = config.get("instance", {}).get("tags", {}).get("Name", "")
    row.source_name = row.instance_name if image else one.labels.get("Name", "")
    row.capacity = described.get("VolumeSize")
    row.encrypted = bool(described.get("Encrypted"))
    device = _device(config, one.source_id)
    row.device = config.get("device") or device.get("device", "")
    row.details = _image_details(one) if image else _volume_details(one, device)


def _device(config: Mapping[str, Any], volume: str) -> Mapping[str, Any]:
    devices = config.get("instance", {}).get("block_devices", ())
    return next((one for one in devices if one.get("volume_id") == volume), {})


def _volume_details(one: Found, device: Mapping[str, Any]) -> dict[str, Any]:
    config = one.configuration
    details = ec2_capture.volume_details({"Tags": tags.as_list(tags.without_ours(one.labels))})
    details |= {name: device[name] for name in ("type", "iops", "throughput", "delete_on_termination") if name in device}
    details["zone"] = config.get("instance", {}).get("zone", "")
    details["kms_key_id"] = one.described.get("KmsKeyId", "")
    return details | config.get("volume", {})


def _image_details(one: Found) -> dict[str, Any]:
    devices = [m for m in one.described.get("BlockDeviceMappings", ()) if m.get("Ebs", {}).get("SnapshotId")]
    return {
        "snapshot_ids": [m["Ebs"]["SnapshotId"] for m in devices],
        "block_devices": {m["DeviceName"]: m["Ebs"]["SnapshotId"] for m in devices},
    }


def _dr_status(copies: Sequence[Found]) -> DrStatus:
    if not copies:
        return DrStatus.NONE
    complete = all(one.state is SnapshotStatus.COMPLETED for one in copies)
    return DrStatus.COMPLETED if complete else DrStatus.FAILED


def _regions(copies: Iterable[Found]) -> str:
    return ", ".join(sorted({one.region for one in copies}))
