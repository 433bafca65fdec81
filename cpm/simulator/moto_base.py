"""moto underneath: its application, the patches that the fidelity layer needs, and its errors as ours."""

import io
from typing import Any

import structlog
from moto import backends
from moto.ec2.models.instances import Instance
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from cpm.simulator.errors import AwsError

log = structlog.get_logger(__name__)


def _no_volumes(self: Instance) -> None:
    """Volumes belong to the fidelity layer; moto attaches none and deletes none."""


def patch() -> None:
    """Prepares moto in this process. Called once, before the first request."""
    # moto lists a folder on every request to know its own services.
    known = list(backends.list_of_moto_modules())
    setattr(backends, "list_of_moto_modules", lambda: known)  # noqa: B010 - mypy forbids the plain assignment
    setattr(Instance, "setup_defaults", _no_volumes)  # noqa: B010
    setattr(Instance, "teardown_defaults", _no_volumes)  # noqa: B010
    # Addresses go back when an interface is deleted; the collector may run much later, or at the end of the process.
    setattr(Instance, "__del__", _no_volumes)  # noqa: B010


def application() -> DomainDispatcherApplication:
    """moto's WSGI application."""
    return DomainDispatcherApplication(create_backend_app)


def as_aws_error(error: Exception) -> AwsError:
    """An error raised inside moto's models, as this package raises it."""
    code = getattr(error, "error_type", None) or getattr(error, "code", None)
    message = getattr(error, "message", None) or str(error)
    return AwsError(str(code), str(message), 400)


def answer(
    app: DomainDispatcherApplication,
    environ: dict[str, Any],
    body: bytes,
    account: str,
    service: str,
    action: str,
) -> tuple[int, list[tuple[str, str]], bytes]:
    """What moto answers. What it does not implement becomes UnsupportedOperation, never a page of HTML."""
    inner = {key: value for key, value in environ.items() if key != "HTTP_USER_AGENT"}
    inner["wsgi.input"] = io.BytesIO(body)
    inner["CONTENT_LENGTH"] = str(len(body))
    inner.pop("HTTP_TRANSFER_ENCODING", None)
    inner["HTTP_X_MOTO_ACCOUNT_ID"] = account
    seen: dict[str, Any] = {}

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        seen.update(status=int(status.split(maxsplit=1)[0]), headers=headers)
        return lambda data: None

    unsupported = AwsError("UnsupportedOperation", f"The simulator does not offer {service} {action}.")
    try:
        chunks = app(inner, start)
        content = b"".join(chunks)
    except NotImplementedError as absent:
        raise unsupported from absent
    except Exception as broken:
        log.exception("moto failed", service=service, action=action)
        raise unsupported from broken
    kind = {name.lower(): value for name, value in seen["headers"]}.get("content-type", "")
    if seen["status"] >= 500 or (
        seen["status"] == 404 and (not content or kind.startswith("text/html")) and service != "s3"
    ):
        raise unsupported
    return seen["status"], seen["headers"], content
