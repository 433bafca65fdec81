"""Options of a policy for copies in S3 and for their archive."""

from collections.abc import Mapping
from typing import Any

from django.http.response import HttpResponseBase
from django.urls import path
from rest_framework import serializers
from rest_framework.request import Request

from api import serializers as shapes
from api.fields import Always, Boolean, Choice, Fields, Integer, Object
from api.views import Operation, Records
from cpm.lib.states import ArchiveClass, RetentionUnit, StorageClass
from cpm.models import Policy
from cpm.services import policy_s3

# What is copied, in the words of targets: volumes, be they targets themselves or parts of an instance.
RESOURCE_TYPE = "volumes"
FIELDS = Fields(
    archive_storage_class=Choice("archive_storage_class", ArchiveClass),
    copy_interval=Integer("s3_copy_interval"),
    # Spelled like this in the API.
    copy_to_glacier=Object(
        every_how=Integer("archive_every"), every_unit=Choice("archive_every_unit", RetentionUnit)
    ),
    delete_aws_snapshot_after_copy=Boolean("s3_delete_originals"),
    enable_copy_to_glacier=Boolean("archive_enabled"),
    enabled=Boolean("s3_enabled"),
    repository=Integer("s3_repository_id"),
    resource_type=Always(RESOURCE_TYPE, {"type": "string", "enum": [RESOURCE_TYPE]}),
    retain_in_glacier=Object(
        retain_duration=Integer("archive_keep"), retain_unit=Choice("archive_keep_unit", RetentionUnit)
    ),
    retention_generation_based=Object(
        enabled=Boolean("s3_keep_by_generations"), num_generations=Integer("s3_generations")
    ),
    retention_time_based=Object(
        enabled=Boolean("s3_keep_by_time"),
        every_how_many=Integer("s3_keep_time"),
        every_unit=Choice("s3_keep_time_unit", RetentionUnit),
    ),
    s3_storage_class=Choice("s3_storage_class", StorageClass),
)
COLUMNS: Mapping[str, str] = {shown: column for column, shown in policy_s3.SHOWN_AS.items()}


class ArchiveEveryBody(shapes.Body):
    every_how = shapes.Whole(required=False, help_text="At most one backup is archived in this time.")
    every_unit = shapes.Choice(RetentionUnit, required=False)


class ArchiveKeepBody(shapes.Body):
    retain_duration = shapes.Whole(
        required=False,
        help_text="Counts from the backup itself: at least a month more than the time in S3.",
    )
    retain_unit = shapes.Choice(RetentionUnit, required=False)


class GenerationsBody(shapes.Body):
    enabled = serializers.BooleanField(required=False, help_text="Keep copies by their number.")
    num_generations = shapes.Whole(required=False, help_text="How many copied backups to keep.")


class TimeBody(shapes.Body):
    enabled = serializers.BooleanField(required=False, help_text="Keep copies by their age.")
    every_how_many = shapes.Whole(required=False, help_text="Copies are kept for this long, a week at least.")
    every_unit = shapes.Choice(RetentionUnit, required=False)


class CopyToS3Body(shapes.Body):
    """Whether and where backups are copied to S3, and how long they stay. What is left out keeps its value.

    With both rules of retention on, a copy goes only when both allow it.
    """

    archive_storage_class = shapes.Choice(ArchiveClass, required=False)
    copy_interval = shapes.Whole(required=False, help_text="Every how many backups one is copied.")
    copy_to_glacier = ArchiveEveryBody(required=False)
    delete_aws_snapshot_after_copy = serializers.BooleanField(
        required=False, help_text="Delete the snapshots in AWS as soon as they are copied."
    )
    enable_copy_to_glacier = serializers.BooleanField(
        required=False, help_text="Archive copies whose time in S3 is over."
    )
    enabled = serializers.BooleanField(required=False, help_text="Copy backups to the repository.")
    repository = shapes.Id(
        required=False, allow_null=True, help_text="A repository of the policy's user; null means none."
    )
    retain_in_glacier = ArchiveKeepBody(required=False)
    retention_generation_based = GenerationsBody(required=False)
    retention_time_based = TimeBody(required=False)
    s3_storage_class = shapes.Choice(
        StorageClass, required=False, help_text="Infrequent Access bills at least 30 days."
    )


class PolicyCopyToS3(Records):
    """Copies of a policy's backups in S3."""

    model, fields, noun = Policy, FIELDS, "policy"
    operations = {
        "retrieve": Operation("policies.read", since="1.1.0", summary="Show a policy's S3 options"),
        "update": Operation(
            "policies.change", since="1.1.0", body=CopyToS3Body, summary="Change a policy's S3 options"
        ),
    }

    def update(self, request: Request, id: int) -> HttpResponseBase:
        found = self.find(id)
        policy_s3.set_copy_to_s3(actor=self.actor, policy=found, **columns(self.body()))
        return self.show(id)


def columns(body: Mapping[str, Any], within: str = "") -> Any:
    """What a body sets, by the options of the service."""
    found: dict[str, Any] = {}
    for name, value in body.items():
        if isinstance(value, Mapping):
            found |= columns(value, f"{name}.")
        else:
            found[COLUMNS[within + name]] = value
    return found


urlpatterns = [
    path("policies/<id:id>/copy_to_s3/", PolicyCopyToS3.as_view({"get": "retrieve", "put": "update"})),
]
