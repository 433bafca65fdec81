"""Schedules, the times in which they do not run, and a preview of their runs."""

from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Count, Exists, IntegerField, OuterRef, Subquery
from django.db.models.functions import Coalesce, JSONObject
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api import serializers as shapes
from api.endpoints.run_times import DAYS_AHEAD, RUN_TIME_FIELDS, as_rows
from api.fields import Always, Boolean, Choice, Fields, Integer, Items, Moment, Text, TextOrNull
from api.filters import Ids, Matching
from api.views import Endpoint, Operation, Records, Rows
from cpm.lib.states import ScheduleUnit, Weekday
from cpm.models import DisableTime, PolicySchedule, Schedule
from cpm.services import run_times, schedules

WEEKDAYS = run_times.WEEKDAYS
ALLOWED = {f"allow_on_{day}": f"allow_on_{day}" for day in WEEKDAYS}
NO_ROWS = Always(0, {"type": "integer"})

_WINDOWS = DisableTime.objects.filter(schedule=OuterRef("pk")).order_by("id")
_POLICIES = (
    PolicySchedule.objects.filter(schedule=OuterRef("pk"))
    .order_by()
    .values("schedule")
    .annotate(n=Count("*"))
)
FIELDS = Fields(
    **{name: Boolean(name) for name in sorted(ALLOWED)},
    description=TextOrNull("description"),
    disable_times=Items(
        ArraySubquery(
            _WINDOWS.values(json=JSONObject(day="day", end_time="end_time", id="id", start_time="start_time"))
        ),
        of="object",
    ),
    end_date=Moment("end_date"),
    every_how_many=Integer("every_how_many"),
    every_unit=Choice("every_unit", ScheduleUnit),
    id=Integer("id"),
    last_modified=Moment("last_modified"),
    name=Text("name"),
    num_policies=Integer(Coalesce(Subquery(_POLICIES.values("n"), output_field=IntegerField()), 0)),
    num_recovery_scenarios=NO_ROWS,
    num_scheduled_reports=NO_ROWS,
    start_date=Moment("start_date"),
    timezone=TextOrNull("timezone"),
    user=Integer("user_id"),
)
WINDOW_FIELDS = Fields(
    day=Choice("day", Weekday), end_time=Text("end_time"), id=Integer("id"), start_time=Text("start_time")
)


class DisableTimeBody(shapes.Body):
    """A time without runs, in the schedule's zone."""

    day = shapes.Choice(Weekday, required=False, help_text="The day it starts on; every day if left out.")
    start_time = serializers.TimeField(help_text="Start, as 22:00 or 22:00:00.")
    end_time = serializers.TimeField(help_text="End; if it is not after the start, it is on the next day.")


class ScheduleBody(shapes.Body):
    """When to run. What is left out keeps its value."""

    allow_on_friday = serializers.BooleanField(required=False)
    allow_on_monday = serializers.BooleanField(required=False)
    allow_on_saturday = serializers.BooleanField(required=False)
    allow_on_sunday = serializers.BooleanField(required=False)
    allow_on_thursday = serializers.BooleanField(required=False)
    allow_on_tuesday = serializers.BooleanField(required=False)
    allow_on_wednesday = serializers.BooleanField(required=False)
    description = shapes.Words()
    disable_times = serializers.ListField(
        child=DisableTimeBody(), required=False, help_text="Replaces all times without runs."
    )
    end_date = serializers.DateTimeField(
        required=False, allow_null=True, help_text="The last moment at which it may run; null is never."
    )
    every_how_many = shapes.Whole(min_value=1, help_text="How many units lie between two runs.")
    every_unit = shapes.Choice(ScheduleUnit, required=False, help_text="The unit of that interval.")
    name = shapes.Name(help_text="Letters, digits, underscores and dashes.")
    start_date = serializers.DateTimeField(required=False, help_text="All runs are counted from here.")
    timezone = shapes.Words(
        max_length=64, help_text="Name of the zone, as Europe/Berlin; empty is the server's."
    )


class NewScheduleBody(ScheduleBody):
    user = shapes.Id(help_text="The user who shall own the schedule.")


def with_policy(rows: Rows, text: str) -> Rows:
    links = PolicySchedule.objects.filter(schedule=OuterRef("pk"), policy__in=Ids.read(text))
    return rows.filter(Exists(links))


