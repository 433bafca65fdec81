"""Which media type and which version of the API a client asks for.

The version is a parameter of `Accept`: `application/json; version=1.3.0`. Without one the newest is meant. Clients in
the wild send trailing semicolons (`*/*;`) and two-part versions (`1.0`); both are understood.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.utils.mediatypes import media_type_matches

VERSIONS = {"1.0.0": 100, "1.1.0": 110, "1.2.0": 120, "1.3.0": 130, "1.4.0": 140, "1.5.0": 150}
LATEST = "1.5.0"
_ALIASES = {"1.0": "1.0.0"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One media range of an `Accept` header; `version` is None where the client named an unknown one."""

    type: str
    version: str | None
    quality: float

    @property
    def precision(self) -> int:
        return 2 - self.type.count("*")


def parse_accept(header: str) -> list[Wanted]:
    """The ranges of the header that we understand, the client's favourite first. Broken parts are left out."""
    ranges = [wanted for part in header.split(",") if (wanted := _range(part))]
    return sorted(ranges, key=lambda wanted: (-wanted.quality, -wanted.precision))


def _range(text: str) -> Wanted | None:
    kind, *parameters = (piece.strip().lower() for piece in text.split(";"))
    main, slash, sub = kind.partition("/")
    if not (slash and main and sub):
        return None
    values = dict(pair.split("=", 1) for pair in parameters if "=" in pair)
    version = values.get("version", LATEST).strip("\"' ")
    version = _ALIASES.get(version, version)
    try:
        quality = float(values.get("q", "1"))
    except ValueError:
        return None
    return Wanted(kind, version if version in VERSIONS else None, quality) if quality > 0 else None


def newer(since: str, asked: str) -> bool:
    """Whether something introduced in version `since` is unknown to a client that asks for version `asked`."""
    return VERSIONS[since] > VERSIONS[asked]


class VersionedNegotiation(BaseContentNegotiation):
    """Picks the renderer and puts the version into the accepted media type. Nothing acceptable is a 406."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        content_type = (request.content_type or "").rstrip("; ")
        for parser in parsers:
            if media_type_matches(parser.media_type, content_type):
                return parser
        return None

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        for wanted in parse_accept(request.META.get("HTTP_ACCEPT", "").strip() or "*/*"):
            for renderer in renderers:
                if wanted.version and _matches(wanted.type, renderer.media_type):
                    return renderer, f"{renderer.media_type}; version={wanted.version}"
        raise NotAcceptable(available_renderers=list(renderers))


def _matches(wanted: str, offered: str) -> bool:
    main, _, sub = wanted.partition("/")
    offered_main, _, offered_sub = offered.partition("/")
    return main in ("*", offered_main) and sub in ("*", offered_sub)


def accepted_version(request: Request) -> str:
    """The version that the negotiation accepted."""
    _, _, version = (request.accepted_media_type or "").partition("version=")
    return version or LATEST
