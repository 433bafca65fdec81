"""From an exception of botocore to one of our families, with every secret taken out of its message."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from cpm.aws import errors
from cpm.aws.error_codes import PER_VOLUME_RATE, PER_VOLUME_WAIT, family_of, limit_passes
from cpm.aws.errors import AwsError
from cpm.lib.secrets import redact, scrub_text

MAX_MESSAGE = 1500
_ENCODED_FAILURE = re.compile(r"\s*Encoded authorization failure message: \S+")

# The request surely never left: no connection came about.
_NOT_SENT = (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError, boto.SSLError)
# The request may have arrived: the connection broke or stayed silent afterwards, or the answer made no sense.
_LOST_ANSWER = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    boto.ChecksumError,
    boto.FlexibleChecksumError,
    ResponseParserError,
)
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.NoAuthTokenError,
    boto.TokenRetrievalError,
    boto.SSOError,
)

CAUGHT = (boto.ClientError, boto.BotoCoreError, ResponseParserError)
"""What a call of botocore may raise; all of it goes through ``from_botocore``."""


@dataclass(frozen=True)
class Call:
    """The call that failed, as far as its errors tell about it."""

    service: str
    action: str
    region: str
    account: str | None = None
    secrets: Iterable[str] = field(default=(), repr=False)


def from_botocore(error: Exception, call: Call) -> AwsError:
    """The typed error. It holds no reference to ``error``, whose texts may contain signed headers."""
    if isinstance(error, boto.ClientError):
        return _from_answer(error, call)
    name = type(error).__name__
    text = _clean(str(error), call)
    if isinstance(error, _NOT_SENT):
        return _build(errors.Unreachable, name, text, call, maybe_done=False)
    if isinstance(error, _LOST_ANSWER):
        return _build(errors.Unreachable, name, text, call)
    if isinstance(error, _NO_CREDENTIALS):
        return _build(errors.BadCredentials, name, text, call)
    if isinstance(error, boto.ParamValidationError | boto.ValidationError | boto.InvalidRegionError):
        return _build(errors.Invalid, name, text, call)
    return _build(errors.Unknown, name, text, call)


def _from_answer(error: boto.ClientError, call: Call) -> AwsError:
    detail = error.response.get("Error", {})
    meta = error.response.get("ResponseMetadata", {})
    code = str(detail.get("Code") or "Unknown").removeprefix("Client.").removeprefix("Server.")
    message = _clean(str(detail.get("Message") or ""), call)
    family = family_of(call.service, code, message, meta.get("HTTPStatusCode"))
    built = _build(family, code, message, call, request_id=meta.get("RequestId"))
    if isinstance(built, errors.Throttled):
        built.retry_after = PER_VOLUME_WAIT if code == PER_VOLUME_RATE else _retry_after(meta)
    if isinstance(built, errors.LimitReached):
        built.transient = limit_passes(code, message)
    return built


def _retry_after(meta: dict[str, object]) -> float:
    headers = meta.get("HTTPHeaders")
    value = headers.get("retry-after", "") if isinstance(headers, dict) else ""
    return min(float(value), 60.0) if re.fullmatch(r"\d+(\.\d+)?", value) else 1.0


def _build(
    family: type[AwsError],
    code: str,
    message: str,
    call: Call,
    *,
    request_id: str | None = None,
    maybe_done: bool = True,
) -> AwsError:
    error = family(
        code,
        message,
        action=call.action,
        service=call.service,
        region=call.region,
        request_id=request_id,
        account=call.account,
    )
    if isinstance(error, errors.Unreachable):
        error.maybe_done = maybe_done
    return error


def _clean(message: str, call: Call) -> str:
    # SignatureDoesNotMatch repeats the canonical request with the session token; UnauthorizedOperation of EC2
    # adds a long encoded text that only sts:DecodeAuthorizationMessage can read.
    message = _ENCODED_FAILURE.sub("", message)
    return scrub_text(redact(message, call.secrets))[:MAX_MESSAGE].strip()
