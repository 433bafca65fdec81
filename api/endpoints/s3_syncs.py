"""S3 syncs under a policy: buckets whose objects are mirrored into another bucket. Reading asks AWS nothing."""

from typing import Any

from django.db.models.fields.json import KT
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from api import serializers as shapes
from api.endpoints.targets import OF_POLICY, ROWS, OfType
from api.fields import Boolean, Choice, Fields, Integer, Text
from api.views import Operation
from cpm.lib.states import SyncStorageClass
from cpm.services import s3_sync_targets

FIELDS = Fields(
    creation_date=Text("details__creation_date"),
    delete_extra=Boolean("options__delete_extra"),
    destination_account=Integer("options__destination_account"),
    destination_bucket_name=Text("options__destination_bucket_name"),
    destination_prefix=Text("options__destination_prefix"),
    id=Integer("id"),
    is_encrypted=Boolean("details__is_encrypted"),
    keep_source_prefix=Boolean("options__keep_source_prefix"),
    name=Text("aws_resource_id"),
    source_prefix=Text("options__source_prefix"),
    status=Text("details__status"),
    storage_class=Choice(KT("options__storage_class"), SyncStorageClass),
)


class S3SyncBody(shapes.Body):
    """What is mirrored to where. What is left out keeps its value."""

    delete_extra = serializers.BooleanField(
        required=False, help_text="Whether objects that the source does not have are deleted in the destination."
    )
    destination_account = shapes.Id(
        required=False, allow_null=True, help_text="Account of the destination bucket; the policy's if left out."
    )
    destination_bucket_name = serializers.CharField(max_length=255, help_text="Name of the bucket to copy to.")
    destination_prefix = shapes.Words(max_length=900, trim_whitespace=False, help_text="Folder in the destination.")
    keep_source_prefix = serializers.BooleanField(
        required=False, help_text="Whether the source's prefix is a part of the keys in the destination."
    )
    name = serializers.CharField(max_length=255, help_text="Name of the bucket to copy from.")
    source_prefix = shapes.Words(max_length=900, trim_whitespace=False, help_text="Folder of the source, if not all of it is copied.")
    storage_class = shapes.Choice(SyncStorageClass, required=False)


class S3Syncs(OfType):
    """S3 syncs of a policy."""

    fields, resource_type, noun = FIELDS, s3_sync_targets.KEY, "S3 sync"
    operations = {
        "list": Operation("policies.read", since="1.5.0", many=True, summary="List a policy's S3 syncs"),
        "create": Operation(
            "policies.change", since="1.5.0", body=S3SyncBody, answers=201, summary="Put an S3 sync under a policy"
        ),
        "retrieve": Operation("policies.read", since="1.5.0", summary="Show an S3 sync of a policy"),
        "update": Operation(
            "policies.change", since="1.5.0", body=S3SyncBody, summary="Change an S3 sync of a policy"
        ),
        "destroy": Operation(
            "policies.change", since="1.5.0", answers=204, content=False,
            summary="Take an S3 sync out of a policy",
        ),
    }  # fmt: skip

    def create(self, request: Request, policy_id: int) -> HttpResponseBase:
        made = s3_sync_targets.add(actor=self.actor, policy=self.policy(), now=timezone.now(), **self.body())
        return self.show(made.pk)

    def update(self, request: Request, policy_id: int, id: int) -> HttpResponseBase:
        s3_sync_targets.update(actor=self.actor, target=self.find(id), now=timezone.now(), **self.body())
        return self.show(id)


ONE: dict[str, Any] = {"get": "retrieve", "put": "update", "delete": "destroy"}

urlpatterns = [
    path(f"{OF_POLICY}/s3syncs/", S3Syncs.as_view(ROWS)),
    path(f"{OF_POLICY}/s3syncs/<id:id>/", S3Syncs.as_view(ONE)),
]
