"""Objects in the archive classes of S3: readable for a while, some time after they were asked for.

moto gives such objects back at once and for ever. Here a retrieval takes ``Timing.retrieval_seconds``, and what was
retrieved is there for as many days as were asked for, each of ``Timing.archive_day_seconds``.
"""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from moto.core.utils import utcnow
from moto.s3.models import FakeKey, s3_backends

from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError

ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})
TIERS = frozenset({"Expedited", "Standard", "Bulk"})
_moto_shows = vars(FakeKey)["response_dict"].fget


def patch() -> None:
    """Lets moto's objects show what `restore` has done with them."""
    setattr(FakeKey, "status", property(_status))  # noqa: B010 - mypy forbids the plain assignment
    setattr(FakeKey, "response_dict", property(_shown))  # noqa: B010


def restore(call: Call) -> int:
    """AWS: S3 API Reference, RestoreObject; the status of its answer.

    202 when a retrieval begins, 200 when the object is there already and only stays longer.
    """
    key = _key(call)
    if key.storage_class not in ARCHIVED:
        raise AwsError("InvalidObjectState", "Restore is not allowed for the object's storage class", 403)
    days, tier = _wanted(call)
    if tier == "Expedited" and key.storage_class == "DEEP_ARCHIVE":
        raise AwsError("InvalidArgument", "Retrieval option is not supported by this storage class", 400)
    if 'ongoing-request="true"' in key.response_dict.get("x-amz-restore", ""):
        raise AwsError("RestoreAlreadyInProgress", "Object restore is already in progress", 409)
    timing = call.state.timing
    stays = timedelta(seconds=days * timing.archive_day_seconds)
    if key._expiry is not None:
        key._expiry = utcnow() + stays
        return 200
    ready = utcnow() + timedelta(seconds=timing.retrieval_seconds)
    setattr(key, "readable_from", ready)  # noqa: B010 - moto's class does not declare it
    key._expiry = ready + stays
    return 202


def _key(call: Call) -> FakeKey:
    bucket, _, name = call.path.lstrip("/").partition("/")
    found = s3_backends[call.account]["aws"].get_object(
        bucket, unquote(name), version_id=call.query.get("versionId")
    )
    if found is None:
        raise AwsError("NoSuchKey", "The specified key does not exist.", 404)
    return found


def _wanted(call: Call) -> tuple[int, str]:
    try:
        root = ElementTree.fromstring(call.body)  # noqa: S314 - the simulator's own client wrote it
    except ElementTree.ParseError as broken:
        raise AwsError("MalformedXML", "The XML you provided was not well-formed", 400) from broken
    values = {element.tag.rpartition("}")[2]: element.text or "" for element in root.iter()}
    tier = values.get("Tier", "Standard")
    if not values.get("Days", "").isdigit() or int(values["Days"]) < 1 or tier not in TIERS:
        raise AwsError(
            "MalformedXML", "The XML you provided did not validate against our published schema", 400
        )
    return int(values["Days"]), tier


def _status(key: FakeKey) -> str:
    ready: datetime | None = getattr(key, "readable_from", None)
    return "IN_PROGRESS" if ready is not None and utcnow() < ready else "RESTORED"


def _shown(key: FakeKey) -> dict[str, Any]:
    if key._expiry is not None and utcnow() >= key._expiry:
        key._expiry = None
    shown: dict[str, Any] = _moto_shows(key)
    return shown
