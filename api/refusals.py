"""The refusals that operations share, as the OpenAPI document describes them."""

from typing import Any

Schema = dict[str, Any]

ENVELOPE: Schema = {
    "type": "object",
    "description": "What is wrong, by field; `non_field_errors` stands where no field is to blame.",
    "required": ["errors"],
    "properties": {
        "errors": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["message", "code"],
                        "properties": {
                            "message": {"type": "string", "description": "For people."},
                            "code": {"type": "string", "description": "For programs; it does not change."},
                        },
                    },
                },
            },
        }
    },
}
# Status, name of the component, when it is sent, and an example: field, message, code.
_REFUSALS: tuple[tuple[int, str, str, tuple[str, str, str]], ...] = (
    (400, "BadRequest", "Something in the request makes no sense; the fields are named.",
     ("name", "This field may not be blank.", "blank")),
    (401, "Unauthorized", "The token is missing, wrong or expired.",
     ("non_field_errors", "Authentication credentials were not provided.", "not_authenticated")),
    (403, "Forbidden", "The caller lacks the right.",
     ("non_field_errors", "This needs the right policies.change.", "permission_denied")),
    (404, "NotFound", "No such object within what the caller sees, or no such address in the version that was asked for.",
     ("non_field_errors", "There is no policy 7.", "not_found")),
    (406, "NotAcceptable", "An unknown media type or API version was asked for.",
     ("non_field_errors", "Could not satisfy the request Accept header.", "not_acceptable")),
    (412, "PreconditionFailed", "The state of things does not allow this now.",
     ("non_field_errors", "The policy is disabled.", "policy_disabled")),
    (413, "TooLarge", "The body is too large.",
     ("non_field_errors", "The body is larger than this server accepts.", "too_large")),
    (415, "UnsupportedMediaType", "The body's media type is not supported.",
     ("non_field_errors", "Unsupported media type \"text/xml\" in request.", "unsupported_media_type")),
    (429, "TooManyRequests", "Too many requests; Retry-After says when to try again.",
     ("non_field_errors", "Request was throttled. Expected available in 12 seconds.", "throttled")),
    (500, "ServerError", "The server failed to answer. Its log names the cause under this request's id.",
     ("non_field_errors", "The server failed to answer.", "server_error")),
)  # fmt: skip
_EXTRA_HEADERS: dict[int, Schema] = {
    401: {
        "WWW-Authenticate": {
            "description": "How to authenticate.", "schema": {"type": "string"}, "example": "Bearer",
        }
    },
    429: {
        "Retry-After": {
            "description": "Seconds until the next try makes sense.", "schema": {"type": "integer"}, "example": 12,
        }
    },
}  # fmt: skip
_ONLY_WITH_TOKEN = frozenset({403})
_ONLY_WITH_BODY = frozenset({413, 415})


def _response(status: int, text: str, example: tuple[str, str, str]) -> Schema:
    field, message, code = example
    return {
        "description": text,
        "headers": {
            "X-Request-ID": {"$ref": "#/components/headers/RequestId"},
            **_EXTRA_HEADERS.get(status, {}),
        },
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Errors"},
                "example": {"errors": [{field: [{"message": message, "code": code}]}]},
            }
        },
    }


RESPONSES: Schema = {name: _response(status, text, example) for status, name, text, example in _REFUSALS}


def of(*, public: bool, body: bool) -> Schema:
    """References to the refusals of an operation, by status."""
    return {
        str(status): {"$ref": f"#/components/responses/{name}"}
        for status, name, _, _ in _REFUSALS
        if not (public and status in _ONLY_WITH_TOKEN) and (body or status not in _ONLY_WITH_BODY)
    }
