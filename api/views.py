"""The base of all endpoints: versions, rights, scoping and lists happen here, once.

An endpoint is a class with declarations and an `operations` table that has one line per action:

    class Recoveries(Records):
        model, fields, noun = Recovery, FIELDS, "recovery"
        filters, ordering = {...}, {...}
        operations = {
            "list": Operation("recoveries.read", since="1.0.0", many=True),
            "retrieve": Operation("recoveries.read", since="1.0.0"),
            "destroy": Operation("recoveries.delete", since="1.0.0", answers=204),
        }

        def destroy(self, request, id):
            recoveries.delete(actor=self.actor, recovery=self.find(id))
            return self.done()
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, cast

import orjson
from django.db.models import BigIntegerField, Model, QuerySet, Subquery
from django.db.models.expressions import RawSQL
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSetMixin

from api import (
    converters,  # noqa: F401  # endpoints write <id:…> in their paths
    idempotency,
    pagination,
    rows,
)
from api.fields import ROW, Fields
from api.filters import Asked, ContractFilterBackend, Filter, values_of
from api.negotiation import LATEST, accepted_version, newer
from api.pagination import Window
from api.renderers import CsvRenderer, JsonRenderer
from cpm import features, permissions
from cpm.features import Feature
from cpm.lib.errors import NotFound
from cpm.models import Actor, User
from cpm.reports.columns import Text
from cpm.reports.stream import CsvFile

Rows = QuerySet[Any, Any]
BACKEND = ContractFilterBackend()


@dataclass(frozen=True)
class Operation:
    """One action of an endpoint: who may call it, since which version, what goes in and what comes out.

    `right` None means public. `feature` is one that the server must have. `fields` None means the view's own.
    `starts_work` honours `Idempotency-Key`.
    `content` False means an answer without a body; `downloads` is the media type of one that is a file. `deprecated`
    is the version since which clients should use something else.
    """

    right: str | None
    since: str
    body: type[Serializer[Any]] | None = None
    answers: int = 200
    fields: Fields | None = None
    many: bool = False
    paged: bool = True
    content: bool = True
    downloads: str = ""
    deprecated: str = ""
    filters: Mapping[str, Filter] = field(default_factory=dict)
    starts_work: bool = False
    feature: Feature | None = None
    summary: str = ""


class NumberOf(Subquery):
    """How many rows a queryset has, as a part of another query."""

    template = "(SELECT count(*) FROM (%(subquery)s) AS counted)"
    output_field = BigIntegerField()


class Endpoint(ViewSetMixin, APIView):
    """A view whose actions are declared in `operations`."""

    operations: ClassVar[Mapping[str, Operation]] = {}
    fields: ClassVar[Fields] = Fields()
    noun: ClassVar[str] = "object"
    filters: ClassVar[Mapping[str, Filter]] = {}
    ordering: ClassVar[Mapping[str, str]] = {}
    search: ClassVar[Sequence[str]] = ()
    default_ordering: ClassVar[Sequence[str]] = ("id",)
    filter_backends = [ContractFilterBackend]
    http_method_names = ["get", "post", "put", "delete", "head", "options"]
    asked: Asked

    @property
    def operation(self) -> Operation:
        return self.operations["list" if self.action == "head" else self.action]

    @property
    def actor(self) -> Actor:
        return Actor.of(cast(User, self.request.user), source=self.request.META.get("REMOTE_ADDR", ""))

    @cached_property
    def owners(self) -> Sequence[int]:
        """Ids of the users whose objects the operation's right reaches."""
        assert self.operation.right, "a public operation has no owners"
        return permissions.owners(cast(User, self.request.user), self.operation.right)

    def determine_version(self, request: Request, *args: Any, **kwargs: Any) -> tuple[str, None]:
        return accepted_version(request), None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        operation = self.operations.get(self.action or "")
        if operation is None:
            return
        if newer(operation.since, request.version or LATEST):
            raise Http404
        if operation.right:
            permissions.require(self.actor, operation.right)
        if operation.feature:
            features.require(operation.feature)

    def scoped(self, queryset: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        """The rows of any queryset that the operation's right lets the caller reach."""
        return permissions.owned_by(self.owners, queryset)

    def found(self, queryset: Rows, pk: int, noun: str) -> Any:
        """The row within what the caller sees, or a 404 that tells nothing else."""
        row = self.scoped(queryset).filter(pk=pk).first()
        if row is None:
            raise NotFound(noun, pk)
        return row

    def body(self) -> dict[str, Any]:
        """The request's body, checked for shape; only what was sent, plus defaults."""
        assert self.operation.body is not None, "the operation declares no body"
        serializer = self.operation.body(data=self.request.data)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def values(self) -> dict[str, Any]:
        """The parameters that the operation declares and the client gave. Raises `ValidationFailed`."""
        return values_of(self.request, self.operation.filters)

    def show_one(self, row: Rows) -> HttpResponse:
        """The only row of a queryset of `Fields.on`, as the operation's answer."""
        return HttpResponse(row.get(), status=self.operation.answers, content_type="application/json")

    def once(self, work: Callable[[], HttpResponseBase]) -> HttpResponseBase:
        """Runs work that must not start twice under one `Idempotency-Key`; see `api.idempotency`."""
        return idempotency.once(self.request, work)

    def done(self) -> Response:
        """The operation's answer without content."""
        return Response(status=self.operation.answers)

    def listed(self, items: list[dict[str, Any]]) -> HttpResponse:
        """A list that does not come from a query, paginated like the others."""
        window = pagination.window_of(self.request) if self.operation.paged else None
        if window is None:
            return HttpResponse(orjson.dumps(items), content_type="application/json")
        window.check(len(items))
        shown = items[window.offset : window.offset + window.size]
        texts = [orjson.dumps(item).decode() for item in shown]
        return pagination.page_answer(self.request, window, len(items), texts)


class Records(Endpoint):
    """Lists and single rows of one model, made from the declared fields."""

    model: ClassVar[type[Model]]

    def narrow(self, queryset: Rows) -> Rows:
        """The rows of this address, before scoping; overridden where a parent id or a kind is in the path."""
        return queryset

    def list(self, request: Request, **_: Any) -> HttpResponseBase:
        fields = self.operation.fields or self.fields
        found = self.scoped(self.narrow(fields.on(self.model)))
        found = BACKEND.narrow(BACKEND.asked(request, self), found, self)
        window = pagination.window_of(request) if self.operation.paged else None
        if window is None:
            return streamed(rows.JsonArray(found.order_by(*self.asked.ordering)))
        total, ordered, offset = self.position(found, window)
        shown = ordered[offset : offset + window.size]
        if offset:
            # Ids first: PostgreSQL would write the JSON of every row that it skips.
            shown = self.narrow(fields.on(self.model)).filter(pk__in=shown.values("pk"))
            shown = shown.order_by(*self.asked.ordering)
        if isinstance(total, int):
            return pagination.page_answer(request, window, total, list(shown))
        pairs = list(shown.annotate(json_total=total).values_list(ROW, "json_total"))
        return pagination.page_answer(
            request, window, pairs[0][1] if pairs else 0, [text for text, _ in pairs]
        )

    def position(self, found: Rows, window: Window) -> tuple[int | RawSQL | Subquery, Rows, int]:
        """How many rows there are, the rows in order, and where in them the page begins.

        For a first page the number is an expression, to be answered along with the rows.
        """
        if window.number == 1:
            return NumberOf(found.order_by().values("pk")), found.order_by(*self.asked.ordering), 0
        total = found.count()
        window.check(total)
        return total, found.order_by(*self.asked.ordering), window.offset

    def retrieve(self, request: Request, id: int, **_: Any) -> HttpResponseBase:
        return self.show(id)

    def show(self, pk: int) -> HttpResponse:
        """One row with the operation's status, or 404."""
        fields = self.operation.fields or self.fields
        text = self.scoped(self.narrow(fields.on(self.model))).filter(pk=pk).first()
        if text is None:
            raise NotFound(self.noun, pk)
        return HttpResponse(text, status=self.operation.answers, content_type="application/json")

    def find(self, pk: int) -> Any:
        """The model row for a service, or 404."""
        return self.found(self.narrow(self.model._default_manager.all()), pk, self.noun)


class LogRecords(Records):
    """A list that is answered as JSON or as a CSV file, without pages. `filename` names the download."""

    renderer_classes = [JsonRenderer, CsvRenderer]
    filename: ClassVar[str] = "log"

    def list(self, request: Request, **kwargs: Any) -> HttpResponseBase:
        if not wants_csv(request):
            return super().list(request, **kwargs)
        fields = self.operation.fields or self.fields
        found = self.scoped(self.narrow(fields.columns(self.model))).order_by(*self.default_ordering)
        columns = [Text(name, name) for name in fields.names]
        return csv_file(CsvFile(columns, found), "-".join([self.filename, *map(str, kwargs.values())]))


def wants_csv(request: Request) -> bool:
    return request.accepted_renderer.media_type == CsvRenderer.media_type


def streamed(chunks: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(chunks, content_type="application/json")


def csv_file(lines: CsvFile, name: str) -> StreamingHttpResponse:
    """A CSV download called `name`.csv."""
    response = StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response
