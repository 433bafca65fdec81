"""The OpenAPI document, read off the same declarations that the endpoints run on."""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentIdentity, ResolvedComponent
from rest_framework.serializers import CharField

from api import examples, refusals
from api.fields import Fields
from api.filters import parameter
from api.idempotency import HEADER
from api.pagination import OptionalPagination
from api.parsers import JsonParser
from api.renderers import CsvRenderer, JsonRenderer
from api.views import Endpoint

Schema = dict[str, Any]
# What a GET, PUT or DELETE does at an address of one thing and at one of many; a POST is named by the view's action.
VERBS = {
    "GET": ("retrieve", "list"),
    "PUT": ("update", "update"),
    "DELETE": ("delete", "delete_all"),
}
REQUEST_ID = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
FILE_NAME = {"Content-Disposition": {"$ref": "#/components/headers/FileName"}}
FILE: Schema = {"type": "string", "format": "binary"}


class ContractSchema(AutoSchema):
    """Describes views that declare `operations`; other views are described as usual."""

    @property
    def operation_declared(self) -> Any:
        return getattr(self.view, "operations", {}).get(getattr(self.view, "action", None))

    @property
    def segments(self) -> list[str]:
        """The words of the address after /api/, without its parameters."""
        return [part for part in self.path.split("/")[2:] if part and not part.startswith("{")]

    @property
    def is_item(self) -> bool:
        """Whether the address ends with an id."""
        return self.path.rstrip("/").endswith("}")

    def get_tags(self) -> list[str]:
        return [tag_of(self.segments[0])] if self.segments else ["API"]

    def get_operation_id(self) -> str:
        words = [word.replace("-", "_") for word in self.segments]
        operation = self.operation_declared
        if self.method in VERBS:
            many = not self.is_item and (self.method == "DELETE" or bool(operation and operation.many))
            words.append(VERBS[self.method][many])
        elif (action := getattr(self.view, "action", None) or "create") not in "_".join(words):
            words.append(action)
        return "_".join(words)

    def get_summary(self) -> str | None:
        operation = self.operation_declared
        return operation.summary or None if operation else None

    def get_description(self) -> str:  # type: ignore[override]  # the stubs mix up two generators
        operation = self.operation_declared
        if operation is None:
            return ""
        text = f"Since version {operation.since}."
        return f"{text} Deprecated since version {operation.deprecated}." if operation.deprecated else text

    def is_deprecated(self) -> bool:
        operation = self.operation_declared
        return bool(operation and operation.deprecated)

    def get_extensions(self) -> Schema:
        operation = self.operation_declared
        return {"x-since": operation.since} if operation else {}

    def get_auth(self) -> list[dict[str, Any]]:
        operation = self.operation_declared
        return [{"bearer": []}] if operation and operation.right else [{}]

    def get_request_serializer(self) -> Any:
        operation = self.operation_declared
        return operation.body if operation else None

    def _map_serializer_field(self, field: Any, direction: Any, bypass_extensions: bool = False) -> Schema:
        schema: Schema = super()._map_serializer_field(field, direction, bypass_extensions)
        if isinstance(field, CharField) and not field.allow_blank and schema.get("type") == "string":
            # Blanks alone are no text either.
            schema = {"minLength": 1, "pattern": r"\S", **schema}
        return schema

    def map_parsers(self) -> list[Any]:
        # Tokens may be asked for with a form too, which generated clients cannot tell from the same body in JSON.
        return [JsonParser.media_type]

    def _get_response_bodies(self, direction: Any = "response") -> Schema:
        operation = self.operation_declared
        if operation is None:
            return {"200": {"description": "See the description."}}
        refused = refusals.of(public=operation.right is None, body=operation.body is not None)
        return {str(operation.answers): self._success(operation), **refused}

    def _success(self, operation: Any) -> Schema:
        if operation.downloads:
            kind = {"type": "object"} if operation.downloads == JsonRenderer.media_type else FILE
            file = {operation.downloads: {"schema": kind}}
            return {"description": "The file.", "headers": {**REQUEST_ID, **FILE_NAME}, "content": file}
        if operation.answers == 204 or not operation.content:
            return {"description": "Done.", "headers": REQUEST_ID}
        fields = operation.fields or cast(Any, self.view).fields
        item = self._component(fields)
        schema = item
        if operation.many:
            schema = {"type": "array", "items": item}
            if operation.paged:
                schema = {"oneOf": [schema, self._page_of(item, schema)]}
        content: Schema = {JsonRenderer.media_type: {"schema": schema}}
        offered = {renderer.media_type for renderer in self.view.get_renderers()}
        if not (operation.many and CsvRenderer.media_type in offered):
            return {"description": "Success.", "headers": REQUEST_ID, "content": content}
        example = examples.csv_of(fields.describe())
        content[CsvRenderer.media_type] = {"schema": {"type": "string"}, "example": example}
        return {"description": "Success.", "headers": {**REQUEST_ID, **FILE_NAME}, "content": content}

    def _component(self, fields: Fields) -> Schema:
        """The schema of a row under a name of its own; equal rows share one.

        It is called what the endpoint that shows it as its own calls one of them, else after the address.
        """
        schema = fields.describe()
        text = _text_of(schema)
        by_path = pascal("_".join([*self.segments[:-1], examples.singular(self.segments[-1])]))
        for name in (_nouns().get(text, by_path), by_path, f"{by_path}Answer"):
            found = self.registry._components.get((name, ResolvedComponent.SCHEMA))
            if found is None or found.object == ComponentIdentity(text):
                break
        component = ResolvedComponent(
            name, ResolvedComponent.SCHEMA, schema=schema, object=ComponentIdentity(text)
        )
        self.registry.register_on_missing(component)
        return component.ref

    def _page_of(self, item: Schema, rows: Schema) -> Schema:
        """The schema of a page of rows, under the name of the row and “Page”."""
        name = item["$ref"].rpartition("/")[2] + "Page"
        schema = OptionalPagination().page_schema(rows)
        component = ResolvedComponent(
            name, ResolvedComponent.SCHEMA, schema=schema, object=ComponentIdentity(name)
        )
        self.registry.register_on_missing(component)
        return component.ref

    def _get_parameters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = super()._get_parameters()
        operation = self.operation_declared
        if operation is None:
            return found
        for item in found:
            if item["in"] == "path":
                item["description"] = f"Id of the {self._named_by(item['name'])}."
        if operation.many and operation.paged:
            found += OptionalPagination().get_schema_operation_parameters(self.view)
        found += [
            parameter(name, item.description, item.describe(), required=item.required)
            for name, item in operation.filters.items()
        ]
        if operation.many:
            for backend in getattr(self.view, "filter_backends", ()):
                found += backend().get_schema_operation_parameters(self.view)
        if operation.starts_work:
            found.append(
                {
                    "name": HEADER,
                    "in": "header",
                    "description": "Repeating the request with the same key sends the first answer again.",
                    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
                }
            )
        for item in found:
            item["description"] = item.get("description") or f"Only rows with this {words_of(item['name'])}."
        return found

    def _named_by(self, variable: str) -> str:
        """What the id in the path belongs to: “policy” for the one after /policies/."""
        before = self.path[: self.path.index(f"{{{variable}}}")].rstrip("/").rpartition("/")[2]
        return words_of(examples.singular(before))

    def _get_filter_parameters(self) -> list[Any]:
        return []

    def _get_pagination_parameters(self) -> list[Any]:
        return []

    def get_serializer_name(self, serializer: Any, direction: Any) -> str:
        """The class name; a second class of that name is told apart by its module."""
        name: str = super().get_serializer_name(serializer, direction)
        taken = self.registry._components.get((name, ResolvedComponent.SCHEMA))
        kind = type(serializer)
        if taken is None or taken.object in (kind, serializer) or type(taken.object) is kind:
            return name
        return pascal(kind.__module__.rpartition(".")[2]) + name

    def get_override_parameters(self) -> list[Any]:
        return []


