"""The server itself: figures for dashboards, logs for support, time zones and versions."""

from typing import Any

from django.db.models import IntegerField, TextField, Value
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from api.fields import Fields, Integer, Text
from api.filters import Filter, Flag, Moments, read_moment
from api.negotiation import LATEST
from api.renderers import Bzip2Renderer, JsonRenderer
from api.views import Endpoint, Operation
from cpm.jobs import fleet
from cpm.services import dashboards, support_logs, system

# The answers below are made from values, not from tables; the fields only describe them.
NUMBER = Value(0, output_field=IntegerField())
WORDS = Value("", output_field=TextField())


class From(Moments):
    """The moment from which on things count."""

    description = (
        "Backups that started from then on; by default those of the last 24 hours. " + Moments.description
    )

    @classmethod
    def read(cls, text: str) -> Any:
        return read_moment(text)[0]


class Period(Filter):
    """How far back logs go."""

    schema = {"type": "string", "enum": list(support_logs.Period), "default": support_logs.Period.WEEK}
    description = "How far back the log lines of operations go."

    @classmethod
    def read(cls, text: str) -> Any:
        try:
            return support_logs.Period(text.strip().lower())
        except ValueError:
            raise ValueError(f"This must be one of {', '.join(support_logs.Period)}.") from None


class Wish(Flag):
    """A switch that is off unless it is asked for."""

    def __init__(self, description: str) -> None:
        super().__init__()
        self.description = description


class Dashboard(Endpoint):
    """Figures over everything that the caller reaches."""

    operations = {
        "activity": Operation(
            "dashboards.read", since="1.4.0", summary="Count the outcomes of recent backups and copies",
            fields=Fields(**{name: Integer(NUMBER) for name in dashboards.ACTIVITY}),
            filters={"start_time": From()},
        ),
        "state": Operation(
            "dashboards.read", since="1.4.0", summary="Count what is protected and the snapshots that exist",
            fields=Fields(**{name: Integer(NUMBER) for name in dashboards.STATE}),
        ),
    }  # fmt: skip

    def activity(self, request: Request) -> Response:
        since = self.values().get("start_time", timezone.now() - dashboards.RECENT)
        return Response(dashboards.activity(actor=self.actor, since=since))

    def state(self, request: Request) -> Response:
        return Response(dashboards.state(actor=self.actor))


class SupportLogs(Endpoint):
    """A download, also for clients that ask for JSON: that is what the documented sample call does."""

    renderer_classes = [Bzip2Renderer, JsonRenderer]
    operations = {
        "retrieve": Operation(
            "support_logs.read", since="1.1.0", summary="Download the logs of the server",
            downloads=Bzip2Renderer.media_type,
            filters={
                "check_aws_permissions": Wish("Ask AWS, as each account, whose credentials it has."),
                "collect_backup_logs_period": Period(),
                "collect_system_logs": Wish("Add the logs of the database and of everything else on this machine."),
                "collect_worker_logs": Wish("Add the logs of the workers."),
            },
        ),
    }  # fmt: skip

    def retrieve(self, request: Request) -> HttpResponseBase:
        asked = self.values()
        wanted = support_logs.Wanted(
            period=asked.get("collect_backup_logs_period", support_logs.Period.WEEK),
            system_logs=asked.get("collect_system_logs", False),
            worker_logs=asked.get("collect_worker_logs", False),
            check_aws=asked.get("check_aws_permissions", False),
        )
        download = support_logs.collect(actor=self.actor, wanted=wanted, now=timezone.now())
        response = StreamingHttpResponse(download.chunks, content_type=Bzip2Renderer.media_type)
        response["Content-Disposition"] = f'attachment; filename="{download.name}"'
        return response


class TimeZones(Endpoint):
    """The time zones that schedules may name."""

    operations = {
        "list": Operation(
            "lookups.read", since="1.4.0", many=True, summary="List the time zones",
            fields=Fields(display_name=Text(WORDS), id=Text(WORDS)),
        ),
    }  # fmt: skip

    def list(self, request: Request) -> HttpResponse:
        zones = system.time_zones(now=timezone.now())
        return self.listed([{"display_name": shown, "id": name} for name, shown in zones.items()])


class Version(Endpoint):
    operations = {
        "retrieve": Operation(
            "lookups.read", since="1.4.0", summary="Show the versions of the API and of CPM",
            fields=Fields(api_version=Text(WORDS), cpm_version=Text(WORDS)),
        ),
    }  # fmt: skip

    def retrieve(self, request: Request) -> Response:
        return Response({"api_version": LATEST, "cpm_version": fleet.version()})


urlpatterns = [
    path("system/dashboard/activity/", Dashboard.as_view({"get": "activity"})),
    path("system/dashboard/state/", Dashboard.as_view({"get": "state"})),
    path("system/support_logs/", SupportLogs.as_view({"get": "retrieve"})),
    path("system/timezones/", TimeZones.as_view({"get": "list"})),
    path("system/version/", Version.as_view({"get": "retrieve"})),
]
