"""Recovering volumes and instances from snapshots, and what helps to choose an image."""

from collections.abc import Callable
from typing import Any, ClassVar

from django.db.models import JSONField, Value
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from api import serializers as shapes
from api.endpoints.recoveries import FIELDS as RECOVERY_FIELDS
from api.endpoints.snapshots import DrVolumes, Instances, OfKind, Volumes
from api.fields import Always, Fields, Integer, Text
from api.filters import Exactly, Flag, Id
from api.views import Operation
from cpm.models import Account, Recovery, Snapshot
from cpm.services import images, recoveries, scope

FROM_AWS = Value(None, output_field=JSONField())
MATCH_TYPES = {
    "E": "exact match", "C": "same name and description", "N": "same name", "D": "same description",
    "A": "similar name", "S": "similar description",
}  # fmt: skip

IMAGE_FIELDS = Fields(
    aws_hypervisor=Text(FROM_AWS),
    aws_image_id=Text(FROM_AWS),
    aws_region=Text(FROM_AWS),
    aws_virtualization_type=Text(FROM_AWS),
    description=Text(FROM_AWS),
    name=Text(FROM_AWS),
    root_device_name=Text(FROM_AWS),
    root_device_type=Text(FROM_AWS),
)
AMI_FIELDS = IMAGE_FIELDS.extended(
    aws_owner_alias=Text(FROM_AWS), aws_owner_id=Text(FROM_AWS), id=Integer(FROM_AWS)
)
SIMILAR_FIELDS = IMAGE_FIELDS.extended(
    kernel_id=Text(FROM_AWS),
    match_type=Always(None, {"type": "string", "enum": list(MATCH_TYPES)}),
    ramdisk_id=Text(FROM_AWS),
)
NIC_FIELDS = Fields(display_name=Text(FROM_AWS), id=Text(FROM_AWS))


class Word(serializers.CharField):
    """An optional short text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"required": False, "allow_blank": True, "max_length": 1024, **options})


class Words(serializers.ListField):
    """An optional list of short texts."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            child=serializers.CharField(max_length=1024), required=False, max_length=100, **options
        )


class OneOf(serializers.ChoiceField):
    """An optional word out of a few."""

    def __init__(self, *words: str, **options: Any) -> None:
        super().__init__(choices=words, required=False, **options)


