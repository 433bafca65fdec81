"""The control endpoint, under ``/_control`` of the simulator's address. Bodies and answers are JSON.

GET    /volumes/{id}/content            bytes; honours a ``Range: bytes=a-b`` header (also /snapshots/{id}/…)
PUT    /volumes/{id}/content            writes the body at ``?offset=`` or the start of ``Content-Range``
GET    /volumes/{id}/sha256             {"sha256", "bytes"} of everything (also /snapshots/{id}/sha256)
GET    /volumes/{id}/fingerprint        {"fingerprint"}: cheap, equal exactly when the bytes are equal, apart
                                        from zeros at the end (also /snapshots/{id}/fingerprint)
GET, PUT /contents/{arn}                the bytes of a database or warehouse; read also of its snapshots
GET, POST /databases                    {"live": bool}: new RDS instances of PostgreSQL are real, see ``rds_live``
GET    /efs/{id}/files                  {path: sha256} of every file of an EFS file system
GET    /efs/{id}/files/{path}           the bytes of one file (also PUT, which writes them, and DELETE)
GET    /calls?since=N[&limit=M]         {"calls": [{seq, service, action, account, region, time, error, ids}]}
GET    /calls/count?since=N             {"total", "by_action", "errors", "last"}
GET, POST /faults                       {"faults": […]}; puts one in force, see ``faults.Fault``, with its id
DELETE /faults[?id=N]                   removes one, or all
GET, POST /timing, /limits              seconds until settled and quotas, see ``timing.Timing``, ``timing.Limits``
POST   /accounts                        {"account_number", "roles_must_exist"?} -> a user's access_key, secret_key
POST   /keys/revoke, /keys/restore      {"access_key"}
POST   /regions                         {"region", "enabled", "error"?: "AuthFailure" | "OptInRequired"}
GET    /ssm, POST /ssm                  {"instance_id", "registered", "platform"?, "results"?: [{"exit_code",
                                        "stdout", "stderr", "seconds"}]} or one result's fields directly;
                                        results are used in order and the last one stays; with the platform
                                        "Windows" the instance is one
GET    /sns                             {"topics": [{arn, account, region, tags, subscriptions, published: [{id, time,
                                        subject, message, reached}]}]}
POST   /sns/confirm                     {"topic", "endpoint"}: the owner of the address confirms the subscription
GET    /ses                             {"identities": [{account, region, address, status}]}
POST   /ses                             {"address", "status"?}: the owner confirms it, or the status is set otherwise
POST   /snapshots/{id}/fail             {"message"?}: the snapshot ends, or has ended, in ``error``
POST   /automated/{arn}                 Redshift takes an automated snapshot now; {"snapshot"}
GET    /objects[?account=&region=]      every volume, snapshot, image, instance, database and its snapshots with tags
GET    /health                          {"status": "ok", "stored_bytes"}
POST   /reset                           forgets everything but the port

Routes that take or give raw bytes of one service stand in the ``CONTROL`` table of a module of that service.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

from moto.ec2.models import ec2_backends

from cpm.simulator import contents_control, efs_control, rds_objects, redshift_control, reset, ses, sns
from cpm.simulator.blocks import BlockMap, fingerprint
from cpm.simulator.errors import AwsError
from cpm.simulator.identity import Key, unknown_key
from cpm.simulator.timing import change
from cpm.simulator.world import Snapshot, Volume, World

Request = dict[str, Any]
PIECE = 8 * 1024 * 1024
# Method, path, and what answers with bytes or with what becomes JSON, given the world, the body and the path's groups.
RAW: tuple[tuple[str, re.Pattern[str], Callable[..., Any]], ...] = (
    *contents_control.CONTROL,
    *efs_control.CONTROL,
    *redshift_control.CONTROL,
)


class Control:
    """The control endpoint as a WSGI application."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.routes: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = [
            ("GET", re.compile("/health"), self.health),
            ("GET", re.compile("/calls"), self.calls),
            ("GET", re.compile("/calls/count"), self.count),
            ("GET", re.compile("/faults"), lambda request: {"faults": world.faults.listing()}),
            ("POST", re.compile("/faults"), self.add_fault),
            ("DELETE", re.compile("/faults"), self.remove_faults),
            ("GET", re.compile("/timing"), lambda request: change(world.state.timing, {})),
            ("POST", re.compile("/timing"), lambda request: change(world.state.timing, request["json"])),
            ("GET", re.compile("/limits"), lambda request: change(world.state.limits, {})),
            ("POST", re.compile("/limits"), lambda request: change(world.state.limits, request["json"])),
            ("POST", re.compile("/accounts"), self.add_account),
            ("POST", re.compile("/keys/(revoke|restore)"), self.set_key),
            ("POST", re.compile("/regions"), self.set_region),
            ("GET", re.compile("/ssm"), self.show_ssm),
            ("POST", re.compile("/ssm"), self.set_ssm),
            ("GET", re.compile("/sns"), lambda request: {"topics": sns.shown(world.state)}),
            ("POST", re.compile("/sns/confirm"), self.confirm_subscription),
            ("GET", re.compile("/ses"), lambda request: {"identities": ses.shown(world.state)}),
            ("POST", re.compile("/ses"), self.settle_address),
            ("POST", re.compile("/snapshots/([^/]+)/fail"), self.fail_snapshot),
            ("GET", re.compile("/objects"), self.objects),
            ("POST", re.compile("/reset"), self.reset),
            ("GET", re.compile("/(volumes|snapshots)/([^/]+)/sha256"), self.sha256),
            ("GET", re.compile("/(volumes|snapshots)/([^/]+)/fingerprint"), self.fingerprint),
        ]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"].removeprefix("/_control")
        query = {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        method = environ["REQUEST_METHOD"]
        try:
            content = re.fullmatch(r"/(volumes|snapshots)/([^/]+)/content", path)
            if content and method == "GET":
                return self._send_content(environ, start_response, *content.groups())
            if content and method == "PUT" and content[1] == "volumes":
                result = self._write_content(environ, query, content[2])
            else:
                result = self._raw(environ, method, path)
                if result is None:
                    result = self._route(environ, method, path, query)
            status, body = "200 OK", result
        except AwsError as error:
            status = (
                "404 Not Found" if error.code.endswith(("NotFound", "NoSuchRoute")) else "400 Bad Request"
            )
            body = {"error": error.code, "message": error.message}
        payload = body if isinstance(body, bytes) else json.dumps(body, default=str).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(payload)))])
        return [payload]

    def _route(self, environ: dict[str, Any], method: str, path: str, query: dict[str, str]) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            parsed = json.loads(body or b"{}")
        except ValueError as broken:
            raise AwsError("BadControl", "the body is not JSON") from broken
        if not isinstance(parsed, dict):
            raise AwsError("BadControl", "the body must be an object")
        for verb, pattern, handler in self.routes:
            match = pattern.fullmatch(path)
            if match and verb == method:
                return handler({"json": parsed, "query": query}, *match.groups())
        raise AwsError("NoSuchRoute", f"{method} {path}")

    def _raw(self, environ: dict[str, Any], method: str, path: str) -> Any:
        """What a service's own route answers; None when there is no such route."""
        for verb, pattern, handler in RAW:
            match = pattern.fullmatch(path)
            if match and verb == method:
                body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                with self.world.lock:
                    return handler(self.world, body, *match.groups())
        return None

    # -- bytes --------------------------------------------------------------------------------------------

    def _find(self, kind: str, object_id: str) -> Volume | Snapshot:
        shelf: Any = getattr(self.world.state, kind)
        found: Volume | Snapshot | None = shelf.by_id.get(object_id)
        if found is None:
            raise AwsError("NotFound", f"{object_id} does not exist")
        return found

    def _held(self, kind: str, object_id: str) -> tuple[BlockMap, int]:
        """A map that stays readable while it is streamed, and the size; release it afterwards."""
        with self.world.lock:
            found = self._find(kind, object_id)
            return self.world.blocks.retain(found.blocks), found.bytes

    def _send_content(
        self, environ: dict[str, Any], start_response: Callable[..., Any], kind: str, object_id: str
    ) -> Iterable[bytes]:
        blocks, size = self._held(kind, object_id)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", environ.get("HTTP_RANGE", ""))
        start = int(wanted[1]) if wanted else 0
        end = min(size, int(wanted[2]) + 1) if wanted and wanted[2] else size
        length = max(0, end - start)
        headers = [("Content-Type", "application/octet-stream"), ("Content-Length", str(length))]
        if wanted:
            headers.append(("Content-Range", f"bytes {start}-{end - 1}/{size}"))
        start_response("206 Partial Content" if wanted else "200 OK", headers)
        return self._stream(blocks, start, length)

    def _stream(self, blocks: BlockMap, start: int, length: int) -> Iterator[bytes]:
        try:
            yield from self.world.blocks.read(blocks, start, length)
        finally:
            self.world.blocks.release(list(blocks.values()))

    def _write_content(
        self, environ: dict[str, Any], query: dict[str, str], volume_id: str
    ) -> dict[str, Any]:
        volume = self._find("volumes", volume_id)
        position = re.match(r"bytes (\d+)-", environ.get("HTTP_CONTENT_RANGE", ""))
        offset = int(query.get("offset", position[1] if position else 0))
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if offset + length > volume.bytes:
            raise AwsError("BadControl", f"{offset}+{length} lies beyond the volume's {volume.bytes} bytes")
        done = 0
        while done < length:
            # Pieces end on block boundaries so that no block is read back between them.
            taken = min(PIECE - (offset + done) % PIECE, length - done)
            data = environ["wsgi.input"].read(taken)
            if len(data) < taken:
                raise AwsError("BadControl", "the body ended early")
            staged = self.world.blocks.stage(offset + done, data)
            with self.world.lock:
                if volume.id not in self.world.state.volumes.by_id:
                    self.world.blocks.discard(staged)
                    raise AwsError("NotFound", f"{volume.id} was deleted")
                self.world.blocks.apply(volume.blocks, staged)
            done += taken
        self.world.changes += 1
        return {"written": done}

    def sha256(self, request: Request, kind: str, object_id: str) -> dict[str, Any]:
        blocks, size = self._held(kind, object_id)
        try:
            return {"sha256": self.world.blocks.sha256(blocks, size), "bytes": size}
        finally:
            self.world.blocks.release(list(blocks.values()))

    def fingerprint(self, request: Request, kind: str, object_id: str) -> dict[str, Any]:
        with self.world.lock:
            return {"fingerprint": fingerprint(self._find(kind, object_id).blocks)}

    # -- calls and faults ---------------------------------------------------------------------------------

    def health(self, request: Request) -> dict[str, Any]:
        return {"status": "ok", "stored_bytes": self.world.blocks.stored_bytes()}

    def calls(self, request: Request) -> dict[str, Any]:
        query = request["query"]
        limit = _integer(query["limit"]) if "limit" in query else None
        return {"calls": self.world.calls.since(_integer(query.get("since", "0")), limit)}

    def count(self, request: Request) -> dict[str, Any]:
        return self.world.calls.count(_integer(request["query"].get("since", "0")))

    def add_fault(self, request: Request) -> dict[str, Any]:
        fault = self.world.faults.add(request["json"])
        return next(one for one in self.world.faults.listing() if one["id"] == fault.id)

    def remove_faults(self, request: Request) -> dict[str, Any]:
        chosen = request["query"].get("id")
        return {"removed": self.world.faults.remove(_integer(chosen) if chosen else None)}

    # -- accounts and regions -----------------------------------------------------------------------------

    def add_account(self, request: Request) -> dict[str, Any]:
        number = str(request["json"].get("account_number", ""))
        if not re.fullmatch(r"\d{12}", number):
            raise AwsError("BadControl", "account_number has 12 digits")
        with self.world.lock:
            identities = self.world.state.identities
            identities.roles_must_exist = bool(
                request["json"].get("roles_must_exist", identities.roles_must_exist)
            )
            key: Key = identities.add_user(number)
            self.world.changes += 1
        return {
            "account_number": number,
            "access_key": key.access_key,
            "secret_key": key.secret_key,
            "arn": key.arn,
        }

    def set_key(self, request: Request, verb: str) -> dict[str, Any]:
        access_key = request["json"].get("access_key")
        key = self.world.state.identities.keys.get(access_key)
        if key is None:
            raise AwsError("NotFound", unknown_key("").message)
        key.revoked = verb == "revoke"
        self.world.changes += 1
        return {"access_key": access_key, "revoked": key.revoked}

    def set_region(self, request: Request) -> dict[str, Any]:
        region, enabled = request["json"].get("region"), request["json"].get("enabled")
        if not isinstance(region, str) or not isinstance(enabled, bool):
            raise AwsError("BadControl", "region is a string and enabled a boolean")
        disabled = self.world.state.disabled_regions
        if enabled:
            disabled.pop(region, None)
        else:
            disabled[region] = str(request["json"].get("error", "AuthFailure"))
        self.world.changes += 1
        return {"disabled": disabled}

    # -- commands on instances ----------------------------------------------------------------------------

    def show_ssm(self, request: Request) -> dict[str, Any]:
        state = self.world.state
        with self.world.lock:
            commands = [
                {
                    "id": c.id,
                    "document": c.document,
                    "parameters": c.parameters,
                    "status": c.status,
                    "instances": [one.instance_id for one in c.invocations],
                }
                for c in state.commands.values()
            ]
            return {"agents": state.agents, "commands": commands}

    def set_ssm(self, request: Request) -> dict[str, Any]:
        wanted = request["json"]
        if not wanted.get("instance_id"):
            raise AwsError("BadControl", "instance_id is missing")
        with self.world.lock:
            agent = self.world.state.agents.setdefault(wanted["instance_id"], {"registered": True})
            agent.update({key: wanted[key] for key in ("registered", "platform") if key in wanted})
            if "platform" in wanted:
                self._set_platform(wanted["instance_id"], wanted["platform"])
            single = wanted.get("result") or {
                key: wanted[key] for key in ("exit_code", "stdout", "stderr", "seconds") if key in wanted
            }
            if wanted.get("results") or single:
                agent["results"] = list(wanted.get("results") or [single])
            self.world.changes += 1
            return {"instance_id": wanted["instance_id"], **agent}

    def _set_platform(self, instance_id: str, platform: str) -> None:
        """RegisterImage makes Linux images only, so this is how an instance becomes a Windows one."""
        for regions in ec2_backends.values():
            for backend in regions.values():
                instance = backend.get_instance_by_id(instance_id)
                if instance is not None:
                    instance.platform = "windows" if platform == "Windows" else None

    # -- people who read mail -----------------------------------------------------------------------------

    def confirm_subscription(self, request: Request) -> dict[str, Any]:
        topic, endpoint = request["json"].get("topic", ""), request["json"].get("endpoint", "")
        with self.world.lock:
            if not sns.confirm(self.world.state, topic, endpoint):
                raise AwsError("NotFound", f"{endpoint} has no subscription to {topic}")
            self.world.changes += 1
        return {"topic": topic, "endpoint": endpoint, "confirmed": True}

    def settle_address(self, request: Request) -> dict[str, Any]:
        address, status = request["json"].get("address", ""), request["json"].get("status", "Success")
        with self.world.lock:
            if not ses.settle(self.world.state, address, status):
                raise AwsError("NotFound", f"nobody has asked to verify {address}")
            self.world.changes += 1
        return {"address": address, "status": status}

    # -- everything ---------------------------------------------------------------------------------------

    def fail_snapshot(self, request: Request, snapshot_id: str) -> dict[str, Any]:
        with self.world.lock:
            snapshot = self._find("snapshots", snapshot_id)
            assert isinstance(snapshot, Snapshot)
            snapshot.failure = request["json"].get("message", "injected failure")
            return {"snapshot_id": snapshot.id, "state": snapshot.state}

    def objects(self, request: Request) -> dict[str, Any]:
        """All objects of both kinds of bookkeeping, for tests that look for orphans and doubles."""
        query = request["query"]
        with self.world.lock:
            found = {kind: self._listed(kind, query) for kind in ("volumes", "snapshots", "images")}
            found["instances"] = list(self._instances(query))
            found.update(rds_objects.everything(self.world.state, query))
        return {"counts": {kind: len(items) for kind, items in found.items()}, **found}

    def _listed(self, kind: str, query: dict[str, str]) -> list[dict[str, Any]]:
        listed = []
        shelf: Any = getattr(self.world.state, kind)
        for item in shelf.by_id.values():
            if (
                query.get("account", item.account) == item.account
                and query.get("region", item.region) == item.region
            ):
                entry = {"id": item.id, "account": item.account, "region": item.region, "state": item.state}
                extra = ("volume_id", "shared_with", "snapshot_id", "name", "size", "kms_key_id")
                entry.update({name: _plain(getattr(item, name)) for name in extra if hasattr(item, name)})
                listed.append({**entry, "tags": dict(self.world.tags(item))})
        return listed

    def _instances(self, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        for launch in self.world.state.launches.values():
            if query.get("account", launch.account) != launch.account:
                continue
            if query.get("region", launch.region) != launch.region:
                continue
            backend = ec2_backends[launch.account][launch.region]
            instance = backend.get_instance(launch.instance_id)
            yield {
                "id": instance.id,
                "account": launch.account,
                "region": launch.region,
                "state": instance.state,
                "image_id": instance.image_id,
                "tags": dict(backend.tags.get(instance.id, {})),
            }

    def reset(self, request: Request) -> dict[str, Any]:
        reset.everything(self.world)
        return {"status": "reset"}


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value


def _integer(text: str) -> int:
    if not text.isdigit():
        raise AwsError("BadControl", f"{text!r} is not a number")
    return int(text)
