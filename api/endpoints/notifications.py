"""Notification settings of users: topics for alerts and for daily summaries."""

from datetime import time
from typing import Any

from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api import serializers as shapes
from api.fields import Boolean, Choice, Fields, Integer, Object, Text
from api.filters import Ids
from api.views import Operation, Records
from cpm.lib.states import Authentication
from cpm.models import Notification
from cpm.services import notifications

SUBSCRIBES = "Subscribe the user's e-mail address to the topic; it must be confirmed within three days."


class HourOfDay(serializers.TimeField):
    """A time of day; the hour alone will do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(input_formats=["%H:%M", "%H:%M:%S", "%H"], **options)

    def to_internal_value(self, value: Any) -> time:
        if not isinstance(value, str):
            self.fail("invalid", format="HH:MM, HH:MM:SS")
        return super().to_internal_value(value)


class AlertsBody(shapes.Body):
    """Where alerts go."""

    add_user_email = serializers.BooleanField(required=False, help_text=SUBSCRIBES)
    create_new_topic = serializers.BooleanField(
        required=False, help_text="Create a topic for this user, or take the one created before."
    )
    enabled = serializers.BooleanField(required=False, help_text="Send a message when an alert is raised.")
    sns_alerts_topic_arn = shapes.Words(max_length=256, help_text="ARN of the topic for alerts.")


class SummaryBody(shapes.Body):
    """Where the daily summary goes, and when."""

    add_user_email_to_summary = serializers.BooleanField(required=False, help_text=SUBSCRIBES)
    create_new_summery_topic = serializers.BooleanField(
        required=False,
        help_text="Create a topic for this user's summaries, or take the one created before. "
        "Not needed with use_same_sns_topic.",
    )
    enable_summary = serializers.BooleanField(required=False, help_text="Send a summary every day.")
    sns_summary_topic_arn = shapes.Words(max_length=256, help_text="ARN of the topic for summaries.")
    summary_daily_time = HourOfDay(
        help_text="When to send it, as 09:00 or 09:00:00, in the server's time zone."
    )
    use_same_sns_topic = serializers.BooleanField(
        required=False, help_text="Send summaries to the topic for alerts."
    )


class NotificationBody(shapes.Body):
    """What is left out keeps its value."""

    alerts = AlertsBody(required=False)
    daily_summary = SummaryBody(required=False)
    include_managed_user_alerts = serializers.BooleanField(
        required=False, help_text="Tell of managed users' alerts too."
    )
    sns_access_key = shapes.Words(
        max_length=128, help_text="Access key of an IAM user, with authentication C."
    )
    sns_account = shapes.Id(
        required=False, allow_null=True, help_text="Account of the user to send from, with authentication A."
    )
    sns_authentication = shapes.Choice(
        Authentication, help_text="Whose SNS it is. The server's role is for root only."
    )
    sns_region = serializers.CharField(max_length=32, help_text="AWS region of the topics.")
    sns_secret_key = shapes.Words(
        max_length=1024, write_only=True, help_text="Its secret key. It is stored encrypted and never shown."
    )


class NewNotificationBody(NotificationBody):
    user = shapes.Id(help_text="The user whose settings these are.")


class Notifications(Records):
    """One row for each user who has set notifications up."""

    model, noun = Notification, "notification"
    fields = Fields(
        alerts=Object(enabled=Boolean("alerts_enabled"), sns_alerts_topic_arn=Text("alerts_topic_arn")),
        daily_summary=Object(
            enable_summary=Boolean("summary_enabled"),
            sns_summary_topic_arn=Text("summary_topic_arn"),
            summary_daily_time=Text("summary_time"),
            use_same_sns_topic=Boolean("use_same_topic"),
        ),
        id=Integer("id"),
        include_managed_user_alerts=Boolean("include_managed_user_alerts"),
        sns_access_key=Text("access_key"),
        sns_account=Integer("account_id"),
        sns_authentication=Choice("authentication", Authentication),
        sns_region=Text("region"),
        user=Integer("user_id"),
    )
    filters = {"user": Ids("user_id")}
    operations = {
        "list": Operation(
            "notifications.read", since="1.2.0", many=True, paged=False, summary="List notification settings"
        ),
        "create": Operation(
            "notifications.change", since="1.2.0", body=NewNotificationBody, answers=201,
            summary="Set notifications up for a user",
        ),
        "retrieve": Operation("notifications.read", since="1.4.0", summary="Show notification settings"),
        "update": Operation(
            "notifications.change", since="1.5.0", body=NotificationBody, summary="Change notification settings"
        ),
        "test": Operation(
            "notifications.change", since="1.4.0", content=False, summary="Send the daily summary now"
        ),
    }  # fmt: skip

    def create(self, request: Request) -> HttpResponseBase:
        made = notifications.create(actor=self.actor, now=timezone.now(), **self.body())
        return self.show(made.pk)

    def update(self, request: Request, id: int) -> HttpResponseBase:
        found = self.find(id)
        notifications.update(actor=self.actor, notification=found, now=timezone.now(), **self.body())
        return self.show(id)

    def test(self, request: Request, id: int) -> Response:
        found = self.find(id)
        notifications.test_daily_summary(actor=self.actor, notification=found, now=timezone.now())
        return self.done()


urlpatterns = [
    path("settings/notifications/", Notifications.as_view({"get": "list", "post": "create"})),
    path("settings/notifications/<id:id>/", Notifications.as_view({"get": "retrieve", "put": "update"})),
    path("settings/notifications/<id:id>/test_daily_summary/", Notifications.as_view({"post": "test"})),
]
