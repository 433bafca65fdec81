"""Planning a backup run: snapshot records and steps for each target that AWS still has."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from cpm.flows import tags
from cpm.flows.backups import backup_s3_sync, backup_scripts, backup_vss
from cpm.flows.backups.backup_agent import Agent
from cpm.flows.server import catalogue_tags
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import StepSpec
from cpm.lib.states import AmiOption, RunIf, SnapshotKind, SnapshotStatus, WhichVolumes
from cpm.models import Backup, Policy, ServerSettings, Snapshot, Target
from cpm.models.base import new_ids
from cpm.resources import ec2_capture
from cpm.resources.base import Described
from cpm.resources.registry import WHOLE_BY_KEY

INSTANCES, VOLUMES, S3_SYNCS = "instances", "volumes", "s3syncs"
EC2 = (INSTANCES, VOLUMES)
"""Types that are described together, because instances have volumes."""


class Plan:
    """Collects rows and steps; `save` inserts the rows, `finish` returns the steps."""

    def __init__(self, context: StepContext, backup: Backup, policy: Policy) -> None:
        self.context, self.backup, self.policy = context, backup, policy
        self.server = ServerSettings.current()
        self.rows: list[Snapshot] = []
        self.starts: list[StepSpec] = []
        self.watches: list[StepSpec] = []
        self.syncs: list[StepSpec] = []
        self.scripted: list[Agent] = []
        self.before = backup_scripts.before(policy, backup)
        self._ids: list[int] = []
        self.payloads: list[dict[str, Any]] = []
        self.seen: list[Target] = []

    def add(self, target: Target, described: dict[str, Any]) -> None:
        """Plan one target; `described` holds what AWS says of the resources of its region and type by id, and with
        instances also of volumes."""
        resource = described[target.aws_resource_id]
        if target.resource_type in WHOLE_BY_KEY:
            self._add_whole(target, resource)
            return
        if target.resource_type == S3_SYNCS:
            self._add_sync(target, resource)
            return
        if target.resource_type == VOLUMES:
            self._add_volume(target, resource)
            return
        parent = self._instance_row(target, resource, described)
        if target.enable_agent_scripts:
            self.scripted.append(self._agent(target, resource))
        if target.ami_backup_option == AmiOption.ONLY:
            if target.enable_agent_vss:
                refused = "AMIs are made by AWS without VSS."
                self.starts.append(backup_vss.impossible(target.aws_resource_id, self._server, refused))
            self._add_image(target, parent, SnapshotKind.ONLY_AMI)
            return
        if target.ami_backup_option == AmiOption.SINGLE:
            initial = self._current_initial_ami(target)
            # For the tags: ids of records mean nothing in a rebuilt catalogue.
            parent.details["initial_ami_backup"] = initial.backup_id if initial else self.backup.pk
            if initial is None:
                initial = self._add_image(target, parent, SnapshotKind.INITIAL_AMI)
            parent.details["initial_ami"] = initial.pk
        self._add_instance_volumes(target, parent, resource, described)

    def fail(self, target: Target, why: str, row: Snapshot | None = None) -> None:
        """Record that a target could not be backed up."""
        row = row or self._row(target, _kind_of(target), target.aws_resource_id)
        row.status, row.succeeded, row.error = SnapshotStatus.ERROR, False, why
        row.start_time = row.end_time = self.context.now
        self.context.error(f"{target.aws_resource_id}: {why}")

    def finish(self) -> list[StepSpec]:
        """The steps of the run, with those that end it."""
        starts = tuple(spec.key for spec in self.starts)
        # Nobody's "after" script waits for a sync, which may take hours.
        watches = tuple(spec.key for spec in (*self.watches, *self.syncs))
        before = backup_scripts.before_steps(self.before, self.scripted)
        begun = tuple(spec.key for spec in before)
        self._count_snapshots()
        steps = [*before, *(_after(spec, begun) for spec in (*self.starts, *self.syncs)), *self.watches]
        after = backup_scripts.after_steps(self.before, self.scripted, after=(*begun, *starts))
        thawed = tuple(spec.key for spec in after)
        complete = backup_scripts.complete_steps(
            self.before, self.scripted, after=(*watches, *thawed, *starts)
        )
        steps += [*after, *complete]
        everything = tuple(spec.key for spec in steps)
        return [*steps, StepSpec("backup.finish", key="finish", after=everything, run_if=RunIf.ALWAYS)]

    def save(self) -> None:
        Snapshot.objects.bulk_create(self.rows)
        Target.objects.bulk_update(self.seen, ["name", "details", "last_seen_at"], batch_size=500)

    def _add_whole(self, target: Target, resource: Described) -> None:
        kind = WHOLE_BY_KEY[target.resource_type]
        row = self._row(target, kind.kind, target.aws_resource_id)
        row.source_name = target.name = resource.name
        # The API shows targets as they were when AWS was asked last, and limits add up how large they were then.
        target.details, target.last_seen_at = dict(resource.details), self.context.now
        self.seen.append(target)
        row.details = {**resource.details, "tags": dict(resource.tags)}
        row.details |= {"options": target.options} if target.options else {}
        row.capacity, row.encrypted = resource.details.get("capacity"), bool(resource.details.get("encrypted"))
        key = f"start-{row.pk}"
        payload = self._payload(target, f"{kind.noun}: {row.source_id}", {})
        payload |= {"type": kind.key, "snapshot": row.pk, "options": target.options}
        payload["tags"] |= {tags.KIND: row.kind, **catalogue_tags.of_whole(row)}
        self.starts.append(StepSpec("backup.start_whole", payload, key=key, run_if=RunIf.ENDED))
        self._watch("backup.watch_whole", target, [row.pk], key)

    def _add_sync(self, target: Target, bucket: Described) -> None:
        row = self._row(target, SnapshotKind.S3_SYNC, target.aws_resource_id)
        row.region = bucket.details["region"]
        spec = backup_s3_sync.step(row, target)
        if isinstance(spec, str):
            self.fail(target, spec, row)
        else:
            self.syncs.append(spec)

    def _add_volume(self, target: Target, volume: dict[str, Any]) -> None:
        row = self._volume_row(target, volume, None, "")
        key = f"start-{row.pk}"
        payload = self._payload(target, f"volume: {row.source_id}", ec2_capture.tags_of(volume))
        payload |= {"volume": row.source_id, "snapshot": row.pk}
        payload["tags"] |= {tags.KIND: row.kind, **catalogue_tags.of_row(row)}
        self.starts.append(StepSpec("backup.start_volume", payload, key=key, run_if=RunIf.ENDED))
        self._watch("backup.watch_snapshots", target, [row.pk], key)

    def _add_instance_volumes(
        self, target: Target, parent: Snapshot, instance: dict[str, Any], described: dict[str, Any]
    ) -> None:
        devices = ec2_capture.ebs_volumes_of(instance)
        chosen = _chosen(target, list(devices))
        if not chosen:
            parent.status, parent.succeeded = SnapshotStatus.ERROR, False
            parent.error = "No volume of the instance is selected; change which volumes are backed up."
            return
        rows = {
            volume: self._volume_row(
                target, described.get(volume, {"VolumeId": volume}), parent, devices[volume]
            )
            for volume in chosen
        }
        root = next((v for v, device in devices.items() if device == instance.get("RootDeviceName")), None)
        left_out = [volume for volume in devices if volume not in rows]
        key = f"start-{parent.pk}"
        payload = self._payload(target, f"instance: {target.aws_resource_id}", {})
        payload |= {
            "instance": target.aws_resource_id,
            "snapshots": {volume: row.pk for volume, row in rows.items()},
            "exclude_boot": root in left_out,
            "exclude_volumes": [volume for volume in left_out if volume != root],
            "parent": parent.pk,
            # CreateSnapshots fails when a volume's tags and ours are too many together.
            "copy_tags": all(catalogue_tags.room(row) >= 0 for row in rows.values()),
        }
        payload["tags"][tags.KIND] = SnapshotKind.VOLUME
        if target.enable_agent_vss:
            refused = _vss_refused(target, instance, left_out)
            self.starts += backup_vss.steps(payload, key=key, server=self._server, refused=refused)
        else:
            self.starts.append(StepSpec("backup.start_instance", payload, key=key, run_if=RunIf.ENDED))
        self._watch("backup.watch_snapshots", target, [row.pk for row in rows.values()], key)
        self.watches.append(catalogue_tags.step(parent, list(rows.values()), after=key))

    def _add_image(self, target: Target, parent: Snapshot, kind: SnapshotKind) -> Snapshot:
        row = self._row(target, kind, target.aws_resource_id)
        row.source_name, row.instance_name, row.parent = target.name, target.name, parent
        key = f"image-{row.pk}"
        payload = self._payload(target, f"instance: {target.aws_resource_id}", parent.details["tags"])
        payload |= {
            "instance": target.aws_resource_id,
            "snapshot": row.pk,
            "no_reboot": not target.ami_reboot_option,
            "name": f"CPM-{self.policy.name}-{self.backup.pk}"[:90],
        }
        payload["tags"] |= {tags.KIND: kind, **catalogue_tags.of_row(row)}
        self.starts.append(StepSpec("backup.start_image", payload, key=key, run_if=RunIf.ENDED))
        self._watch("backup.watch_images", target, [row.pk], key)
        return row

    def _current_initial_ami(self, target: Target) -> Snapshot | None:
        """The instance's initial AMI of this policy, unless it is older than the rotation allows."""
        oldest = self.context.now - timedelta(days=self.server.days_until_single_ami_rotation)
        return (
            Snapshot.objects.filter(
                kind=SnapshotKind.INITIAL_AMI,
                source_id=target.aws_resource_id,
                region=target.aws_region,
                backup__policy=self.policy,
                status=SnapshotStatus.COMPLETED,
                start_time__gt=oldest,
            )
            .order_by("-start_time")
            .first()
        )

    @property
    def _server(self) -> str:
        return str(self.server.server_id)

    def _agent(self, target: Target, instance: dict[str, Any]) -> Agent:
        return Agent(target, self.policy.account_id, self._server, ec2_capture.is_windows(instance))

    def _watch(self, kind: str, target: Target, rows: list[int], after: str) -> None:
        what = {"backup.watch_images": "images", "backup.watch_snapshots": "snapshots"}
        payload = {
            "type": target.resource_type,
            "account": self.backup.account_id,
            "region": target.aws_region,
            "rows": rows,
            "what": what.get(kind, target.resource_type),
        }
        self.watches.append(StepSpec(kind, payload, key=f"watch-{after}", after=(after,)))

    def _count_snapshots(self) -> None:
        """Each snapshot says how many the run was to make, so that a rebuilt catalogue knows what is missing."""
        parents = {row.parent_id for row in self.rows}
        snapshots = [row for row in self.rows if row.kind != SnapshotKind.S3_SYNC]
        count = sum(row.pk not in parents for row in snapshots)
        for payload in self.payloads:
            payload["tags"][tags.COUNT] = str(count)

    def _payload(self, target: Target, what: str, source_tags: dict[str, str]) -> dict[str, Any]:
        assert self.backup.account is not None
        payload: dict[str, Any] = {
            "account": self.backup.account_id,
            "region": target.aws_region,
            "description": f"CPM policy {self.policy.name}|{what}",
            "source_tags": source_tags,
            "tags": {
                tags.SERVER: self._server,
                tags.POLICY: self.policy.name,
                tags.POLICY_ID: str(self.policy.pk),
                tags.BACKUP: str(self.backup.pk),
                tags.SOURCE: target.aws_resource_id,
                tags.ACCOUNT: self.backup.account.account_number,
            },
        }
        self.payloads.append(payload)
        return payload

    def _instance_row(self, target: Target, instance: dict[str, Any], described: dict[str, Any]) -> Snapshot:
        row = self._row(target, SnapshotKind.INSTANCE, target.aws_resource_id)
        row.details = ec2_capture.instance_details(instance, described) | instance["cpm_attributes"]
        row.source_name = row.instance_name = row.details["tags"].get("Name", "")
        target.name = row.source_name
        return row

    def _volume_row(
        self, target: Target, volume: dict[str, Any], parent: Snapshot | None, device: str
    ) -> Snapshot:
        row = self._row(target, SnapshotKind.VOLUME, volume["VolumeId"])
        row.parent = parent
        row.source_name = ec2_capture.tags_of(volume).get("Name", "")
        row.instance_id = target.aws_resource_id if parent else ""
        row.instance_name = parent.source_name if parent else ""
        row.device = device or next((a["Device"] for a in volume.get("Attachments", ())), "")
        row.capacity, row.encrypted = volume.get("Size"), bool(volume.get("Encrypted"))
        ends = (
            {d["volume_id"]: d["delete_on_termination"] for d in parent.details["block_devices"]}
            if parent
            else {}
        )
        row.details = ec2_capture.volume_details(
            volume, delete_on_termination=ends.get(volume["VolumeId"], False)
        )
        return row

    def _row(self, target: Target, kind: str, source_id: str) -> Snapshot:
        if not self._ids:
            self._ids = new_ids(Snapshot, 100)
        account = self.backup.account
        assert account is not None
        row = Snapshot(
            id=self._ids.pop(0),
            backup=self.backup,
            target=target,
            kind=kind,
            resource_type=target.resource_type,
            account=account,
            account_name=account.name,
            aws_account_number=account.account_number,
            region=target.aws_region,
            source_id=source_id,
        )
        self.rows.append(row)
        return row


