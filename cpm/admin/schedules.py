"""Schedules with their disable times."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import TabularInline

from cpm.admin.base import ServiceAdmin, ServiceForm, actor_of, given
from cpm.models import Actor, DisableTime, Schedule
from cpm.services import run_times, schedules

FIELDS = (
    "description", "start_date", "end_date", "every_unit", "timezone", "allow_on_monday", "allow_on_tuesday",
    "allow_on_wednesday", "allow_on_thursday", "allow_on_friday", "allow_on_saturday", "allow_on_sunday",
)  # fmt: skip
RUNS_SHOWN = 10


class ScheduleForm(ServiceForm):
    class Meta:
        model = Schedule
        fields = ("user", "name", "every_how_many", *FIELDS)


class DisableTimeInline(TabularInline):
    model = DisableTime
    fields = ("day", "start_time", "end_time")
    extra = 0

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return ScheduleAdmin.may_change(request)

    has_change_permission = has_add_permission
    has_delete_permission = has_add_permission


@admin.register(Schedule)
class ScheduleAdmin(ServiceAdmin):
    form = ScheduleForm
    read_right = "schedules.read"
    change_right = "schedules.change"
    fixed = ("user",)
    fields = ("user", "name", "every_how_many", *FIELDS, "next_runs")
    readonly_fields = ("next_runs",)
    inlines = (DisableTimeInline,)
    list_display = ("name", "user", "every_how_many", "every_unit", "start_date", "end_date", "timezone")
    list_filter = ("every_unit",)
    list_select_related = ("user",)
    search_fields = ("name",)
    ordering = ("name", "id")

    @staticmethod
    def may_change(request: HttpRequest) -> bool:
        return ScheduleAdmin(Schedule, admin.site).has_change_permission(request)

    @admin.display(description="Next runs (30 days)")
    def next_runs(self, row: Schedule) -> str:
        if row.pk is None:
            return "-"
        moments = []
        for run in run_times.of_schedule(row, now=timezone.now(), days_ahead=30):
            moments.append(f"{run.local:%a %Y-%m-%d %H:%M %Z}")
            if len(moments) == RUNS_SHOWN:
                break
        return ", ".join(moments) or "none"

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> Schedule:
        fields = given(data, "name", "every_how_many", *FIELDS) | {"now": timezone.now()}
        if change:
            return schedules.update(actor=actor, schedule=Schedule.objects.get(pk=row.pk), **fields)
        return schedules.create(actor=actor, user=data["user"].pk, **fields)

    def remove(self, actor: Actor, row: Any) -> None:
        schedules.delete(actor=actor, schedule=row)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """A changed window is taken away and added anew."""
        actor, now = actor_of(request), timezone.now()
        formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []
        schedule = Schedule.objects.get(pk=form.instance.pk)
        for part in formset.forms:
            data = part.cleaned_data
            gone = bool(data.get("DELETE"))
            if part.instance.pk and (gone or part.has_changed()):
                old = DisableTime.objects.select_related("schedule").get(pk=part.instance.pk)
                schedules.delete_disable_time(actor=actor, disable_time=old, now=now)
            if part.has_changed() and not gone and data:
                window = {name: data[name] for name in ("day", "start_time", "end_time")}
                schedules.add_disable_time(actor=actor, schedule=schedule, now=now, **window)
