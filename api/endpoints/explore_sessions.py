"""Explore sessions: files of backed-up volumes, listed and downloaded without restoring anything."""

from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any

import orjson
from django.db.models import F, Func, IntegerField, JSONField, TextField, Value
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api import pagination
from api import serializers as shapes
from api.fields import Choice, Field, Fields, Integer, Moment, Text
from api.filters import Choices, Filter, Ids
from api.renderers import JsonRenderer, ZipRenderer
from api.views import Operation, Records, streamed
from cpm.explore import paths
from cpm.lib.states import ExploreStatus, ExploreType, LabelledEnum
from cpm.models import ExploreSession
from cpm.services import explore_files, explore_sessions
from cpm.services.explore_files import DEEPEST, MOST_PATHS, Node, Stream, Wanted

LONGEST_PATH = 32_768
ROOT = "/"
INCOMPLETE = "X-Incomplete"
CHUNK = 500
FROM_SESSION = Value(None, output_field=JSONField())
NUMBER = Value(0, output_field=IntegerField())


class EntryType(LabelledEnum):
    FILE = "F", "File"
    FOLDER = "D", "Directory"


class Children(Field):
    """Entries of the same kind, one level down."""

    schema = {"type": "array", "items": {"type": "object"}}


FIELDS = Fields(
    attached_volume_ids=Text(
        Func(F("volume_ids"), Value(", "), function="array_to_string", output_field=TextField())
    ),
    backup_record=Integer("backup_id"),
    explore_type=Choice("explore_type", ExploreType),
    id=Integer("id"),
    name=Text("name"),
    # Sessions have no place of their own on the server: their paths begin at the root.
    session_path=Text(Value(ROOT, output_field=TextField())),
    start_time=Moment("start_time"),
    status=Choice("status", ExploreStatus),
)
# The answers are made from what is on the disk; the fields only describe them.
ENTRY_FIELDS = Fields(
    children=Children(FROM_SESSION),
    depth=Integer(NUMBER),
    modified_time=Moment("start_time"),
    name=Text("name"),
    parent=Text("name"),
    path=Text("name"),
    size=Integer(NUMBER),
    type=Choice("explore_type", EntryType),
    url_friendly_path=Text("name"),
)


class NewSessionBody(shapes.Body):
    """What to explore: the volumes named, those of the instance, or all of the backup."""

    aws_instance_id = serializers.CharField(required=False, allow_blank=True, max_length=64)
    aws_volume_ids = serializers.ListField(
        child=serializers.CharField(max_length=64),
        required=False,
        max_length=explore_sessions.MOST_VOLUMES,
    )
    backup_record = shapes.Id(help_text="The backup to look into.")
    from_account = shapes.Id(required=False, help_text="Read snapshots of this account, such as DR copies.")
    region = shapes.Id(required=False, help_text="Read snapshots in this region, such as DR copies.")


class DownloadBody(shapes.Body):
    """What to put into the zip: files, and folders with all that is in them."""

    paths = serializers.ListField(
        child=serializers.CharField(max_length=LONGEST_PATH, trim_whitespace=False),
        allow_empty=False,
        max_length=MOST_PATHS,
        help_text="As `path` or `url_friendly_path` of an entry has them.",
    )


class Path(Filter):
    description = (
        "The folder to list, as `path` or `url_friendly_path` of an entry has it; by default the volumes."
    )


class Depth(Filter):
    schema = {"type": "integer", "minimum": 0, "maximum": DEEPEST, "default": 0}
    description = "How many levels of sub directories to show in `children`, or to search."

    @classmethod
    def read(cls, text: str) -> int:
        text = text.strip()
        if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= DEEPEST):
            raise ValueError(f"This must be a whole number up to {DEEPEST}.")
        return int(text)


class Search(Filter):
    description = "Only entries whose names contain this text, in any case. What may be missing is told in `X-Incomplete`."


class ExploreSessions(Records):
    """Sessions of looking at the files of backed-up volumes."""

    model, fields, noun = ExploreSession, FIELDS, "explore session"
    default_ordering = ("-start_time", "-id")
    filters = {"backup_record": Ids("backup_id"), "status": Choices("status", ExploreStatus)}
    operations = {
        "list": Operation("explore_sessions.read", since="1.3.0", many=True, summary="List explore sessions"),
        "create": Operation(
            explore_sessions.RIGHT, since="1.3.0", body=NewSessionBody, answers=202, starts_work=True,
            summary="Start to explore the volumes of a backup",
        ),
        "retrieve": Operation("explore_sessions.read", since="1.3.0", summary="Show an explore session"),
        "destroy": Operation(
            explore_sessions.RIGHT, since="1.3.0", answers=204, content=False, summary="End an explore session"
        ),
    }  # fmt: skip

    def create(self, request: Request) -> HttpResponseBase:
        return self.once(self._create)

    def _create(self) -> HttpResponseBase:
        made = explore_sessions.create(actor=self.actor, now=timezone.now(), **self.body())
        return self.show(made.pk)

    def destroy(self, request: Request, id: int) -> Response:
        explore_sessions.end(actor=self.actor, session=self.find(id), now=timezone.now())
        return self.done()


