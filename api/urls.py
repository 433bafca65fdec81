"""Addresses under /api/: one line per endpoints module."""

from django.urls import include, path

urlpatterns = [
    path("", include("api.endpoints.delegates")),
    path("", include("api.endpoints.docs")),
    path("", include("api.endpoints.accounts")),
    path("", include("api.endpoints.alerts")),
    path("", include("api.endpoints.backups")),
    path("", include("api.endpoints.email_identity")),
    path("", include("api.endpoints.lookups")),
    path("", include("api.endpoints.notifications")),
    path("", include("api.endpoints.policies")),
    path("", include("api.endpoints.recover")),
    path("", include("api.endpoints.recoveries")),
    path("", include("api.endpoints.reports")),
    path("", include("api.endpoints.reports_audit")),
    path("", include("api.endpoints.s3_repositories")),
    path("", include("api.endpoints.schedules")),
    path("", include("api.endpoints.settings")),
    path("", include("api.endpoints.settings_options")),
    path("", include("api.endpoints.settings_proxy")),
    path("", include("api.endpoints.settings_server")),
    path("", include("api.endpoints.snapshots")),
    path("", include("api.endpoints.system")),
    path("", include("api.endpoints.targets")),
    path("", include("api.endpoints.token")),
    path("", include("api.endpoints.users")),
]
