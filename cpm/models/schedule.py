"""Schedules: when policies run. The arithmetic is in `cpm.scheduler.recurrence`."""

from django.db import models
from django.utils import timezone

from cpm.lib.states import ScheduleUnit, Weekday
from cpm.models.base import CpmModel
from cpm.models.user import User


class Schedule(CpmModel):
    """Every run is start_date + k * interval, in the schedule's own zone (empty: the server's)."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="schedules")
    name = models.CharField(max_length=128)
    description = models.TextField(blank=True)
    start_date = models.DateTimeField(default=timezone.now)
    end_date = models.DateTimeField(null=True, blank=True)
    every_how_many = models.PositiveIntegerField(default=1)
    every_unit = models.CharField(max_length=1, choices=ScheduleUnit.choices(), default=ScheduleUnit.DAYS)
    timezone = models.CharField(max_length=64, blank=True)
    allow_on_monday = models.BooleanField(default=True)
    allow_on_tuesday = models.BooleanField(default=True)
    allow_on_wednesday = models.BooleanField(default=True)
    allow_on_thursday = models.BooleanField(default=True)
    allow_on_friday = models.BooleanField(default=True)
    allow_on_saturday = models.BooleanField(default=True)
    allow_on_sunday = models.BooleanField(default=True)
    last_modified = models.DateTimeField(auto_now=True)

    class Meta(CpmModel.Meta):
        constraints = [models.UniqueConstraint(name="schedule_name_of_user", fields=["user", "name"])]

    def __str__(self) -> str:
        return self.name


class DisableTime(CpmModel):
    """A window in which a schedule does not fire; an end before the start runs over midnight."""

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="disable_times")
    day = models.CharField(max_length=1, choices=Weekday.choices(), default=Weekday.ALL)
    start_time = models.TimeField()
    end_time = models.TimeField()
