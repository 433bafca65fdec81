"""Addresses under /api/: one line per endpoints module."""

from django.urls import include, path, register_converter

from api.converters import IdConverter

register_converter(IdConverter, "id")

urlpatterns = [
    path("", include("api.endpoints.docs")),
    path("", include("api.endpoints.backups")),
    path("", include("api.endpoints.lookups")),
    path("", include("api.endpoints.recoveries")),
    path("", include("api.endpoints.snapshots")),
    path("", include("api.endpoints.token")),
]
