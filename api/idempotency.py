"""`Idempotency-Key`: a POST that starts work may be repeated after a lost answer without starting it again.

The answer of the first call is stored with the caller, the key and the address, and is sent again. Storing it and the
work are one transaction, so that a crash leaves both or neither, and a second call at the same moment waits for the
first one. A key that comes back with another body is a mistake of the client: 400. Refusals are not stored.
"""

import hashlib
import re
from collections.abc import Callable
from typing import cast

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from cpm.lib.errors import ValidationFailed
from cpm.models import User
from cpm.services import idempotency

HEADER = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def once(request: Request, work: Callable[[], HttpResponseBase]) -> HttpResponseBase:
    """The answer of `work`, or the stored one if this caller has sent the key to this address before."""
    key = request.headers.get(HEADER)
    if key is None:
        return work()
    if not _KEY.fullmatch(key):
        raise ValidationFailed.one(HEADER, "This must be 1 to 255 visible ASCII characters.")
    body = hashlib.sha256(request._request.body).hexdigest()
    with idempotency.claim(
        user=cast(User, request.user),
        key=key,
        path=request._request.path_info,
        body_hash=body,
        now=timezone.now(),
    ) as stored:
        if stored.status is None:
            answer = work()
            stored.keep(status=answer.status_code, content=_content(answer, request))
            return answer
        replay = HttpResponse(stored.content, status=stored.status, content_type="application/json")
        replay["Idempotency-Replayed"] = "true"
        return replay


def _content(answer: HttpResponseBase, request: Request) -> str:
    if isinstance(answer, Response):
        return cast(bytes, request.accepted_renderer.render(answer.data)).decode()
    assert isinstance(answer, HttpResponse), "an answer to a POST is never a stream"
    return answer.content.decode()