class KeptSessions(ExploreSessions):
    """Using an explore session."""

    filters = {}
    operations = {
        "keep_alive": Operation(
            explore_sessions.RIGHT, since="1.3.0", content=False, summary="Keep an explore session open"
        ),
        "entries": Operation(
            explore_sessions.RIGHT, since="1.3.0", many=True, fields=ENTRY_FIELDS, summary="List files and folders",
            filters={"depth": Depth(), "path": Path(), "search": Search()},
        ),
    }  # fmt: skip

    def keep_alive(self, request: Request, explore_session_id: int) -> Response:
        session = self.find(explore_session_id)
        explore_sessions.keep_alive(actor=self.actor, session=session, now=timezone.now())
        return self.done()

    def entries(self, request: Request, explore_session_id: int) -> HttpResponseBase:
        session = self.find(explore_session_id)
        wanted = Wanted(**self.values())
        window = pagination.window_of(request)
        if window is None and not (wanted.depth or wanted.search):
            return streamed(EntryArray(explore_files.whole(actor=self.actor, session=session, wanted=wanted)))
        part = {"offset": window.offset, "limit": window.size} if window else {}
        page = explore_files.page(actor=self.actor, session=session, wanted=wanted, **part)
        texts = [orjson.dumps(shown(node)).decode() for node in page.nodes]
        if window is None:
            response = HttpResponse(f"[{','.join(texts)}]", content_type="application/json")
        else:
            window.check(page.total)
            response = pagination.page_answer(request, window, page.total, texts)
        if page.incomplete:
            response[INCOMPLETE] = page.incomplete.encode("ascii", "replace").decode()
        return response


class Downloads(ExploreSessions):
    """Downloads, also for clients that ask for JSON, which is what they get when the request is refused."""

    renderer_classes = [ZipRenderer, JsonRenderer]
    filters = {}
    operations = {
        "download": Operation(
            explore_sessions.RIGHT, since="1.3.0", body=DownloadBody, answers=201,
            downloads=ZipRenderer.media_type, summary="Download files and folders as a zip",
        )
    }  # fmt: skip

    def download(self, request: Request, explore_session_id: int) -> HttpResponseBase:
        session = self.find(explore_session_id)
        pieces = explore_files.download(actor=self.actor, session=session, chosen=self.body()["paths"])
        return zip_file(pieces, f"explore-{session.pk}", self.operation.answers)


def zip_file(pieces: Stream[bytes], name: str, status: int) -> StreamingHttpResponse:
    """A zip that is sent while it is made. If that fails, the connection breaks off before the zip is whole."""
    response = StreamingHttpResponse(pieces, status=status, content_type=ZipRenderer.media_type)
    response["Content-Disposition"] = f'attachment; filename="{name}.zip"'
    return response


class EntryArray:
    """A JSON array of entries, sent while they are read. A failure breaks the connection off inside the array."""

    def __init__(self, nodes: Stream[Node]) -> None:
        self._nodes = nodes
        self._chunks = self._array()

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self._chunks.close()
        self._nodes.close()

    def _array(self) -> Generator[bytes, None, None]:
        mark = b"["
        while chunk := list(islice(self._nodes, CHUNK)):
            yield mark + b",".join(orjson.dumps(shown(node)) for node in chunk)
            mark = b","
        yield b"]" if mark == b"," else b"[]"


def shown(node: Node) -> dict[str, Any]:
    """An entry as clients see it. `url_friendly_path` leads to it whatever its name; `path` is for people, and leads
    to it if the name is a text."""
    entry = node.entry
    modified = explore_files.moment(entry.modified)
    return {
        "children": [shown(child) for child in node.children],
        "depth": node.depth,
        "modified_time": f"{modified:%Y-%m-%dT%H:%M:%SZ}" if modified else None,
        "name": paths.display(entry.name),
        "parent": paths.display(paths.parent(node.path)),
        "path": paths.display(node.path),
        "size": entry.size,
        "type": entry.kind,
        "url_friendly_path": paths.friendly(node.path),
    }


SESSION = "explore_sessions/<id:explore_session_id>"
urlpatterns = [
    path("explore_sessions/", ExploreSessions.as_view({"get": "list", "post": "create"})),
    path("explore_sessions/<id:id>/", ExploreSessions.as_view({"get": "retrieve", "delete": "destroy"})),
    path(f"{SESSION}/download/", Downloads.as_view({"post": "download"})),
    path(f"{SESSION}/file_system_entries/", KeptSessions.as_view({"get": "entries"})),
    path(f"{SESSION}/keep_alive/", KeptSessions.as_view({"post": "keep_alive"})),
]
