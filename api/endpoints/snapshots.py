"""Snapshot records of a backup, one list per kind."""

from typing import Any, ClassVar

from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from api.fields import Boolean, Fields, Integer, Items, Moment, NumberAsText, Text, TextOrNull
from api.filters import Exactly, Filter, Ids, Matching, Since, Until
from api.views import Operation, Records, Rows
from cpm.lib.states import WITHOUT_SNAPSHOT, SnapshotKind
from cpm.models import Backup, Region, Snapshot
from cpm.reports.snapshots import SNAPSHOT_TYPE
from cpm.services import backup_deletion

SNAPSHOT_FIELDS = Fields(
    account_name=Text("account_name"),
    aws_image_id=Text("aws_id"),
    backed_up_resource_id=Text("source_id"),
    deletion_time=Moment("deletion_time"),
    end_time=Moment("end_time"),
    id=Integer("id"),
    region=Text("region"),
    snapshot_type=Text(SNAPSHOT_TYPE),
    succeeded=Boolean("succeeded"),
)
AMI_FIELDS = SNAPSHOT_FIELDS.extended(account_id=Integer("account_id"))
DR_AMI_FIELDS = AMI_FIELDS.extended(original_aws_image_id=Text("details__original_aws_image_id"))

# The account without a prefix is the one that was backed up, the other the one that holds the snapshot.
SHARED_VOLUME_FIELDS = Fields(
    account_id=Integer("backup__account_id"),
    account_name=Text("backup__account_name"),
    aws_account_number=Text("backup__account__account_number"),
    backed_up_resource_id=Text("source_id"),
    backed_up_resource_name=Text("source_name"),
    backup_id=NumberAsText("backup_id"),
    capacity=Integer("capacity"),
    deletion_time=Moment("deletion_time"),
    device=Text("device"),
    encrypted=Boolean("encrypted"),
    end_time=Moment("end_time"),
    id=Integer("id"),
    instance_id=TextOrNull("instance_id"),
    instance_name=TextOrNull("instance_name"),
    iops=Integer("details__iops"),
    policy_name=Text("backup__policy_name"),
    region=Text("region"),
    snapshot_account_id=Integer("account_id"),
    snapshot_account_name=Text("account_name"),
    snapshot_aws_account_number=Text("aws_account_number"),
    snapshot_id=Text("aws_id"),
    snapshot_type=Text(SNAPSHOT_TYPE),
    start_time=Moment("backup__start_time"),
    status=Text("status"),
    succeeded=Boolean("succeeded"),
    type=Text("details__type"),
    username=Text("backup__user__username"),
    zone=Text("details__zone"),
)
VOLUME_FIELDS = SHARED_VOLUME_FIELDS.extended(
    cbt_changed_size_mb=Integer("cbt_changed_size_mb"), cbt_valid_size_mb=Integer("cbt_valid_size_mb")
)
DR_VOLUME_FIELDS = SHARED_VOLUME_FIELDS.extended(
    dr_account=Text("details__dr_account"), original_snap=Text("details__original_snap")
)
INSTANCE_FIELDS = Fields(
    account_id=Integer("account_id"),
    aws_architecture=Text("details__aws_architecture"),
    aws_disable_api_termination=Boolean("details__aws_disable_api_termination"),
    aws_image_id=Text("details__aws_image_id"),
    aws_instance_type=Text("details__aws_instance_type"),
    aws_ip_address=Text("details__aws_ip_address"),
    aws_kernel_id=Text("details__aws_kernel_id"),
    aws_key_name=Text("details__aws_key_name"),
    aws_monitored=Boolean("details__aws_monitored"),
    aws_ram_disk_id=Text("details__aws_ram_disk_id"),
    aws_root_device=Text("details__aws_root_device"),
    aws_security_groups=Items("details__aws_security_groups", of="string"),
    aws_shutdown_behaviour=Text("details__aws_shutdown_behaviour"),
    aws_subnet_id=Text("details__aws_subnet_id"),
    aws_user_data=Text("details__aws_user_data"),
    aws_virtualization_type=Text("details__aws_virtualization_type"),
    backed_up_resource_id=Text("source_id"),
    backed_up_resource_name=Text("source_name"),
    ebs_optimized=Boolean("details__ebs_optimized"),
    ena_support=Boolean("details__ena_support"),
    id=Integer("id"),
    instance_profile_arn=Text("details__instance_profile_arn"),
    is_root_device_ebs=Boolean("details__is_root_device_ebs"),
    platform=Text("details__platform"),
    region=Text("region"),
    tenancy=Text("details__tenancy"),
)


def in_region(path: str) -> Filter:
    """Rows whose region's name, at that path, is that of a region's id."""

    def narrow(rows: Rows, text: str) -> Rows:
        names = Region.objects.filter(pk__in=Ids.read(text)).values("aws_region")
        return rows.filter(**{f"{path}__in": names})

    return Matching(narrow, "An id of a region.")


