"""The OpenAPI document and its pages."""

from typing import Any

from django.urls import path
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerView
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import AllowAny


class _Public:
    """The documents need no token; browsers fetch them, so ordinary negotiation applies."""

    authentication_classes: list[Any] = []
    permission_classes = [AllowAny]
    content_negotiation_class = DefaultContentNegotiation


class SchemaView(_Public, SpectacularAPIView):
    """The OpenAPI document as YAML or JSON."""


class SwaggerView(_Public, SpectacularSwaggerView):
    """The interactive pages; their scripts come from this server, so they work offline."""

    url_name = "schema"


class RedocView(_Public, SpectacularRedocView):
    """The reading pages."""

    url_name = "schema"


urlpatterns = [
    path("schema/", SchemaView.as_view(), name="schema"),
    path("docs/", SwaggerView.as_view()),
    path("docs/redoc/", RedocView.as_view()),
]