def _kind_of(target: Target) -> str:
    if target.resource_type in WHOLE_BY_KEY:
        return WHOLE_BY_KEY[target.resource_type].kind
    if target.resource_type == S3_SYNCS:
        return SnapshotKind.S3_SYNC
    return SnapshotKind.INSTANCE if target.resource_type == INSTANCES else SnapshotKind.VOLUME


def _chosen(target: Target, volumes: list[str]) -> list[str]:
    listed = {volume.aws_resource_id for volume in target.volumes.all()}
    if target.which_volumes == WhichVolumes.INCLUDE:
        return [volume for volume in volumes if volume in listed]
    if target.which_volumes == WhichVolumes.EXCLUDE:
        return [volume for volume in volumes if volume not in listed]
    return volumes


def _vss_refused(target: Target, instance: dict[str, Any], left_out: list[str]) -> str:
    """Why AWS's VSS document cannot do what the target asks for; empty if it can."""
    if not ec2_capture.is_windows(instance):
        return "it is not a Windows instance."
    if left_out:
        return "VSS takes all volumes of an instance, and some are left out."
    if target.vss_volumes:
        return "AWS's VSS document takes all drives, and only some are asked for."
    return ""


def _after(spec: StepSpec, keys: tuple[str, ...]) -> StepSpec:
    return replace(spec, after=(*spec.after, *keys))
