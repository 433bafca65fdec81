"""One AWS service in one region, as one identity: paced calls, typed errors, repeats only where they are
harmless."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
from botocore import xform_name

from cpm.aws import errors
from cpm.aws.error_codes import PER_VOLUME_RATE
from cpm.aws.errors import AwsError
from cpm.aws.identity import Identity
from cpm.aws.retry import pause, repeatable
from cpm.aws.throttle import Throttle, family
from cpm.aws.translate import CAUGHT, Call, from_botocore

log = structlog.get_logger(__name__)

_Kind = TypeVar("_Kind", bound=AwsError)

# What a region that is not enabled answers to good credentials; wrong credentials get the same from every
# region.
_MAYBE_REGION = frozenset({"AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException"})


class _Recorders:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lists: list[list[tuple[str, str]]] = []

    def add(self, calls: list[tuple[str, str]]) -> None:
        with self._lock:
            self._lists.append(calls)

    def remove(self, calls: list[tuple[str, str]]) -> None:
        with self._lock:
            self._lists = [kept for kept in self._lists if kept is not calls]

    def note(self, service: str, action: str) -> None:
        with self._lock:
            for calls in self._lists:
                calls.append((service, action))


_recorders = _Recorders()


@contextmanager
def recording() -> Iterator[list[tuple[str, str]]]:
    """Collects (service, action) of every request that this process sends meanwhile, repeats included."""
    calls: list[tuple[str, str]] = []
    _recorders.add(calls)
    try:
        yield calls
    finally:
        _recorders.remove(calls)


class AwsClient:
    """Get one from ``cpm.aws.gateway.client``. Safe to share between threads."""

    def __init__(
        self,
        identity: Identity,
        service: str,
        region: str,
        *,
        connect: Callable[[], Any],
        pagination: Callable[[str], Mapping[str, Any] | None],
        prove_credentials: Callable[[], str] | None,
        throttle: Throttle,
        attempts: int,
        longest_wait: float,
    ) -> None:
        self.identity = identity
        self.service = service
        self.region = region
        self._connect = connect
        self._pagination = pagination
        self._prove_credentials = prove_credentials
        self._throttle = throttle
        self._attempts = attempts
        self._longest_wait = longest_wait
        self._boto: Any = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"AwsClient({self.service} in {self.region} as {self.identity})"

    def call(self, action: str, /, **params: Any) -> dict[str, Any]:
        """The answer of one API action, named as AWS names it (``DescribeSnapshots``).

        Raises ``AwsError`` of some family, and ``ValueError`` for an action that the service does not have. A
        call that AWS refuses for its rate is repeated a few times; one whose answer is lost only if doing it
        twice is the same as doing it once, else ``Unreachable`` tells by ``maybe_done`` what is known. A
        streamed body is read whole into bytes. With ``DryRun=True`` the answer is ``{"DryRun": True}`` if it
        would be allowed.
        """
        # The first use makes the connection, which may have to ask for credentials.
        method, model = self._operation(action)
        for member in model.idempotent_members:
            # botocore would make up a new token at every repeat, which defeats its purpose.
            params.setdefault(member, str(uuid.uuid4()))
        for attempt in range(self._attempts):
            self._wait_for_turn(action)
            answer, error = self._attempt(action, method, params)
            if error is None:
                return answer
            delay = self._delay_before_repeat(error, attempt, params)
            if delay is None:
                raise self._diagnosed(error)
            log.info(
                "aws call repeated",
                call=error.call,
                region=self.region,
                code=error.code,
                delay=round(delay, 2),
            )
            time.sleep(delay)
        raise AssertionError("the last attempt either answers or raises")

    def paginate(self, action: str, result_key: str, /, **params: Any) -> Iterator[Any]:
        """Every item of a list action, page by page as it is consumed. An error ends it, never a short
        list."""
        paging = self._pagination(action) or {"input_token": "NextToken", "output_token": "NextToken"}
        inputs, outputs = _names(paging["input_token"]), _names(paging["output_token"])
        seen: set[tuple[Any, ...]] = set()
        while True:
            page = self.call(action, **params)
            yield from page.get(result_key) or ()
            marks = tuple(page.get(name) for name in outputs)
            if not any(marks) or not page.get(paging.get("more_results", ""), True):
                return
            if marks in seen:
                raise self._own_error(
                    errors.Unknown, action, "RepeatedToken", "The list repeats a page for ever."
                )
            seen.add(marks)
            params |= {name: mark for name, mark in zip(inputs, marks, strict=True) if mark}

    def _operation(self, action: str) -> tuple[Any, Any]:
        with self._lock:
            if self._boto is None:
                self._boto = self._connect()
        name = xform_name(action)
        if self._boto.meta.method_to_api_mapping.get(name) != action:
            raise ValueError(f"{self.service} has no action {action}")
        return getattr(self._boto, name), self._boto.meta.service_model.operation_model(action)

    def _attempt(
        self, action: str, method: Any, params: Mapping[str, Any]
    ) -> tuple[dict[str, Any], AwsError | None]:
        _recorders.note(self.service, action)
        began = time.monotonic()
        answer, error = self._send(action, method, params)
        log.debug(
            "aws called",
            call=f"{self.service}:{action}",
            region=self.region,
            account=self.identity.account_number,
            seconds=round(time.monotonic() - began, 3),
            refused=error.code if error else None,
        )
        return answer, error

    def _send(
        self, action: str, method: Any, params: Mapping[str, Any]
    ) -> tuple[dict[str, Any], AwsError | None]:
        try:
            answer: dict[str, Any] = method(**params)
            for name, value in answer.items():
                if hasattr(value, "read"):
                    answer[name] = value.read()
            return answer, None
        except CAUGHT as caught:
            secrets = self.identity.secrets()
            error = from_botocore(
                caught, Call(self.service, action, self.region, self.identity.account_number, secrets)
            )
        # Returned, not raised inside ``except``: the cause must not travel along, its texts may hold secrets.
        return ({"DryRun": True}, None) if error.code == "DryRunOperation" else ({}, error)

    def _wait_for_turn(self, action: str) -> None:
        name = family(self.service, action)
        wait = self._throttle.take(self.identity.account_key, self.region, name, self._longest_wait)
        if wait < 0:
            message = f"The calls already waiting for their turn take {-wait:.0f} seconds."
            error = self._own_error(errors.Throttled, action, "WaitingForTurn", message)
            error.retry_after = -wait
            raise error
        if wait > 0:
            time.sleep(wait)

    def _delay_before_repeat(self, error: AwsError, attempt: int, params: Mapping[str, Any]) -> float | None:
        last = attempt + 1 >= self._attempts
        if isinstance(error, errors.Throttled) and error.code != PER_VOLUME_RATE:
            self._throttle.slow_down(
                self.identity.account_key, self.region, family(self.service, error.action)
            )
            too_long = error.retry_after > self._longest_wait
            return (
                None
                if last or too_long
                else pause(attempt, error.retry_after if error.retry_after > 1 else 0)
            )
        if isinstance(error, errors.Unreachable) and not last:
            return pause(attempt) if not error.maybe_done or repeatable(error.action, params) else None
        return None

    def _diagnosed(self, error: AwsError) -> AwsError:
        """The error, or RegionDisabled if the same credentials work in the home region."""
        if error.code not in _MAYBE_REGION or not isinstance(error, errors.BadCredentials):
            return error
        if self._prove_credentials is None:
            return error
        try:
            self._prove_credentials()
        except AwsError:
            return error
        found = self._own_error(errors.RegionDisabled, error.action, error.code, error.message)
        found.request_id = error.request_id
        return found

    def _own_error(self, kind: type[_Kind], action: str, code: str, message: str) -> _Kind:
        account = self.identity.account_number
        return kind(code, message, action=action, service=self.service, region=self.region, account=account)


def _names(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
