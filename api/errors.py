"""How errors look to API clients: one envelope for every status, rendered nowhere else.

    {"errors": [{"<field>": [{"message": "...", "code": "..."}]}]}

`non_field_errors` stands where no field is to blame. Nested fields are joined with dots (`credentials.aws_access_key`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.http import Http404, HttpResponse
from rest_framework import exceptions

from cpm.aws.errors import AwsError
from cpm.explore.errors import SessionClosed, SourceFailed
from cpm.lib import errors
from cpm.lib.errors import NON_FIELD, DomainError, FieldError

CHALLENGE = 'Bearer realm="CPM"'

STATUS_OF: tuple[tuple[type[DomainError], int], ...] = (
    (errors.ValidationFailed, 400),
    (errors.LimitExceeded, 400),
    (errors.AuthenticationFailed, 401),
    (errors.PermissionDenied, 403),
    (errors.FeatureOff, 403),
    (errors.NotAllowed, 403),
    (errors.NotFound, 404),
    (errors.InUse, 400),
    (errors.Conflict, 400),
    (errors.PreconditionFailed, 412),
    (errors.TooManyAttempts, 429),
    (SourceFailed, 412),
    (SessionClosed, 412),
)

# Answers made outside the API views (URL not found, crash, CSRF), by status.
WORDS: Mapping[int, tuple[str, str]] = {
    400: ("bad_request", "The request is malformed."),
    403: ("permission_denied", "This is not allowed."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not take this method."),
    413: ("too_large", "The body is larger than this server accepts."),
    500: ("server_error", "The server failed to answer. Its log names the cause under this request's id."),
}


def envelope(fields: Mapping[str, Sequence[FieldError]], status: int) -> HttpResponse:
    """The JSON answer for errors by field."""
    response = HttpResponse(
        orjson.dumps({"errors": [fields]}), status=status, content_type="application/json"
    )
    if status == 401:
        response["WWW-Authenticate"] = CHALLENGE
    return response


def for_status(status: int) -> HttpResponse:
    """The envelope for a status that carries no further knowledge."""
    code, message = WORDS.get(status, ("error", "The request could not be carried out."))
    return envelope({NON_FIELD: [{"message": message, "code": code}]}, status)


def status_of(error: DomainError) -> int:
    """The HTTP status of a refusal by the domain. What a body field names wrongly is the sender's mistake: 400."""
    if error.field and isinstance(error, errors.NotFound | errors.Conflict):
        return 400
    return next((status for kind, status in STATUS_OF if isinstance(error, kind)), 400)


def render(exc: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """The answer to an exception of an API view; None lets Django log it and answer 500."""
    if isinstance(exc, DomainError):
        answer = envelope(exc.to_fields(), status_of(exc))
        if isinstance(exc, errors.TooManyAttempts):
            answer["Retry-After"] = str(exc.seconds)
    elif isinstance(exc, AwsError):
        # AWS was asked on the caller's behalf and said no: the request is fine, the state of things is not.
        answer = envelope({NON_FIELD: [{"message": exc.explain(), "code": f"aws_{exc.family}"}]}, 412)
    elif isinstance(exc, Http404):
        answer = for_status(404)
    elif isinstance(exc, DjangoPermissionDenied):
        answer = for_status(403)
    elif isinstance(exc, exceptions.APIException):
        answer = _from_framework(exc)
    else:
        return None
    return answer


def _from_framework(exc: exceptions.APIException) -> HttpResponse:
    fields: dict[str, list[FieldError]] = {}
    for name, detail in _flat(exc.get_full_details()):
        fields.setdefault(name or NON_FIELD, []).append(detail)
    answer = envelope(fields, exc.status_code)
    wait = getattr(exc, "wait", None)
    if wait:
        answer["Retry-After"] = str(int(wait))
    return answer


def _flat(details: Any, name: str = "") -> Iterator[tuple[str, FieldError]]:
    """Pairs of dotted field name and error from the framework's nested lists and dicts."""
    if isinstance(details, Mapping):
        if set(details) == {"message", "code"} and isinstance(details["message"], str):
            yield name, {"message": str(details["message"]), "code": str(details["code"])}
            return
        for key, value in details.items():
            inner = name if key == NON_FIELD else f"{name}.{key}" if name else str(key)
            yield from _flat(value, inner)
    else:
        for index, value in enumerate(details):
            leaf = isinstance(value, Mapping) and set(value) == {"message", "code"}
            yield from _flat(value, name if leaf else f"{name}.{index}" if name else str(index))
