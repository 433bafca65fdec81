"""What the list benchmark compares with, behind the same handler and the same authentication."""

from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from rest_framework import serializers
from rest_framework.filters import OrderingFilter
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.pagination import PageNumberPagination
from rest_framework.renderers import JSONRenderer
from rest_framework.viewsets import ModelViewSet
from rest_framework_simplejwt.tokens import AccessToken

from api import authentication
from cpm.models import Backup


class CopyStatus(serializers.Serializer[Backup]):
    """The state of a copy, nested as the API shows it."""

    status = serializers.CharField(source="s3_copy_status")
    progress_percent = serializers.IntegerField(source="s3_copy_progress")


class ArchiveStatus(serializers.Serializer[Backup]):
    status = serializers.CharField(source="archive_status")
    progress_percent = serializers.CharField(source="archive_progress")


class PlainSerializer(serializers.ModelSerializer[Backup]):
    """The usual way to the fields of the API: columns as they are, nested serializers, methods for what is computed."""

    glacier_archive_status = ArchiveStatus(source="*")
    s3_copy_status = CopyStatus(source="*")
    is_recoverable = serializers.SerializerMethodField()
    move_to_freezer_enabled = serializers.SerializerMethodField()
    performed_quiecse = serializers.BooleanField(source="performed_quiesce")

    class Meta:
        model = Backup
        fields = [
            "account", "description", "dr_account_regions", "dr_regions", "dr_status", "end_time",
            "glacier_archive_status", "id", "is_freezer_item", "is_recoverable", "is_retry", "marked_for_deletion",
            "move_to_freezer_enabled", "name", "performed_quiecse", "policy", "retry_scheduled", "s3_copy_status",
            "start_time", "status", "user",
        ]  # fmt: skip

    def get_is_recoverable(self, backup: Backup) -> bool:
        return backup.status in ("A", "B", "S") and not backup.marked_for_deletion

    def get_move_to_freezer_enabled(self, backup: Backup) -> bool:
        return self.get_is_recoverable(backup) and not backup.is_freezer_item


class Pages(PageNumberPagination):
    page_size_query_param = "page_size"


class PlainViewSet(ModelViewSet[Backup]):
    """Good practice without special care: select_related, the framework's paginator, ordering and filter."""

    serializer_class = PlainSerializer
    pagination_class = Pages
    filter_backends = [OrderingFilter]
    ordering_fields = ["start_time"]
    renderer_classes = [JSONRenderer]
    content_negotiation_class = DefaultContentNegotiation

    def get_queryset(self) -> Any:
        found = Backup.objects.select_related("policy", "account", "user").filter(
            user=self.request.user.environment
        )
        account = self.request.query_params.get("account")
        return found.filter(account=account) if account else found


HAND_WRITTEN = """
SELECT (SELECT sum(n) FROM cpm_backuptally WHERE user_id = %(user)s AND NOT whole_user AND account_id = %(account)s),
    coalesce(string_agg(row_to_json(page)::text, ','), '')
FROM (
    SELECT account_id AS account, description, dr_account_regions, dr_regions, dr_status,
        to_char(end_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS end_time,
        json_build_object('progress_percent', archive_progress::text, 'status', archive_status)
            AS glacier_archive_status,
        id, is_freezer_item, status IN ('A', 'B', 'S') AND NOT marked_for_deletion AS is_recoverable, is_retry,
        marked_for_deletion,
        status IN ('A', 'B', 'S') AND NOT marked_for_deletion AND NOT is_freezer_item AS move_to_freezer_enabled,
        name, performed_quiesce AS performed_quiecse, policy_id AS policy, retry_scheduled,
        json_build_object('progress_percent', s3_copy_progress, 'status', s3_copy_status) AS s3_copy_status,
        to_char(start_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS start_time, status, user_id AS user
    FROM cpm_backup WHERE user_id = %(user)s AND account_id = %(account)s
    ORDER BY cpm_backup.start_time DESC, id DESC LIMIT 50
) AS page
"""


def hand_written(request: HttpRequest) -> HttpResponse:
    """One query for page and count, no framework above Django, the same check of the token."""
    token = AccessToken(request.META["HTTP_AUTHORIZATION"].partition(" ")[2])  # type: ignore[arg-type]  # reads text
    user = authentication.user_of(token)
    with connection.cursor() as cursor:
        cursor.execute(HAND_WRITTEN, {"user": user.environment.pk, "account": int(request.GET["account"])})
        total, rows = cursor.fetchone()
    return HttpResponse(f'{{"count":{total},"results":[{rows}]}}', content_type="application/json")


urlpatterns = [
    path("api/", include("api.urls")),
    path("peers/viewset/", PlainViewSet.as_view({"get": "list"})),
    path("peers/sql/", hand_written),
]
