"""Policies with their options, DR, custom tags, runs and snapshots."""

from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Case, Exists, IntegerField, OuterRef, Q, Value, When
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api import serializers as shapes
from api.endpoints.run_times import DAYS_AHEAD, RUN_TIME_FIELDS, as_rows
from api.fields import Boolean, Choice, Fields, Integer, Items, Moment, Object, Text, TextOrNull
from api.filters import Ids, Matching
from api.views import Endpoint, Operation, Records, Rows
from cpm.flows.s3.operation import OPEN
from cpm.lib.states import AutoRemove, ConsideredSuccessful
from cpm.models import CustomTag, Policy, PolicySchedule
from cpm.services import backup_deletion, backups, policies, run_times, s3_operations

SCHEDULES = ArraySubquery(
    PolicySchedule.objects.filter(policy=OuterRef("pk")).order_by("schedule").values("schedule")
)


def _in_s3(*kinds: str) -> Boolean:
    """Whether an operation in S3, of one of these kinds if any are named, has the policy now."""
    running = Q(s3_job__state__in=OPEN)
    return Boolean(
        Case(When(running & Q(s3_job__kind__in=kinds) if kinds else running, then=True), default=False)
    )


FIELDS = Fields(
    account=Integer("account_id"),
    auto_remove_resource=Choice("auto_remove_resource", AutoRemove),
    copy_to_s3_enabled=Boolean("s3_enabled"),
    created_by_tag=Boolean("created_by_tag"),
    description=TextOrNull("description"),
    dr_enabled=Boolean("dr_enabled"),
    enable_agent_scripts=Boolean("enable_agent_scripts"),
    enabled=Boolean("enabled"),
    generations=Integer("generations"),
    id=Integer("id"),
    is_archive_active=_in_s3(s3_operations.ARCHIVE),
    is_s3_cleanup_active=_in_s3(s3_operations.CLEANUP),
    last_dr_recovery_time=Moment("last_dr_recovery_time"),
    last_modified=Moment("last_modified"),
    last_recovery_time=Moment("last_recovery_time"),
    name=Text("name"),
    s3_operation_in_progress=_in_s3(),
    schedules=Items(SCHEDULES, of="integer"),
    user=Integer("user_id"),
)
DR_FIELDS = Fields(
    cross_account_dr=Object(
        copy_to_snapshot_original_region=Boolean("copy_to_snapshot_original_region"),
        dr_account=Integer("dr_account_id"),
        dr_account_regions=Items("dr_account_regions", of="integer"),
        dr_keep_original_snapshots=Boolean("dr_keep_original_snapshots"),
    ),
    dr_enabled=Boolean("dr_enabled"),
    dr_frequency=Integer("dr_frequency"),
    dr_regions=Items("dr_regions", of="integer"),
    dr_timeout_hours=Integer("dr_timeout_hours"),
)
OPTION_FIELDS = Fields(
    agent_script_timeout=Integer("agent_script_timeout"),
    collect_script_output=Boolean("collect_script_output"),
    considered_successful=Choice("considered_successful", ConsideredSuccessful),
    enable_agent_scripts=Boolean("enable_agent_scripts"),
    minutes_between_retries=Integer("minutes_between_retries"),
    num_failures_for_alert=Integer("num_failures_for_alert"),
    number_of_retries=Integer("number_of_retries"),
)
TAG_FIELDS = Fields(
    id=Integer("id"),
    name_is_prefix=Boolean("name_is_prefix"),
    tag_name=Text("tag_name"),
    tag_value=Text("tag_value"),
    value_is_prefix=Boolean("value_is_prefix"),
)
TRACKER_FIELDS = Fields(tracker_id=Integer(Value(0, output_field=IntegerField())))


class PolicyBody(shapes.Body):
    """What a policy does. What is left out keeps its value."""

    name = shapes.Name(help_text="Letters, digits, underscores and dashes.")
    auto_remove_resource = shapes.Choice(
        AutoRemove, required=False, help_text="Whether targets that no longer exist leave the policy."
    )
    description = shapes.Words()
    dr_enabled = serializers.BooleanField(required=False, help_text="Copy snapshots as the DR options say.")
    enable_agent_scripts = serializers.BooleanField(required=False, help_text="Run backup scripts.")
    enabled = serializers.BooleanField(required=False, help_text="Whether schedules start backups.")
    generations = shapes.Whole(required=False, help_text="How many good backups to keep.")
    schedules = serializers.ListField(
        child=shapes.Id(), required=False, max_length=200, help_text="Replaces the schedules of the policy."
    )


class NewPolicyBody(PolicyBody):
    account = shapes.Id(help_text="The backup account whose resources are protected.")