class Switch(serializers.BooleanField):
    """Optional true or false."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"required": False, **options})


class CredentialsBody(shapes.Body):
    """Keys for this recovery alone; they are never stored in the clear and erased when it is over."""

    aws_access_key = Word()
    aws_secret_key = Word()


class VolumeRecoveryBody(shapes.Body):
    """How a volume comes back. What is left out is as it was."""

    attach_behaviour = OneOf(
        "attach_free", "switch_no_delete", "switch_and_delete",
        help_text="Attach if the device is free; or replace what is there, keeping or deleting it.",
    )  # fmt: skip
    attach_to = Word(help_text="Instance to attach the new volume to.")
    aws_resource_type = Word(help_text="Volume type.")
    capacity = shapes.Whole(required=False, help_text="GiB; not less than the snapshot's.")
    credentials = CredentialsBody(required=False)
    device = Word(help_text="Device name on the instance.")
    iops = shapes.Whole(required=False)
    preserve_tags = Switch(default=True)
    to_account = shapes.Id(required=False)
    zone = Word()


class RecoveredVolumeBody(shapes.Body):
    """How one volume of the instance comes back; `volume_id` is that of the backed-up volume."""

    capacity = shapes.Whole(required=False)
    delete_on_termination = Switch()
    device = Word()
    iops = shapes.Whole(required=False)
    preserve_tags = Switch(default=True)
    volume_id = Word()
    volume_type = OneOf("standard", "io1", "io2", "gp2", "gp3", "sc1", "st1")


class EphemeralBody(shapes.Body):
    """An instance-store volume. `epehemeral` is spelled like this in the API."""

    device = Word()
    epehemeral = Word()


class InstanceRecoveryBody(shapes.Body):
    """How an instance comes back. What is left out is as it was."""

    additional_nics = Words()
    ami_handling = OneOf(
        "D", "L", "O", help_text="Deregister the temporary image, leave it, or only make it."
    )
    architecture = OneOf("i386", "x86_64", "arm64")
    auto_assign_public_ip = OneOf("default", "enable", "disable")
    credentials = CredentialsBody(required=False)
    disable_api_termination = Switch()
    ebs_optimized = Switch()
    ena_support = Switch()
    enable_user_data = Switch()
    ephemeral_devices = EphemeralBody(many=True, required=False)
    from_account = shapes.Id(required=False)
    image_id = Word()
    instance_profile_arn = Word()
    # The contract's list of types is years old; AWS decides.
    instance_type = Word()
    instance_volumes = RecoveredVolumeBody(many=True, required=False)
    kernel_id = Word()
    key_pair = Word()
    monitored = Switch()
    num_instances_to_recover = shapes.Whole(default=1, min_value=1, max_value=100)
    placement = OneOf("Z", "V", "G", help_text="Availability zone, VPC or placement group.")
    placement_group = Word()
    preserve_tags = Switch(default=True)
    ram_disk_id = Word()
    restore_from = OneOf("S", "I", help_text="From the root volume's snapshot, or from an image.")
    security_groups = Words()
    shutdown_behaviour = OneOf("stop", "terminate")
    tenancy = OneOf("default", "dedicated", "host")
    to_account = shapes.Id(required=False)
    to_region = shapes.Id(required=False)
    user_data = serializers.CharField(
        required=False, allow_blank=True, max_length=16384, trim_whitespace=False
    )
    vpc = Words()
    vpc_assign_ip = Word()
    vpc_subnet_id = Words()
    zone = Word()


def recovering(body: type[shapes.Body], since: str, noun: str) -> dict[str, Operation]:
    return {
        "recover": Operation(
            "recoveries.start", since=since, body=body, answers=202, fields=RECOVERY_FIELDS, starts_work=True,
            summary=f"Recover {noun}",
        )
    }  # fmt: skip


class Recovering(OfKind):
    """Recovery from the snapshot records of one kind; `service` starts it."""

    service: ClassVar[Callable[..., Recovery]]

    def recover(self, request: Request, backup_id: int, snapshot_record_id: int) -> HttpResponseBase:
        return self.once(lambda: self._recover(self.find(snapshot_record_id)))

    def _recover(self, snapshot: Snapshot) -> HttpResponseBase:
        wanted = self.body()
        made = self.service(
            actor=self.actor,
            snapshot=snapshot,
            credentials=wanted.pop("credentials", None),
            request=wanted,
            now=timezone.now(),
        )
        return self.show_one(RECOVERY_FIELDS.on(Recovery).filter(pk=made.pk))


class RecoverVolume(Recovering, Volumes):
    """Recovery of a volume from its snapshot."""

    service = staticmethod(recoveries.recover_volume)
    operations = recovering(VolumeRecoveryBody, "1.2.0", "a volume")


class RecoverDrVolume(RecoverVolume):
    """Recovery of a volume from its copy in another region or account."""

    kind, noun = DrVolumes.kind, DrVolumes.noun
    operations = recovering(VolumeRecoveryBody, "1.2.0", "a volume from its DR copy")


class RecoverInstance(Recovering, Instances):
    """Recovery of an instance."""

    service = staticmethod(recoveries.recover_instance)
    operations = recovering(InstanceRecoveryBody, "1.3.0", "an instance")


class InstanceImages(Instances):
    """Images to recover an instance from, as AWS shows them now, and the interfaces that it had."""

    filters = {}
    operations = {
        "ami": Operation(
            "backups.read", since="1.2.0", many=True, fields=AMI_FIELDS, summary="Show the instance's image"
        ),
        "nics": Operation(
            "backups.read", since="1.2.0", many=True, fields=NIC_FIELDS, summary="List additional interfaces"
        ),
        "similar": Operation(
            "backups.read", since="1.2.0", many=True, fields=SIMILAR_FIELDS, summary="Find similar images",
            filters={
                "account": Id(), "aws_region": Exactly(), "exact_match": Flag(),
            },
        ),
    }  # fmt: skip

    def ami(self, request: Request, backup_id: int, snapshot_id: int) -> HttpResponseBase:
        return self.listed(images.ami_of(actor=self.actor, snapshot=self.find(snapshot_id)))

    def nics(self, request: Request, backup_id: int, snapshot_id: int) -> HttpResponseBase:
        return self.listed(images.additional_nics(actor=self.actor, snapshot=self.find(snapshot_id)))

    def similar(self, request: Request, backup_id: int, snapshot_id: int) -> HttpResponseBase:
        snapshot = self.find(snapshot_id)
        wanted = self.values()
        account = wanted.get("account")
        found = images.find_similar(
            actor=self.actor,
            snapshot=snapshot,
            region=wanted.get("aws_region"),
            account=self._account(account) if account else None,
            exact=bool(wanted.get("exact_match")),
        )
        return self.listed(found)

    def _account(self, pk: int) -> Account:
        return scope.referred(self.scoped(Account.objects.all()), pk, what="account", field="account")


SNAPSHOTS = "backups/<id:backup_id>/snapshots"
urlpatterns = [
    path(f"{SNAPSHOTS}/volumes/<id:snapshot_record_id>/recover/", RecoverVolume.as_view({"post": "recover"})),
    path(
        f"{SNAPSHOTS}/dr_volumes/<id:snapshot_record_id>/recover/",
        RecoverDrVolume.as_view({"post": "recover"}),
    ),
    path(
        f"{SNAPSHOTS}/instances/<id:snapshot_record_id>/recover/",
        RecoverInstance.as_view({"post": "recover"}),
    ),
    path(f"{SNAPSHOTS}/instances/<id:snapshot_id>/ami/", InstanceImages.as_view({"get": "ami"})),
    path(
        f"{SNAPSHOTS}/instances/<id:snapshot_id>/aws_additional_nics/",
        InstanceImages.as_view({"get": "nics"}),
    ),
    path(
        f"{SNAPSHOTS}/instances/<id:snapshot_id>/find_similar_ami/",
        InstanceImages.as_view({"get": "similar"}),
    ),
]
