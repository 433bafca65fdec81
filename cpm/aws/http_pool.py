"""Kept connections to one AWS endpoint for block I/O: signed, as many at once as it bears, safe failures repeated.

Beside the gateway's clients because those cost as much CPU per block as compressing it. Errors are the same
families, with AWS's words and request id.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from botocore.exceptions import ClientError

from cpm.aws import errors
from cpm.aws.answers import Damaged, said
from cpm.aws.client import _recorders
from cpm.aws.errors import AwsError
from cpm.aws.http_connection import Answer, Broken, Buffer, Connection, Route
from cpm.aws.identity import Identity
from cpm.aws.in_flight import Bounds, InFlight
from cpm.aws.signing import EMPTY, Signer
from cpm.aws.translate import CAUGHT, MAX_MESSAGE, Call, from_botocore
from cpm.lib.secrets import redact, scrub_text

log = structlog.get_logger(__name__)

_TOO_SLOW = {"ReadTimeoutError", "ConnectTimeoutError", "RequestTimeout", "ServiceUnavailable", "503"}
_MAX_TEXT = 4 * 1024 * 1024
_NO_LATER = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """``attempts`` count the first. Refusals for the rate are repeated for ``seconds``, however many they are."""

    attempts: int = 6
    seconds: float = 90.0
    first_pause: float = 0.1


@dataclass(slots=True)
class Request:
    """``path`` and ``query`` are canonical (see ``cpm.aws.signing``); ``payload`` is the SHA-256 that is signed.

    ``size`` is what the answer is expected to bring, ``longest`` what it may at most; ``into`` is where a body of known length
    goes. ``again`` names refusals that pass by themselves. ``check`` raises ``Damaged`` for an
    answer whose content is wrong; then the request is repeated like one whose answer was lost. ``lost`` is set
    when an answer was lost, so that a refusal of the repeat may be the echo of its own success.
    """

    action: str
    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: Sequence[Buffer] = ()
    payload: str = EMPTY
    size: int = 0
    longest: int = 0
    into: memoryview | None = None
    repeatable: bool = True
    again: Callable[[AwsError], bool] | None = None
    check: Callable[[Answer], None] | None = None
    lost: bool = False


class HttpPool:
    """Get one from ``cpm.aws.gateway.pool``. Safe to share between threads; each request blocks its thread."""

    def __init__(
        self,
        identity: Identity,
        service: str,
        region: str,
        *,
        route: Route,
        signer: Signer,
        prefix: str = "",
        user_agent: str = "cpm",
        bounds: Bounds | None = None,
        patience: Patience | None = None,
        turn: Callable[[str], float] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.identity = identity
        self.service = service
        self.region = region
        self.secure = route.tls is not None
        self.in_flight = InFlight(bounds or Bounds())
        self.patience = patience or Patience()
        self._route = route
        self._signer = signer
        self._prefix = prefix
        self._user_agent = {"User-Agent": user_agent}
        self._turn = turn
        self._sleep = sleep
        self._idle: deque[Connection] = deque()
        self._logged = 0.0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"HttpPool({self.service} in {self.region} as {self.identity})"

    def send(self, request: Request) -> Answer:
        """The answer, of status below 300. Raises ``AwsError`` of some family."""
        self._wait_for_turn(request)
        began, attempt = time.monotonic(), 0
        while True:
            answer, error = self._attempt(request)
            if answer is not None:
                return answer
            assert error is not None
            attempt += 1
            if not self._worth_repeating(request, error, attempt, time.monotonic() - began):
                raise error
            if isinstance(error, errors.Unreachable) and error.maybe_done:
                request.lost = True
            self._pause(error, attempt)

    def told(self, action: str, code: str, message: str) -> AwsError:
        """An error that AWS told inside an answer, or that follows from one."""
        return from_botocore(
            ClientError({"Error": {"Code": code, "Message": message}}, action), self._call(action)
        )

    def close(self) -> None:
        """Closes the connections that nobody uses. The pool stays usable."""
        while self._idle:
            self._idle.pop().close()

    def _wait_for_turn(self, request: Request) -> None:
        wait = self._turn(request.action) if self._turn else 0.0
        if wait < 0:
            text = f"The calls already waiting for their turn take {-wait:.0f} seconds."
            call = self._call(request.action)
            error = errors.Throttled("WaitingForTurn", text, action=call.action, service=call.service,
                                     region=call.region, account=call.account)  # fmt: skip
            error.retry_after = -wait
            raise error
        if wait > 0:
            self._sleep(wait)

    # -- one attempt --------------------------------------------------------------------------------------

    def _attempt(self, request: Request) -> tuple[Answer | None, AwsError | None]:
        _recorders.note(self.service, request.action)
        size = request.size + sum(len(piece) for piece in request.body)
        ticket, error = self.in_flight.enter(size), None
        try:
            answer = self._exchange(request)
            if answer.status < 300:
                if request.check is not None:
                    request.check(answer)
                return answer, None
            error = self._refusal(request, answer)
        except Broken as broken:
            error = self._unreachable(request, broken.code, str(broken), maybe_done=broken.sent)
        except Damaged as damage:
            error = self._unreachable(request, damage.code, str(damage), maybe_done=True)
        except CAUGHT as caught:
            # No credentials, or no way to renew them.
            error = from_botocore(caught, self._call(request.action))
        finally:
            self.in_flight.leave(ticket, size, slow_down=_too_much(error))
        return None, error

    def _exchange(self, request: Request) -> Answer:
        path = self._prefix + request.path
        target = f"{path}?{request.query}" if request.query else path
        host = self._route.authority
        while True:
            # Signed anew each time: a signature is good for minutes, and credentials may have been renewed.
            headers = self._signer.headers(
                request.method, path, request.query, host, request.headers, request.payload
            )
            connection = self._kept() or Connection(self._route)
            try:
                answer = connection.exchange(
                    request.method,
                    target,
                    {**headers, **self._user_agent},
                    request.body,
                    longest=max(request.size, request.longest, _MAX_TEXT),
                    into=request.into,
                )
            except Broken as broken:
                # The server closed a kept connection as we picked it up; the next may be fresh.
                if broken.stale and request.repeatable:
                    continue
                raise
            if connection.keep:
                self._idle.append(connection)
            return answer

    def _kept(self) -> Connection | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.usable():
                return connection
            connection.close()
        return None

    # -- repeating ----------------------------------------------------------------------------------------

    def _worth_repeating(self, request: Request, error: AwsError, attempt: int, spent: float) -> bool:
        if isinstance(error, errors.Throttled):
            return spent < self.patience.seconds
        if attempt >= self.patience.attempts:
            return False
        if isinstance(error, errors.Unreachable):
            return request.repeatable or not error.maybe_done
        return request.again is not None and request.again(error)

    def _pause(self, error: AwsError, attempt: int) -> None:
        longest = min(_NO_LATER, self.patience.first_pause * 2.0 ** min(attempt, 10))
        with self._lock:
            now = time.monotonic()
            tell, self._logged = now - self._logged > 1.0, now if now - self._logged > 1.0 else self._logged
        if tell:
            log.info(
                "block request repeated",
                call=error.call,
                region=self.region,
                code=error.code,
                in_flight=int(self.in_flight.limit),
            )
        self._sleep(random.uniform(longest / 4, longest))

    # -- errors -------------------------------------------------------------------------------------------

    def _refusal(self, request: Request, answer: Answer) -> AwsError:
        code, message = said(answer)
        request_id = answer.headers.get("x-amzn-requestid") or answer.headers.get("x-amz-request-id")
        told = {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {
                "RequestId": request_id,
                "HTTPStatusCode": answer.status,
                "HTTPHeaders": answer.headers,
            },
        }
        return from_botocore(ClientError(told, request.action), self._call(request.action))

    def _unreachable(self, request: Request, code: str, text: str, *, maybe_done: bool) -> errors.Unreachable:
        call = self._call(request.action)
        error = errors.Unreachable(
            code,
            scrub_text(redact(text, call.secrets))[:MAX_MESSAGE],
            action=call.action,
            service=call.service,
            region=call.region,
            account=call.account,
        )
        error.maybe_done = maybe_done
        return error

    def _call(self, action: str) -> Call:
        identity = self.identity
        return Call(self.service, action, self.region, identity.account_number, identity.secrets())


def _too_much(error: AwsError | None) -> bool:
    """Refused for the rate, or so busy that no answer came in time."""
    return isinstance(error, errors.Throttled) or (error is not None and error.code in _TOO_SLOW)
