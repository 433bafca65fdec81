"""Targets of a policy: EC2 instances with their selected volumes, and EBS volumes. Reading asks AWS nothing."""

from typing import Any, ClassVar

from django.db.models.fields.json import KT
from django.db.models.functions import Coalesce
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api import serializers as shapes
from api.endpoints.policies import OfPolicy
from api.fields import Always, Boolean, Choice, Fields, Integer, Object, Text
from api.views import Operation, Records, Rows
from cpm.lib.states import AmiOption, WhichVolumes
from cpm.models import Target, TargetVolume
from cpm.services import targets
from cpm.services.targets import INSTANCES, VOLUMES

INSTANCE_FIELDS = Fields(
    ami_backup_option=Choice("ami_backup_option", AmiOption),
    ami_reboot_option=Boolean("ami_reboot_option"),
    application_consistent_backup=Object(
        agent_script_timeout=Integer("agent_script_timeout"),
        collect_script_output=Boolean("collect_script_output"),
        enable_agent_scripts=Boolean("enable_agent_scripts"),
        enable_agent_vss=Boolean("enable_agent_vss"),
        use_remote_agent=Boolean("use_remote_agent"),
        vss_volumes=Text("vss_volumes"),
    ),
    aws_region=Text("aws_region"),
    aws_resource_id=Text("aws_resource_id"),
    aws_resource_type=Text(Coalesce(KT("details__instance_type"), KT("details__volume_type"))),
    aws_root_device=Text(Coalesce(KT("options__aws_root_device"), KT("details__root_device"))),
    force_full_s3_copy=Boolean("force_full_s3_copy"),
    has_product_code=Boolean("details__has_product_code"),
    id=Integer("id"),
    image_id=Text("details__image_id"),
    name=Text("name"),
    platform=Text("details__platform"),
    resource_type=Text("resource_type"),
    root_device_type=Text("details__root_device_type"),
    state=Text(Coalesce(KT("details__state"), KT("details__status"))),
    tagged=Boolean("tagged"),
    which_volumes=Choice("which_volumes", WhichVolumes),
)
VOLUME_FIELDS = Fields(
    aws_region=Text("aws_region"),
    aws_resource_id=Text("aws_resource_id"),
    aws_resource_type=Text("details__volume_type"),
    capacity=Integer("details__capacity"),
    created=Text("details__created"),
    encrypted=Boolean("details__encrypted"),
    id=Integer("id"),
    iops=Integer("details__iops"),
    name=Text("name"),
    resource_type=Text("resource_type"),
    status=Text("details__status"),
    tagged=Boolean("tagged"),
    zone=Text("details__zone"),
)
SELECTED_FIELDS = Fields(
    aws_resource_id=Text("aws_resource_id"),
    aws_resource_type=Text("details__volume_type"),
    capacity=Integer("details__capacity"),
    created=Text("details__created"),
    device=Text("details__device"),
    encrypted=Boolean("details__encrypted"),
    id=Integer("id"),
    iops=Integer("details__iops"),
    name=Text("details__name"),
    resource_type=Always(VOLUMES, {"type": "string"}),
    status=Text("details__status"),
    zone=Text("details__zone"),
)


class AgentBody(shapes.Body):
    """Application consistency, which only Windows instances have."""

    agent_script_timeout = shapes.Whole(required=False, help_text="Seconds until a script is killed.")
    collect_script_output = serializers.BooleanField(required=False)
    enable_agent_scripts = serializers.BooleanField(required=False)
    enable_agent_vss = serializers.BooleanField(required=False)
    use_remote_agent = serializers.BooleanField(required=False)
    vss_volumes = shapes.Words(max_length=255, help_text="Drives as c:,d: or nothing for all.")


class InstanceBody(shapes.Body):
    """How an instance is backed up. What is left out keeps its value."""

    ami_backup_option = shapes.Choice(AmiOption, required=False)
    ami_reboot_option = serializers.BooleanField(required=False)
    application_consistent_backup = AgentBody(required=False, allow_null=True)
    aws_root_device = shapes.Words(max_length=64, help_text="Root device, if it is not the one AWS names.")
    force_full_s3_copy = serializers.BooleanField(required=False)
    which_volumes = shapes.Choice(WhichVolumes, required=False)


class NewInstanceBody(InstanceBody):
    aws_region = serializers.CharField(max_length=32, help_text="Name of the region, as us-east-1.")
    aws_resource_id = serializers.CharField(max_length=255, help_text="Id of the instance in AWS.")


class NewVolumeBody(shapes.Body):
    aws_region = serializers.CharField(max_length=32, help_text="Name of the region, as us-east-1.")
    aws_resource_id = serializers.CharField(max_length=255, help_text="Id of the volume in AWS.")


class SelectedVolumeBody(shapes.Body):
    aws_resource_id = serializers.CharField(max_length=64, help_text="Id of a volume of the instance.")


class Targets(OfPolicy):
    """All targets of a policy; what a type of resource does not have is null."""

    model, fields, noun = Target, INSTANCE_FIELDS, "target"
    operations = {
        "list": Operation("policies.read", since="1.1.0", many=True, summary="List a policy's targets"),
    }


