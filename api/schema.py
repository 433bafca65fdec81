"""The OpenAPI document, read off the same declarations that the endpoints run on."""

from typing import Any, cast

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiResponse

from api.filters import parameter
from api.idempotency import HEADER
from api.pagination import OptionalPagination
from api.renderers import CsvRenderer

ENVELOPE: dict[str, Any] = {
    "type": "object",
    "required": ["errors"],
    "properties": {
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["message", "code"],
                        "properties": {"message": {"type": "string"}, "code": {"type": "string"}},
                    },
                },
            },
        }
    },
}
REFUSALS = {
    400: "Something in the request makes no sense; the fields are named.",
    401: "The token is missing, wrong or expired.",
    403: "The caller lacks the right.",
    404: "No such object within what the caller sees.",
    406: "An unknown media type or API version was asked for.",
    412: "The state of things does not allow this now.",
    413: "The body is too large.",
    415: "The body's media type is not supported.",
    429: "Too many requests; Retry-After says when to try again.",
}


class ContractSchema(AutoSchema):
    """Describes views that declare `operations`; other views are described as usual."""

    @property
    def operation_declared(self) -> Any:
        return getattr(self.view, "operations", {}).get(getattr(self.view, "action", None))

    def get_tags(self) -> list[str]:
        parts = [part for part in self.path.split("/") if part and not part.startswith("{")]
        return parts[1:2] or ["api"]

    def get_operation_id(self) -> str:
        parts = [part.strip("{}").replace("-", "_") for part in self.path.split("/") if part][1:]
        return "_".join([self.method.lower(), *parts])

    def get_summary(self) -> str | None:
        operation = self.operation_declared
        return operation.summary or None if operation else None

    def get_description(self) -> str:  # type: ignore[override]  # the stubs mix up two generators
        operation = self.operation_declared
        return f"Since version {operation.since}." if operation else ""

    def get_auth(self) -> list[dict[str, Any]]:
        operation = self.operation_declared
        return [{"bearer": []}] if operation and operation.right else [{}]

    def get_request_serializer(self) -> Any:
        operation = self.operation_declared
        return operation.body if operation else None

    def get_response_serializers(self) -> Any:
        operation = self.operation_declared
        if operation is None:
            return OpenApiResponse({}, description="See the description.")
        refusals = {
            status: OpenApiResponse(ENVELOPE, description=text)
            for status, text in REFUSALS.items()
            if not (status in (401, 403) and operation.right is None)
        }
        return {operation.answers: self._success(operation), **refusals}

    def _success(self, operation: Any) -> Any:
        if operation.answers == 204 or not operation.content:
            return OpenApiResponse(description="Done.")
        fields = operation.fields or cast(Any, self.view).fields
        schema = fields.describe()
        if operation.many:
            schema = {"type": "array", "items": schema}
            if operation.paged:
                schema = OptionalPagination().get_paginated_response_schema(schema)
        return OpenApiResponse(schema, description="Success.")

    def map_renderers(self, attribute: str) -> list[str]:
        operation = self.operation_declared
        offered = [str(renderer.media_type) for renderer in self.view.get_renderers()]
        return (
            offered if operation and operation.many else [t for t in offered if t != CsvRenderer.media_type]
        )

    def _get_parameters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = super()._get_parameters()
        operation = self.operation_declared
        if operation is None:
            return found
        if operation.many and operation.paged:
            found += OptionalPagination().get_schema_operation_parameters(self.view)
        if operation.many:
            found += self._filter_parameters(operation)
        if operation.starts_work:
            found.append(
                {
                    "name": HEADER,
                    "in": "header",
                    "description": "Repeating the request with the same key sends the first answer again.",
                    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
                }
            )
        return found

    def _filter_parameters(self, operation: Any) -> list[dict[str, Any]]:
        found = [
            parameter(name, item.description, item.describe(), required=item.required)
            for name, item in operation.filters.items()
        ]
        for backend in getattr(self.view, "filter_backends", ()):
            found += backend().get_schema_operation_parameters(self.view)
        return found

    def get_filter_backends(self) -> list[Any]:
        return []

    def get_override_parameters(self) -> list[Any]:
        return []


def add_bearer(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Post-processing hook: names the one way in."""
    schemes = result.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["bearer"] = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    return result
