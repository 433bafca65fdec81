"""Answers that no AWS service has given: a web proxy's page with status 200 must not pass for an empty list."""

import re
from typing import Any

from botocore.parsers import ResponseParserError

# EC2, STS and SNS wrap every answer in an element named after the action.
_WRAPPED = re.compile(rb"\s*(<\?xml[^>]*\?>)?\s*<\w+Response[\s/>]")
_PAGE = re.compile(rb"\s*(<\?xml[^>]*\?>)?\s*<(!doctype\s+)?html", re.IGNORECASE)
_LOOKED_AT = 1024


def check(*, operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    """A handler of botocore's event `before-parse`. Raises `ResponseParserError`, so that the call has no answer."""
    body = response_dict["body"]
    if response_dict["status_code"] >= 300 or not isinstance(body, bytes):
        # Refusals are told apart by their codes; what is streamed has checksums or is the customer's own.
        return
    start = body[:_LOOKED_AT].removeprefix(b"\xef\xbb\xbf")
    protocol = operation_model.service_model.resolved_protocol
    if protocol in ("query", "ec2"):
        genuine = _WRAPPED.match(start) is not None
    elif protocol in ("json", "rest-json"):
        genuine = not start.lstrip().startswith(b"<")
    else:
        genuine = _PAGE.match(start) is None
    if not genuine:
        raise ResponseParserError(
            "The answer is none of AWS; a proxy or a login page on the way may have written it."
        )
