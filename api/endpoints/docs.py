"""The OpenAPI document and its pages. Scripts, styles and fonts come from this server, so that they work offline."""

from typing import Any

from django.urls import path
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerView
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import AllowAny
from rest_framework.views import APIView

from api.schema import Document

# The documents need no token; browsers fetch them, so ordinary negotiation applies.
PUBLIC: dict[str, Any] = {
    "authentication_classes": [],
    "permission_classes": [AllowAny],
    "content_negotiation_class": DefaultContentNegotiation,
}
# The bundles bring their own inline styles, start their search in a worker, and would fetch a logo from elsewhere.
ONLY_FROM_HERE = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)


class OfflinePage(APIView):
    """Tells the browser to load nothing from any other host, whatever the bundled scripts ask for."""

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {**super().default_response_headers, "Content-Security-Policy": ONLY_FROM_HERE}


class SwaggerPage(OfflinePage, SpectacularSwaggerView):
    """Try the API out."""


class RedocPage(OfflinePage, SpectacularRedocView):
    """Read about the API."""


urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(**PUBLIC, generator_class=Document), name="schema"),
    path("docs/", SwaggerPage.as_view(**PUBLIC, url_name="schema")),
    path("docs/redoc/", RedocPage.as_view(**PUBLIC, url_name="schema")),
]
