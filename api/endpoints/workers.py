"""Worker configurations: the networks that workers of accounts and regions run in, and tests of them."""

from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api import serializers as shapes
from api.fields import Boolean, Choice, Fields, Integer, Moment, Text, TextOrNull
from api.filters import Ids
from api.views import Operation, Records, Rows
from cpm.lib.states import WorkerTestStatus
from cpm.models import WorkerConfiguration, WorkerTest
from cpm.services import worker_configurations

FIELDS = Fields(
    account=Integer("account_id"),
    aws_key_pair=TextOrNull("aws_key_pair"),
    aws_security_group=Text("aws_security_group"),
    aws_subnet=TextOrNull("aws_subnet"),
    aws_vpc=Text("aws_vpc"),
    http_proxy_address=TextOrNull("http_proxy_address"),
    http_proxy_port=Integer("http_proxy_port"),
    http_proxy_user_name=TextOrNull("http_proxy_user_name"),
    id=Integer("id"),
    last_modified=Moment("last_modified"),
    region=Integer("region_id"),
    requires_http_proxy=Boolean("requires_http_proxy"),
    user=Integer("user_id"),
)
TEST_FIELDS = Fields(
    configuration=Integer("configuration_id"),
    end_time=Moment("end_time"),
    id=Integer("id"),
    session_status=Choice("status", WorkerTestStatus),
    start_time=Moment("start_time"),
    test_session_fail_desc=TextOrNull("details"),
    worker=Integer("worker_id"),
)


class WorkerBody(shapes.Body):
    """Fields that are left out keep their value. The proxy's password is never shown."""

    account = shapes.Id(
        help_text="The account whose data the workers are near. Its user owns the configuration."
    )
    aws_key_pair = shapes.Words(max_length=255, trim_whitespace=False)
    aws_security_group = serializers.CharField(max_length=64, help_text="An id, sg-….")
    aws_subnet = shapes.Words(max_length=64, help_text="An id, subnet-…; empty for any of the VPC.")
    aws_vpc = serializers.CharField(max_length=64, help_text="An id, vpc-….")
    http_proxy_address = shapes.Words(max_length=253, help_text="Name or IP address of the proxy's host.")
    http_proxy_password_encrypted = shapes.Words(
        max_length=255,
        trim_whitespace=False,
        help_text="The password in plain; it is encrypted when it is stored.",
    )
    http_proxy_port = shapes.Whole(required=False, allow_null=True)
    http_proxy_user_name = shapes.Words(max_length=255, help_text="Empty for a proxy without authentication.")
    region = shapes.Id(help_text="The id of an enabled region.")
    requires_http_proxy = serializers.BooleanField(required=False)


class Workers(Records):
    """Where workers run that are near the data of an account and region, and how they reach AWS."""

    model, fields, noun = WorkerConfiguration, FIELDS, worker_configurations.NOUN
    filters = {"account": Ids("account_id"), "user": Ids("user_id")}
    ordering = {"account": "account__name", "region": "region__aws_region", "username": "user__username"}
    operations = {
        "list": Operation("workers.read", since="1.1.0", many=True, summary="List worker configurations"),
        "create": Operation(
            "workers.change", since="1.1.0", body=WorkerBody, answers=201, summary="Add a worker configuration"
        ),
        "retrieve": Operation("workers.read", since="1.1.0", summary="Show a worker configuration"),
        "update": Operation(
            "workers.change", since="1.1.0", body=WorkerBody, summary="Change a worker configuration"
        ),
        "destroy": Operation(
            "workers.change", since="1.1.0", answers=204, content=False, summary="Delete a worker configuration"
        ),
    }  # fmt: skip

    def create(self, request: Request) -> HttpResponseBase:
        return self.show(worker_configurations.create(actor=self.actor, **self.body()).pk)

    def update(self, request: Request, id: int) -> HttpResponseBase:
        worker_configurations.update(actor=self.actor, configuration=self.find(id), **self.body())
        return self.show(id)

    def destroy(self, request: Request, id: int) -> Response:
        worker_configurations.delete(actor=self.actor, configuration=self.find(id))
        return self.done()


class WorkerTests(Records):
    """Tests of one worker configuration."""

    model, fields, noun = WorkerTest, TEST_FIELDS, "test of this worker configuration"
    operations = {
        "start": Operation(
            "workers.test", since="1.4.0", answers=202, summary="Start a test of a worker configuration"
        ),
        "retrieve": Operation("workers.test", since="1.4.0", summary="Show a test of a worker configuration"),
    }

    def narrow(self, queryset: Rows) -> Rows:
        return queryset.filter(configuration=self.kwargs["configuration_id"])

    def start(self, request: Request, configuration_id: int) -> HttpResponseBase:
        return self.once(lambda: self._started(configuration_id))

    def _started(self, configuration_id: int) -> HttpResponseBase:
        row = self.found(WorkerConfiguration.objects.all(), configuration_id, worker_configurations.NOUN)
        test = worker_configurations.start_test(actor=self.actor, configuration=row, now=timezone.now())
        return self.show(test.pk)


urlpatterns = [
    path("workers/", Workers.as_view({"get": "list", "post": "create"})),
    path("workers/<id:id>/", Workers.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})),
    path("workers/<id:configuration_id>/test/", WorkerTests.as_view({"post": "start"})),
    path("workers/<id:configuration_id>/test/<id:id>/", WorkerTests.as_view({"get": "retrieve"})),
]
