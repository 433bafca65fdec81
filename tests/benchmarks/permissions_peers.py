"""What the permissions benchmark compares with: the same page of policies from one query."""

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from rest_framework_simplejwt.tokens import AccessToken

from api import authentication
from cpm.lib.states import Role

HAND_WRITTEN = """
SELECT (SELECT count(*) FROM cpm_policy WHERE user_id = ANY(%(users)s)),
    coalesce(string_agg(row_to_json(page)::text, ','), '')
FROM (
    SELECT account_id AS account, auto_remove_resource, false AS copy_to_s3_enabled, created_by_tag,
        nullif(description, '') AS description, dr_enabled, enable_agent_scripts, enabled, generations, id,
        false AS is_archive_active, false AS is_s3_cleanup_active,
        to_char(last_dr_recovery_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS last_dr_recovery_time,
        to_char(last_modified AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS last_modified,
        to_char(last_recovery_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS last_recovery_time,
        name, false AS s3_operation_in_progress,
        ARRAY(SELECT schedule_id FROM cpm_policyschedule s WHERE s.policy_id = cpm_policy.id ORDER BY schedule_id)
            AS schedules,
        user_id AS user
    FROM cpm_policy WHERE user_id = ANY(%(users)s)
    ORDER BY id LIMIT 50
) AS page
"""


def hand_written(request: HttpRequest) -> HttpResponse:
    """One query for page and count, no framework above Django, the same check of the token."""
    token = AccessToken(request.META["HTTP_AUTHORIZATION"].partition(" ")[2])  # type: ignore[arg-type]  # reads text
    user = authentication.user_of(token)
    users = [user.environment.pk]
    if user.role == Role.ROOT:
        users += (user.tenants or {})[Role.MANAGED]
    with connection.cursor() as cursor:
        cursor.execute(HAND_WRITTEN, {"users": users})
        total, rows = cursor.fetchone()
    return HttpResponse(f'{{"count":{total},"results":[{rows}]}}', content_type="application/json")


urlpatterns = [
    path("api/", include("api.urls")),
    path("peers/sql/", hand_written),
]
