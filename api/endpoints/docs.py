"""The OpenAPI document and its pages, whose scripts come from this server, so that they work offline."""

from typing import Any

from django.urls import path
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerView
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import AllowAny

# The documents need no token; browsers fetch them, so ordinary negotiation applies.
PUBLIC: dict[str, Any] = {
    "authentication_classes": [],
    "permission_classes": [AllowAny],
    "content_negotiation_class": DefaultContentNegotiation,
}


urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(**PUBLIC), name="schema"),
    path("docs/", SpectacularSwaggerView.as_view(**PUBLIC, url_name="schema")),
    path("docs/redoc/", SpectacularRedocView.as_view(**PUBLIC, url_name="schema")),
]