class Schedules(Records):
    """When policies run."""

    model, fields, noun = Schedule, FIELDS, "schedule"
    filters = {
        "policy": Matching(with_policy, Ids.description),
        "scheduled_report": Matching(
            lambda rows, text: rows.filter(pk__in=Ids.read(text)).none(), "No report has a schedule yet."
        ),
        "user": Ids("user_id"),
    }
    ordering = {
        **{name: name for name in ("end_date", "every_how_many", "every_unit", "name", "start_date")},
        **ALLOWED,
        "username": "user__username",
    }
    search = ("name", "description", "policies__name", "policies__description")
    operations = {
        "list": Operation("schedules.read", since="1.0.0", many=True, summary="List schedules"),
        "create": Operation(
            "schedules.change", since="1.0.0", body=NewScheduleBody, answers=201, summary="Add a schedule"
        ),
        "retrieve": Operation("schedules.read", since="1.0.0", summary="Show a schedule"),
        "update": Operation(
            "schedules.change", since="1.0.0", body=ScheduleBody, summary="Change a schedule"
        ),
        "destroy": Operation(
            "schedules.change", since="1.0.0", answers=204, content=False, summary="Delete a schedule"
        ),
    }

    def create(self, request: Request) -> HttpResponseBase:
        made = schedules.create(actor=self.actor, now=timezone.now(), **self.body())
        return self.show(made.pk)

    def update(self, request: Request, id: int) -> HttpResponseBase:
        found = self.find(id)
        schedules.update(actor=self.actor, schedule=found, now=timezone.now(), **self.body())
        return self.show(id)

    def destroy(self, request: Request, id: int) -> Response:
        schedules.delete(actor=self.actor, schedule=self.find(id))
        return self.done()


class DisableTimes(Records):
    """Times in which one schedule does not run."""

    model, fields, noun = DisableTime, WINDOW_FIELDS, "disable time"
    operations = {
        "list": Operation(
            "schedules.read", since="1.2.0", many=True, summary="List a schedule's disable times"
        ),
        "create": Operation(
            "schedules.change", since="1.2.0", body=DisableTimeBody, answers=201, summary="Add a disable time"
        ),
        "retrieve": Operation("schedules.read", since="1.2.0", summary="Show a disable time"),
        "destroy": Operation(
            "schedules.change", since="1.2.0", answers=204, content=False, summary="Delete a disable time"
        ),
    }

    def schedule(self) -> Schedule:
        found: Schedule = self.found(Schedule.objects.all(), self.kwargs["schedule_id"], "schedule")
        return found

    def narrow(self, queryset: Rows) -> Rows:
        return queryset.filter(schedule=self.schedule())

    def create(self, request: Request, schedule_id: int) -> HttpResponseBase:
        schedule = self.schedule()
        added = schedules.add_disable_time(
            actor=self.actor, schedule=schedule, now=timezone.now(), **self.body()
        )
        return self.show(added.pk)

    def destroy(self, request: Request, schedule_id: int, id: int) -> Response:
        schedules.delete_disable_time(actor=self.actor, disable_time=self.find(id), now=timezone.now())
        return self.done()


class ScheduleRunTimes(Endpoint):
    """When a schedule will run."""

    operations = {
        "list": Operation(
            "schedules.read_run_times", since="1.4.0", many=True, paged=False, fields=RUN_TIME_FIELDS,
            filters=DAYS_AHEAD,
            summary="List a schedule's future runs",
        ),
    }  # fmt: skip

    def list(self, request: Request, schedule_id: int) -> Any:
        schedule = self.found(Schedule.objects.all(), schedule_id, "schedule")
        days = self.values()["days_ahead"]
        return self.listed(as_rows(run_times.of_schedule(schedule, now=timezone.now(), days_ahead=days)))


urlpatterns = [
    path("schedules/", Schedules.as_view({"get": "list", "post": "create"})),
    path("schedules/<id:id>/", Schedules.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})),
    path(
        "schedules/<id:schedule_id>/disable_times/", DisableTimes.as_view({"get": "list", "post": "create"})
    ),
    path(
        "schedules/<id:schedule_id>/disable_times/<id:id>/",
        DisableTimes.as_view({"get": "retrieve", "delete": "destroy"}),
    ),
    path("schedules/<id:schedule_id>/run_times/", ScheduleRunTimes.as_view({"get": "list"})),
]
