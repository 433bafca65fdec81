"""The WSGI application: who calls what, what the faults do to it, who answers it, and how it is written.

Calls that change or read state run one at a time, because moto is not made for threads. Block data moves
outside the lock.
"""

import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

import structlog
from botocore.model import OperationNotFoundError
from moto.core.exceptions import ServiceException
from werkzeug.exceptions import HTTPException

from cpm.simulator import dynamodb_tables, ebs_direct, moto_base, protocol, rest_json, s3_archive, s3_names
from cpm.simulator.call import Call
from cpm.simulator.control import Control
from cpm.simulator.errors import AwsError
from cpm.simulator.faults import Outcome
from cpm.simulator.handlers import HANDLERS, OURS_ALONE, READ_ONLY, REFUSED
from cpm.simulator.identity import Credential, authenticate, credential_of, unknown_key
from cpm.simulator.volume_rules import zones
from cpm.simulator.world import World

log = structlog.get_logger(__name__)

Answer = tuple[int, list[tuple[str, str]], bytes]
ID_PARAMETER = re.compile(r"(\w+Id(?:entifier)?)(?:s|\.\d+)?$|^Resource\w*\.\d+$|^Name$")


class Application:
    """AWS and the control endpoint on one port."""

    def __init__(self, world: World) -> None:
        self.world = world
        moto_base.patch()
        s3_archive.patch()
        dynamodb_tables.patch(world)
        self.moto = moto_base.application()
        self.control = Control(world)
        self.draining = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/_control" or path.startswith("/_control/"):
            return self.control(environ, start_response)
        request = _request(environ)
        request_id = str(uuid.uuid4())
        status, headers, body, lost = self._serve(environ, request, request_id)
        if lost:
            # The call was executed; its answer never arrives.
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        is_head = request["method"] == "HEAD"
        dropped = ("connection",) if is_head else ("connection", "content-length")
        headers = [(name, value) for name, value in headers if name.lower() not in dropped]
        headers += [("x-amzn-RequestId", request_id)] + (
            [] if is_head else [("Content-Length", str(len(body)))]
        )
        start_response(f"{status} {'OK' if status < 400 else 'Error'}", headers)
        return [] if is_head or lost else [body]

    def _serve(
        self, environ: dict[str, Any], request: dict[str, Any], request_id: str
    ) -> tuple[int, Any, bytes, bool]:
        credential = credential_of(request["headers"].get("authorization", ""))
        service = credential.service if credential else "unsigned"
        action = _action(service, request)
        entry = self.world.calls.add(
            service=service,
            action=action,
            account=None,
            region=credential.region if credential else "",
            time=time.time(),
            ids=_ids(service, request),
            access_key=credential.access_key if credential else None,
        )
        outcome = Outcome()
        try:
            key = authenticate(self.world.state.identities, credential, request)
            assert credential is not None
            entry.account = key.account
            self._check_region(credential)
            outcome = self.world.faults.strike(
                service, action, key.account, credential.region, key.access_key
            )
            if outcome.latency:
                time.sleep(outcome.latency)
            if outcome.error:
                raise outcome.error
            status, headers, body = self._perform(
                environ, request, credential, key.account, action, request_id
            )
            if status >= 400:
                entry.error = _code_in(body)
        except AwsError as error:
            entry.error = error.code
            status, headers, body = _refusal(service, request, error, request_id)
        except Exception:
            # A defect of the simulator. Whoever calls gets an error of AWS's form, and the log the whole story.
            log.exception("call failed", service=service, action=action)
            entry.error = "InternalError"
            failure = AwsError("InternalError", f"The simulator failed in {service} {action}.", 500)
            status, headers, body = _refusal(service, request, failure, request_id)
        return status, headers, body, outcome.lose_response

    def _check_region(self, credential: Credential) -> None:
        """A disabled region refuses every credential, as AWS does; an unknown one does not exist."""
        if credential.service in ("iam", "s3", "sts") and credential.region in ("us-east-1", "aws-global"):
            return
        refusal = self.world.state.disabled_regions.get(credential.region)
        if refusal == "OptInRequired":
            raise AwsError(
                "OptInRequired", "You are not subscribed to this service. Please enable the region.", 401
            )
        if refusal or not zones(credential.region):
            raise unknown_key(credential.service)

    def _perform(
        self,
        environ: dict[str, Any],
        request: dict[str, Any],
        credential: Credential,
        account: str,
        action: str,
        request_id: str,
    ) -> Answer:
        service = credential.service
        call = Call(
            world=self.world,
            service=service,
            action=action,
            account=account,
            region=credential.region,
            access_key=credential.access_key,
            params={},
            path=request["path"],
            query=dict(parse_qsl(request["query"])),
            headers=request["headers"],
            body=request["body"],
        )
        if service == "ebs":
            return self._ebs(call, request)
        handler = HANDLERS.get((service, action))
        if handler is None:
            return self._by_moto(call, environ, request)
        call.params = _parameters(service, action, request)
        if call.params.pop("DryRun", False):
            # AWS: EC2 API Reference, DryRun.
            raise AwsError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        with self.world.lock:
            if action not in READ_ONLY:
                self.world.changes += 1
            result = _run(handler, call)
        return _written(service, action, result, request_id)

    def _by_moto(self, call: Call, environ: dict[str, Any], request: dict[str, Any]) -> Answer:
        _check_known(call.service, call.action)
        if call.service in OURS_ALONE or (call.service, call.action) in REFUSED:
            raise AwsError(
                "UnsupportedOperation", f"The simulator does not offer {call.service} {call.action}."
            )
        with self.world.lock:
            self.world.changes += 1
            if call.service == "dynamodb":
                dynamodb_tables.guard(call)
            if (call.service, call.action) == ("s3", "RestoreObject"):
                return s3_archive.restore(call), [("Content-Type", "application/xml")], b""
            return moto_base.answer(
                self.moto, environ, request["body"], call.account, call.service, call.action
            )

    def _ebs(self, call: Call, request: dict[str, Any]) -> Answer:
        routed = ebs_direct.route(request["method"], request["path"])
        if routed is None:
            raise AwsError(
                "UnsupportedOperation",
                f"The simulator does not offer ebs {request['method']} {request['path']}",
            )
        action, call.params = routed[0], dict(routed[1])
        if action in ebs_direct.DATA_ACTIONS:
            if action == "PutSnapshotBlock":
                self.world.changes += 1
            data, headers = ebs_direct.DATA_ACTIONS[action](call)
            return (201 if action == "PutSnapshotBlock" else 200), list(headers.items()), data
        with self.world.lock:
            self.world.changes += 1
            result = _run(ebs_direct.ACTIONS[action], call)
        status = {"StartSnapshot": 201, "CompleteSnapshot": 202}.get(action, 200)
        return status, [("Content-Type", "application/json")], protocol.write_json(result)