class OfType(Targets):
    """Targets of one type of resource."""

    resource_type: ClassVar[str]

    def narrow(self, queryset: Rows) -> Rows:
        return super().narrow(queryset).filter(resource_type=self.resource_type)

    def where(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body's region and id under the names that services use."""
        return {
            "region": body.pop("aws_region"),
            "resource_id": body.pop("aws_resource_id"),
            "now": timezone.now(),
        }

    def destroy(self, request: Request, policy_id: int, id: int) -> Response:
        targets.remove(actor=self.actor, target=self.find(id))
        return self.done()


class Instances(OfType):
    """EC2 instances under a policy."""

    resource_type, noun = INSTANCES, "instance"
    operations = {
        "list": Operation("policies.read", since="1.0.0", many=True, summary="List a policy's instances"),
        "create": Operation(
            "policies.change", since="1.2.0", body=NewInstanceBody, answers=201,
            summary="Put an instance under a policy",
        ),
        "retrieve": Operation("policies.read", since="1.0.0", summary="Show an instance of a policy"),
        "update": Operation(
            "policies.change", since="1.2.0", body=InstanceBody, summary="Change an instance of a policy"
        ),
        "destroy": Operation(
            "policies.change", since="1.0.0", answers=204, content=False,
            summary="Take an instance out of a policy",
        ),
    }  # fmt: skip

    def create(self, request: Request, policy_id: int) -> HttpResponseBase:
        policy, body = self.policy(), self.flat_body()
        made = targets.add_instance(actor=self.actor, policy=policy, **self.where(body), **body)
        return self.show(made.pk)

    def update(self, request: Request, policy_id: int, id: int) -> HttpResponseBase:
        targets.update_instance(actor=self.actor, target=self.find(id), **self.flat_body())
        return self.show(id)

    def flat_body(self) -> dict[str, Any]:
        body = self.body()
        agent = body.pop("application_consistent_backup", None) or {}
        return {**body, **agent}


class Volumes(OfType):
    """EBS volumes under a policy, independent of instances."""

    fields, resource_type, noun = VOLUME_FIELDS, VOLUMES, "volume"
    operations = {
        "list": Operation("policies.read", since="1.0.0", many=True, summary="List a policy's volumes"),
        "create": Operation(
            "policies.change", since="1.0.0", body=NewVolumeBody, answers=201,
            summary="Put a volume under a policy",
        ),
        "retrieve": Operation("policies.read", since="1.0.0", summary="Show a volume of a policy"),
        "destroy": Operation(
            "policies.change", since="1.0.0", answers=204, content=False,
            summary="Take a volume out of a policy",
        ),
    }  # fmt: skip

    def create(self, request: Request, policy_id: int) -> HttpResponseBase:
        made = targets.add_volume(actor=self.actor, policy=self.policy(), **self.where(self.body()))
        return self.show(made.pk)


class SelectedVolumes(Records):
    """Volumes of an instance that `which_volumes` includes or excludes."""

    model, fields, noun = TargetVolume, SELECTED_FIELDS, "volume"
    operations = {
        "list": Operation("policies.read", since="1.0.0", many=True, summary="List an instance's volumes"),
        "create": Operation(
            "policies.change", since="1.0.0", body=SelectedVolumeBody, answers=201,
            summary="Select a volume of an instance",
        ),
        "retrieve": Operation("policies.read", since="1.0.0", summary="Show a volume of an instance"),
        "destroy": Operation(
            "policies.change", since="1.0.0", answers=204, content=False,
            summary="Unselect a volume of an instance",
        ),
    }  # fmt: skip

    def target(self) -> Target:
        instances = Target.objects.filter(policy=self.kwargs["policy_id"], resource_type=INSTANCES)
        found: Target = self.found(instances, self.kwargs["instance_id"], "instance")
        return found

    def narrow(self, queryset: Rows) -> Rows:
        return queryset.filter(target=self.target())

    def create(self, request: Request, policy_id: int, instance_id: int) -> HttpResponseBase:
        target = self.target()
        resource_id = self.body()["aws_resource_id"]
        made = targets.add_instance_volume(actor=self.actor, target=target, resource_id=resource_id)
        return self.show(made.pk)

    def destroy(self, request: Request, policy_id: int, instance_id: int, id: int) -> Response:
        targets.remove_instance_volume(actor=self.actor, volume=self.find(id))
        return self.done()


ROWS: dict[str, Any] = {"get": "list", "post": "create"}
OF_POLICY = "policies/<id:policy_id>/targets"

urlpatterns = [
    path(f"{OF_POLICY}/", Targets.as_view({"get": "list"})),
    path(f"{OF_POLICY}/instances/", Instances.as_view(ROWS)),
    path(
        f"{OF_POLICY}/instances/<id:id>/",
        Instances.as_view({"get": "retrieve", "put": "update", "delete": "destroy"}),
    ),
    path(f"{OF_POLICY}/instances/<id:instance_id>/volumes/", SelectedVolumes.as_view(ROWS)),
    path(
        f"{OF_POLICY}/instances/<id:instance_id>/volumes/<id:id>/",
        SelectedVolumes.as_view({"get": "retrieve", "delete": "destroy"}),
    ),
    path(f"{OF_POLICY}/volumes/", Volumes.as_view(ROWS)),
    path(f"{OF_POLICY}/volumes/<id:id>/", Volumes.as_view({"get": "retrieve", "delete": "destroy"})),
]