RESOURCE_FILTER: dict[str, Filter] = {
    "resource": Matching(
        lambda rows, text: rows.filter(source_id__icontains=text), "A part of the resource's AWS id."
    ),
}
DR_VOLUME_FILTERS: dict[str, Filter] = {
    "account": Ids("backup__account_id"),
    "account_name": Exactly("backup__account_name"),
    "aws_region": Exactly("region"),
    "aws_resource_id": Exactly("source_id"),
    "from_time": Since("backup__start_time"),
    "region": in_region("region"),
    "to_time": Until("backup__start_time"),
    **RESOURCE_FILTER,
}
VOLUME_FILTERS = {**DR_VOLUME_FILTERS, "user": Ids("backup__user_id")}


class OfBackup(Records):
    """Snapshot records of the backup in the path."""

    model, noun = Snapshot, "snapshot"

    def backup(self) -> Backup:
        found: Backup = self.found(Backup.objects.all(), self.kwargs["backup_id"], "backup")
        return found

    def narrow(self, queryset: Rows) -> Rows:
        return queryset.filter(backup=self.backup())


class AllSnapshots(OfBackup):
    """What the backup holds in AWS, whatever its kind; the configurations of instances and S3 syncs are not snapshots."""

    fields = SNAPSHOT_FIELDS
    operations = {
        "list": Operation(
            "backups.list_snapshots",
            since="1.1.0",
            many=True,
            paged=False,
            summary="List a backup's snapshots",
        ),
        "delete_all": Operation(
            "backups.change", since="1.0.0", answers=204, summary="Delete a backup's snapshots"
        ),
    }

    def narrow(self, queryset: Rows) -> Rows:
        return super().narrow(queryset).exclude(kind__in=WITHOUT_SNAPSHOT)

    def delete_all(self, request: Request, backup_id: int) -> Response:
        backup_deletion.delete_snapshots(actor=self.actor, backup=self.backup())
        return self.done()


def operations(noun: str, *, since: str = "1.1.0", deletable: bool = True) -> dict[str, Operation]:
    """The operations that most kinds of snapshots have."""
    found = {
        "list": Operation("backups.read", since=since, many=True, summary=f"List a backup's {noun}s"),
        "retrieve": Operation("backups.read", since=since, summary=f"Show a backup's {noun}"),
    }
    if deletable:
        found["destroy"] = Operation(
            "backups.change", since=since, answers=204, summary=f"Delete a backup's {noun}"
        )
    return found


class OfKind(OfBackup):
    """Snapshot records of one kind."""

    kind: ClassVar[str]

    def narrow(self, queryset: Rows) -> Rows:
        return super().narrow(queryset).filter(kind=self.kind)

    def destroy(self, request: Request, backup_id: int, id: int) -> Response:
        backup_deletion.delete_snapshot(actor=self.actor, snapshot=self.find(id))
        return self.done()


class Instances(OfKind):
    """The configurations of the backed-up instances."""

    kind, fields, noun, filters = SnapshotKind.INSTANCE, INSTANCE_FIELDS, "instance", RESOURCE_FILTER
    operations = operations("instance", since="1.2.0", deletable=False)


class Volumes(OfKind):
    kind, fields, noun, filters = SnapshotKind.VOLUME, VOLUME_FIELDS, "volume snapshot", VOLUME_FILTERS
    operations = operations("volume snapshot")


class DrVolumes(OfKind):
    kind, fields, filters = SnapshotKind.DR_VOLUME, DR_VOLUME_FIELDS, DR_VOLUME_FILTERS
    noun = "DR volume snapshot"
    operations = operations("DR volume snapshot")


class InitialAmis(OfKind):
    kind, fields, noun, filters = SnapshotKind.INITIAL_AMI, SNAPSHOT_FIELDS, "initial AMI", RESOURCE_FILTER
    operations = operations("initial AMI")


class DrInitialAmis(OfKind):
    kind, fields, filters = SnapshotKind.DR_INITIAL_AMI, DR_AMI_FIELDS, RESOURCE_FILTER
    noun = "DR initial AMI"
    operations = operations("DR initial AMI")


class OnlyAmis(OfKind):
    kind, fields, noun, filters = SnapshotKind.ONLY_AMI, AMI_FIELDS, "AMI", RESOURCE_FILTER
    operations = operations("AMI")


class OnlyDrAmis(OfKind):
    kind, fields, noun, filters = SnapshotKind.ONLY_DR_AMI, DR_AMI_FIELDS, "DR AMI", RESOURCE_FILTER
    operations = operations("DR AMI")


def routes(name: str, view: type[OfKind]) -> list[Any]:
    one: dict[str, Any] = {"get": "retrieve"} | (
        {"delete": "destroy"} if "destroy" in view.operations else {}
    )
    return [
        path(f"backups/<id:backup_id>/snapshots/{name}/", view.as_view({"get": "list"})),
        path(f"backups/<id:backup_id>/snapshots/{name}/<id:id>/", view.as_view(one)),
    ]


urlpatterns = [
    path("backups/<id:backup_id>/snapshots/", AllSnapshots.as_view({"get": "list", "delete": "delete_all"})),
    *routes("instances", Instances),
    *routes("volumes", Volumes),
    *routes("dr_volumes", DrVolumes),
    *routes("initial_amis", InitialAmis),
    *routes("dr_initial_amis", DrInitialAmis),
    *routes("only_amis", OnlyAmis),
    *routes("only_dr_amis", OnlyDrAmis),
]