class OptionsBody(shapes.Body):
    """How scripts run, when a backup counts as successful, and how it is tried again."""

    agent_script_timeout = shapes.Whole(required=False, help_text="Seconds that one script may take.")
    collect_script_output = serializers.BooleanField(required=False)
    considered_successful = shapes.Choice(ConsideredSuccessful, required=False)
    enable_agent_scripts = serializers.BooleanField(required=False)
    minutes_between_retries = shapes.Whole(required=False)
    num_failures_for_alert = shapes.Whole(required=False, help_text="Failures in a row that raise an alert.")
    number_of_retries = shapes.Whole(required=False)


class CrossAccountBody(shapes.Body):
    copy_to_snapshot_original_region = serializers.BooleanField(required=False)
    dr_account = shapes.Id(required=False, allow_null=True, help_text="DR account; null means none.")
    dr_account_regions = serializers.ListField(child=shapes.Id(), required=False, max_length=200)
    dr_keep_original_snapshots = serializers.BooleanField(required=False)


class DrBody(shapes.Body):
    """Where copies go."""

    cross_account_dr = CrossAccountBody(required=False, allow_null=True)
    dr_enabled = serializers.BooleanField(required=False)
    dr_frequency = shapes.Whole(required=False, help_text="Every how many backups one is copied.")
    dr_regions = serializers.ListField(child=shapes.Id(), required=False, max_length=200)
    dr_timeout_hours = shapes.Whole(required=False, help_text="Hours after which a copy has failed.")


class CustomTagBody(shapes.Body):
    """A tag that brings resources under the policy."""

    name_is_prefix = serializers.BooleanField(required=False)
    tag_name = serializers.CharField(max_length=128)
    tag_value = shapes.Words(max_length=256)
    value_is_prefix = serializers.BooleanField(required=False)


def with_schedule(rows: Rows, text: str) -> Rows:
    links = PolicySchedule.objects.filter(policy=OuterRef("pk"), schedule__in=Ids.read(text))
    return rows.filter(Exists(links))


class Policies(Records):
    """What is protected, how often and for how long."""

    model, fields, noun = Policy, FIELDS, "policy"
    filters = {
        "account": Ids("account_id"),
        "schedules": Matching(with_schedule, Ids.description),
        "user": Ids("user_id"),
    }
    ordering = {
        "account": "account_id",
        "enabled": "enabled",
        "generations": "generations",
        "name": "name",
        "username": "user__username",
    }
    search = ("name", "description", "schedules__name", "schedules__description")
    operations = {
        "list": Operation("policies.read", since="1.0.0", many=True, summary="List policies"),
        "create": Operation(
            "policies.change", since="1.0.0", body=NewPolicyBody, answers=201, summary="Add a policy"
        ),
        "retrieve": Operation("policies.read", since="1.0.0", summary="Show a policy"),
        "update": Operation("policies.change", since="1.0.0", body=PolicyBody, summary="Change a policy"),
        "destroy": Operation(
            "policies.change", since="1.0.0", answers=204, content=False,
            summary="Delete a policy and its snapshots",
        ),
        "run": Operation(
            "policies.run", since="1.0.0", answers=202, fields=TRACKER_FIELDS, starts_work=True,
            summary="Start a backup now",
        ),
        "delete_snapshots": Operation(
            "policies.change", since="1.0.0", answers=204, content=False,
            summary="Delete all snapshots of a policy",
        ),
        "delete_native_snapshots": Operation(
            "policies.change", since="1.3.0", answers=204, content=False,
            summary="Delete the native snapshots of a policy",
        ),
        "delete_copied_snapshots": Operation(
            "policies.change", since="1.3.0", answers=204, content=False,
            summary="Delete all snapshots of a policy with their copies in S3 and in the archive",
        ),
    }  # fmt: skip

    def create(self, request: Request) -> HttpResponseBase:
        made = policies.create(actor=self.actor, now=timezone.now(), **self.body())
        return self.show(made.pk)

    def update(self, request: Request, id: int) -> HttpResponseBase:
        found = self.find(id)
        policies.update(actor=self.actor, policy=found, now=timezone.now(), **self.body())
        return self.show(id)

    def destroy(self, request: Request, id: int) -> Response:
        policies.delete(actor=self.actor, policy=self.find(id))
        return self.done()

    def run(self, request: Request, id: int) -> HttpResponseBase:
        return self.once(lambda: self._run(self.find(id)))

    def _run(self, policy: Policy) -> Response:
        backup = backups.start(actor=self.actor, policy=policy, now=timezone.now())
        return Response({"tracker_id": backup.tracker_id}, status=self.operation.answers)

    def delete_snapshots(self, request: Request, id: int) -> Response:
        backup_deletion.delete_policy_snapshots(actor=self.actor, policy=self.find(id), native_only=False)
        return self.done()

    def delete_native_snapshots(self, request: Request, id: int) -> Response:
        backup_deletion.delete_policy_snapshots(actor=self.actor, policy=self.find(id), native_only=True)
        return self.done()

    def delete_copied_snapshots(self, request: Request, id: int) -> Response:
        # Its address promises less than the documents do: native snapshots go too.
        return self.delete_snapshots(request, id)


