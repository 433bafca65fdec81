"""Worker tags: what the temporary things that workers make in AWS are tagged with, by account."""

from django.http.response import HttpResponseBase
from django.urls import path
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api import serializers as shapes
from api.fields import Fields, Integer, Text
from api.filters import Exactly, Ids
from api.views import Operation, Records
from cpm.models import WorkerTag
from cpm.services import worker_tags

FIELDS = Fields(account=Integer("account_id"), id=Integer("id"), key=Text("key"), value=Text("value"))


class WorkerTagBody(shapes.Body):
    account = shapes.Id(help_text="The account in which the tag is used.")
    key = serializers.CharField(
        max_length=worker_tags.LONGEST_KEY,
        trim_whitespace=False,
        help_text="As AWS takes keys of tags; not aws:… or cpm_…",
    )
    value = shapes.Words(max_length=worker_tags.LONGEST_VALUE, trim_whitespace=False)


class WorkerTags(Records):
    """Tags for what workers use in AWS, for telling costs apart."""

    model, fields, noun = WorkerTag, FIELDS, "worker tag"
    filters = {"account": Ids("account_id"), "key": Exactly("key"), "user": Ids("account__user_id")}
    ordering = {"account": "account__name", "key": "key", "username": "account__user__username"}
    search = ("key", "value")
    operations = {
        "list": Operation("worker_tags.read", since="1.5.0", many=True, summary="List worker tags"),
        "create": Operation(
            "worker_tags.change", since="1.5.0", body=WorkerTagBody, answers=201, summary="Add a worker tag"
        ),
        "retrieve": Operation("worker_tags.read", since="1.5.0", summary="Show a worker tag"),
        "update": Operation(
            "worker_tags.change", since="1.5.0", body=WorkerTagBody, summary="Change a worker tag"
        ),
        "destroy": Operation(
            "worker_tags.change", since="1.5.0", answers=204, content=False, summary="Delete a worker tag"
        ),
    }  # fmt: skip

    def create(self, request: Request) -> HttpResponseBase:
        return self.show(worker_tags.create(actor=self.actor, **self.body()).pk)

    def update(self, request: Request, id: int) -> HttpResponseBase:
        worker_tags.update(actor=self.actor, tag=self.find(id), **self.body())
        return self.show(id)

    def destroy(self, request: Request, id: int) -> Response:
        worker_tags.delete(actor=self.actor, tag=self.find(id))
        return self.done()


urlpatterns = [
    path("worker_tags/", WorkerTags.as_view({"get": "list", "post": "create"})),
    path(
        "worker_tags/<id:id>/", WorkerTags.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})
    ),
]
