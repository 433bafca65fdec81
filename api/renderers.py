"""JSON by orjson, CSV for logs and reports, and compressed files."""

from typing import Any

import orjson
from rest_framework.renderers import BaseRenderer


class JsonRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None
    render_style = "binary"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None
    ) -> bytes:
        if data is None:
            return b""
        return orjson.dumps(data, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)


class CsvRenderer(BaseRenderer):
    """Marks a view that also answers `text/csv`; the rows themselves are streamed by `api.rows`."""

    media_type = "text/csv"
    format = "csv"
    charset = "utf-8"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None
    ) -> bytes:
        return str(data or "").encode()


class Bzip2Renderer(JsonRenderer):
    """Marks a view that answers with a file compressed by bzip2. What it is asked to render itself is an error: JSON."""

    media_type = "application/x-bzip2"
    format = "bz2"


class ZipRenderer(JsonRenderer):
    """Marks a view that answers with a zip. What it is asked to render itself is an error: JSON."""

    media_type = "application/zip"
    format = "zip"


class PemRenderer(BaseRenderer):
    """Marks a view that answers a certificate; the view writes it itself."""

    media_type = "application/x-pem-file"
    format = "pem"
    charset = None
    render_style = "binary"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None
    ) -> bytes:
        return JsonRenderer().render(data, accepted_media_type, renderer_context)