class PolicyOptions(Records):
    """Options of a policy; the one for the server's own data has none."""

    model, fields, noun = Policy, OPTION_FIELDS, "policy with options"
    operations = {
        "retrieve": Operation("policies.read", since="1.0.0", summary="Show a policy's options"),
        "update": Operation(
            "policies.change", since="1.0.0", body=OptionsBody, summary="Change a policy's options"
        ),
    }

    def narrow(self, queryset: Rows) -> Rows:
        return queryset.exclude(name=policies.SERVER_DATA)

    def update(self, request: Request, id: int) -> HttpResponseBase:
        found = self.find(id)
        policies.set_options(actor=self.actor, policy=found, **self.body())
        return self.show(id)


class PolicyDr(Records):
    """DR options of a policy."""

    model, fields, noun = Policy, DR_FIELDS, "policy"
    operations = {
        "retrieve": Operation("policies.read", since="1.0.0", summary="Show a policy's DR options"),
        "update": Operation(
            "policies.change", since="1.0.0", body=DrBody, summary="Change a policy's DR options"
        ),
    }

    def update(self, request: Request, id: int) -> HttpResponseBase:
        found, body = self.find(id), self.body()
        across = body.pop("cross_account_dr", None) or {}
        policies.set_dr(actor=self.actor, policy=found, **body, **across)
        return self.show(id)


class OfPolicy(Records):
    """What belongs to the policy in the address."""

    def policy(self) -> Policy:
        found: Policy = self.found(Policy.objects.all(), self.kwargs["policy_id"], "policy")
        return found

    def narrow(self, queryset: Rows) -> Rows:
        return queryset.filter(policy=self.policy())


class CustomTags(OfPolicy):
    """Tags that bring resources under a policy."""

    model, fields, noun = CustomTag, TAG_FIELDS, "custom tag"
    operations = {
        "list": Operation("policies.read", since="1.5.0", many=True, summary="List a policy's custom tags"),
        "create": Operation(
            "policies.change", since="1.5.0", body=CustomTagBody, answers=201, summary="Add a custom tag"
        ),
        "retrieve": Operation(
            "policies.read", since="1.5.0", many=True, paged=False, summary="Show a custom tag"
        ),
        "destroy": Operation(
            "policies.change", since="1.5.0", answers=204, content=False, summary="Delete a custom tag"
        ),
    }

    def create(self, request: Request, policy_id: int) -> HttpResponseBase:
        tag = policies.add_custom_tag(actor=self.actor, policy=self.policy(), **self.body())
        return self.show(tag.pk)

    def retrieve(self, request: Request, id: int, **_: Any) -> HttpResponseBase:
        # The API answers this one tag as a list.
        return HttpResponse(b"[" + self.show(id).content + b"]", content_type="application/json")

    def destroy(self, request: Request, policy_id: int, id: int) -> Response:
        policies.delete_custom_tag(actor=self.actor, tag=self.find(id))
        return self.done()


class PolicyRunTimes(Endpoint):
    """When a policy will run: nothing while it is disabled, or has no target or schedule."""

    operations = {
        "list": Operation(
            "policies.read", since="1.0.0", many=True, paged=False, fields=RUN_TIME_FIELDS,
            filters=DAYS_AHEAD,
            summary="List a policy's future runs",
        ),
    }  # fmt: skip

    def list(self, request: Request, policy_id: int) -> Any:
        policy = self.found(Policy.objects.all(), policy_id, "policy")
        days = self.values()["days_ahead"]
        return self.listed(as_rows(run_times.of_policy(policy, now=timezone.now(), days_ahead=days)))


urlpatterns = [
    path("policies/", Policies.as_view({"get": "list", "post": "create"})),
    path("policies/<id:id>/", Policies.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})),
    path("policies/<id:id>/backups/", Policies.as_view({"post": "run"})),
    path("policies/<id:id>/dr/", PolicyDr.as_view({"get": "retrieve", "put": "update"})),
    path("policies/<id:id>/options/", PolicyOptions.as_view({"get": "retrieve", "put": "update"})),
    path("policies/<id:id>/snapshots/", Policies.as_view({"delete": "delete_snapshots"})),
    path("policies/<id:id>/snapshots/native/", Policies.as_view({"delete": "delete_native_snapshots"})),
    path("policies/<id:id>/snapshots/s3/", Policies.as_view({"delete": "delete_copied_snapshots"})),
    path("policies/<id:policy_id>/custom_tags/", CustomTags.as_view({"get": "list", "post": "create"})),
    path(
        "policies/<id:policy_id>/custom_tags/<id:id>/",
        CustomTags.as_view({"get": "retrieve", "delete": "destroy"}),
    ),
    path("policies/<id:policy_id>/run_times/", PolicyRunTimes.as_view({"get": "list"})),
]