def _text_of(schema: Schema) -> str:
    return json.dumps(schema, sort_keys=True, default=str)


@cache
def _nouns() -> Mapping[str, str]:
    """What endpoints call one of the rows that they show, by the row's schema."""
    found: dict[str, str] = {}
    waiting: list[type[Endpoint]] = [Endpoint]
    while waiting:
        kind = waiting.pop(0)
        waiting += kind.__subclasses__()
        if kind.noun != Endpoint.noun and kind.fields.names:
            found.setdefault(_text_of(kind.fields.describe()), pascal(kind.noun.replace(" ", "_")))
    return found


class Document(SchemaGenerator):
    """The document of this release; it is put together once in a process."""

    def get_schema(self, request: Any = None, public: bool = False) -> Schema:
        return _document()


@cache
def _document() -> Schema:
    made: Schema = SchemaGenerator().get_schema(request=None, public=True)
    return made


def complete(result: Schema, generator: Any, request: Any, public: bool) -> Schema:
    """Post-processing hook: what operations share, the chapters, and an example for every body and answer."""
    components = result.setdefault("components", {})
    components["securitySchemes"] = {
        "bearer": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "An access token from `POST /api/token/obtain/api_key/`.",
        }
    }  # fmt: skip
    components.setdefault("schemas", {})["Errors"] = refusals.ENVELOPE
    components["responses"] = refusals.RESPONSES
    components["headers"] = HEADERS
    used = {tag for _, operation in operations_of(result) for tag in operation["tags"]}
    result["tags"] = [{"name": tag} for tag in sorted(used)]
    for _, operation in operations_of(result):
        answers = [answer for answer in operation["responses"].values() if "$ref" not in answer]
        for described in (operation.get("requestBody"), *answers):
            for kind, media in (described or {}).get("content", {}).items():
                if kind != CsvRenderer.media_type and media.get("schema") != FILE:
                    media.update(examples.of_media(media["schema"], components["schemas"]))
    return result


HEADERS = {
    "RequestId": {
        "description": "The id of this request in the server's log: the client's own `X-Request-ID`, or a new one.",
        "schema": {"type": "string"},
        "example": "7b0d2a0f6c3c4b6d9a5e1f0c8d7e6a54",
    },
    "FileName": {
        "description": "Under which name to save the file, if it is sent as one.",
        "schema": {"type": "string"},
        "example": 'attachment; filename="backup-7.csv"',
    },
}


def operations_of(document: Schema) -> list[tuple[str, Schema]]:
    """Every operation with its method and address."""
    return [
        (f"{method.upper()} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in ("get", "post", "put", "delete")
    ]


def tag_of(segment: str) -> str:
    return SHORT.get(segment) or words_of(segment).capitalize()


SHORT: Mapping[str, str] = {"s3_repositories": "S3 repositories", "captured_vpcs": "Captured VPCs"}


def words_of(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")


def pascal(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[_\W]+", name))