def _parameters(service: str, action: str, request: dict[str, Any]) -> dict[str, Any]:
    if rest_json.speaks(service):
        return rest_json.parse(service, action, request)
    return protocol.parse(service, action, request["form"], request["body"])


def _written(service: str, action: str, result: dict[str, Any], request_id: str) -> Answer:
    if rest_json.speaks(service):
        return rest_json.write(service, action, result)
    if protocol.speaks_json(service):
        return 200, [("Content-Type", "application/x-amz-json-1.1")], protocol.write_json(result)
    body = protocol.write_xml(service, action, result, request_id)
    return 200, [("Content-Type", "text/xml;charset=UTF-8")], body


def _refusal(service: str, request: dict[str, Any], error: AwsError, request_id: str) -> Answer:
    if rest_json.speaks(service):
        return rest_json.write_error(service, error)
    as_json = "x-amz-target" in request["headers"]
    body, headers = protocol.write_error(service, error, request_id, as_json)
    return error.status, list(headers.items()), body


def _run(handler: Callable[[Call], dict[str, Any]], call: Call) -> dict[str, Any]:
    try:
        return handler(call)
    except (ServiceException, HTTPException) as error:
        raise moto_base.as_aws_error(error) from error


def _request(environ: dict[str, Any]) -> dict[str, Any]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", ""):
        body = environ["wsgi.input"].read()
    else:
        body = environ["wsgi.input"].read(length) if length else b""
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    headers["content-length"] = environ.get("CONTENT_LENGTH", "")
    form = {}
    if headers["content-type"].startswith("application/x-www-form-urlencoded"):
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
    return {
        "method": environ["REQUEST_METHOD"],
        "path": environ.get("PATH_INFO", ""),
        # As the client wrote and signed it, before any decoding.
        "raw_path": environ.get("RAW_URI", "").split("?", 1)[0],
        "query": environ.get("QUERY_STRING", ""),
        "headers": headers,
        "body": body,
        "form": form,
    }


def _action(service: str, request: dict[str, Any]) -> str:
    if "Action" in request["form"]:
        return str(request["form"]["Action"])
    target = request["headers"].get("x-amz-target")
    if target:
        return str(target.split(".")[-1])
    if service == "ebs":
        routed = ebs_direct.route(request["method"], request["path"])
        if routed:
            return routed[0]
    named = rest_json.route(service, request) if rest_json.speaks(service) else None
    if named:
        return named[0]
    if service == "s3":
        return s3_names.action(request["method"], request["path"], request["query"], request["headers"])
    return f"{request['method']} {request['path'].split('/', 2)[1] if '/' in request['path'] else ''}".strip()


def _ids(service: str, request: dict[str, Any]) -> dict[str, str]:
    """The ids that a request names, for the call log."""
    found = {name: value for name, value in request["form"].items() if ID_PARAMETER.search(name)}
    if request["path"].startswith("/snapshots/"):
        found["path"] = request["path"]
    named = rest_json.route(service, request) if rest_json.speaks(service) else None
    if named:
        found |= named[1]
    return found


def _check_known(service: str, action: str) -> None:
    """AWS: Common errors, InvalidAction."""
    if service not in ("ec2", "iam", "sts", "rds"):
        return
    try:
        protocol.operation_model(service, action)
    except OperationNotFoundError as unknown:
        raise AwsError(
            "InvalidAction", f"The action {action} is not valid for this web service."
        ) from unknown


def _code_in(body: bytes) -> str:
    match = re.search(rb"<Code>([^<]+)</Code>|\"__type\": ?\"([^\"]+)\"", body)
    return (match[1] or match[2]).decode() if match else "Error"
