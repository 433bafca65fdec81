"""The web proxy through which this server reaches AWS."""

import ipaddress
import re
from typing import TypedDict, Unpack

from django.conf import settings as django_settings
from django.db import transaction

from cpm import permissions
from cpm.aws import gateway
from cpm.aws.proxy import Proxy, ProxyTrouble
from cpm.flows.identities import decrypt_secret, encrypt_secret
from cpm.flows.workers import worker_proxy
from cpm.lib.errors import NON_FIELD, ValidationFailed
from cpm.lib.names import Problem
from cpm.models import Actor, ProxySettings
from cpm.models.server import ONLY_ROW
from cpm.services import audit, settings

RIGHT = settings.RIGHT
# Which field to look at, by what went wrong.
BLAMED = {"proxy_unknown": "address", "proxy_refused": "address", "proxy_authentication": "user"}
_HOST = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?"
)


class ProxyFields(TypedDict, total=False):
    """What may be sent. `password` is never shown again."""

    enabled: bool
    address: str
    port: int | None
    username: str
    password: str


def in_force() -> Proxy | None:
    """The proxy that calls to AWS take now: that of this worker's place if it has one, else the server's.

    Raises `SecretUnreadable` when its password cannot be opened.
    """
    if near := worker_proxy.at(django_settings.CPM_WORKER_PLACE):
        return near
    row = ProxySettings.objects.filter(pk=ONLY_ROW, enabled=True).first()
    return _proxy(row, decrypt_secret(row.password) if row.password else "") if row else None


@transaction.atomic
def change(*, actor: Actor, **fields: Unpack[ProxyFields]) -> ProxySettings:
    """Changes what is given. Raises `ValidationFailed` for what makes no proxy.

    A stored password belongs to its address, port and user: changing one of them asks for the password again, so that
    it cannot be sent to somebody else's machine.
    """
    row = settings.locked(actor, ProxySettings)
    before = audit.state_of(row)
    place = _place(row)
    had_password = bool(row.password)
    _apply(row, fields)
    if had_password and "password" not in fields and _place(row) != place:
        raise ValidationFailed.one(
            "password",
            "Send the password of the changed proxy too (empty for none); the stored one is for another.",
        )
    _check(row, fields.get("password", ""), usable=row.enabled)
    if "password" in fields:
        row.password = encrypt_secret(fields["password"]) if fields["password"] else ""
    row.save()
    audit.record(actor, "proxy.updated", row, before=before, after=audit.state_of(row))
    return row


def test_connection(*, actor: Actor, **fields: Unpack[ProxyFields]) -> None:
    """Reaches AWS through the given proxy, and stores nothing. Raises `ValidationFailed` saying what went wrong.

    What is left out is taken from the settings; the stored password only for its own address, port and user.
    """
    permissions.require(actor, RIGHT)
    row = ProxySettings.current()
    place = _place(row)
    stored = row.password
    _apply(row, fields)
    _check(row, fields.get("password", ""), usable=True)
    password = fields.get("password")
    if password is None:
        password = decrypt_secret(stored) if stored and _place(row) == place else ""
    try:
        gateway.try_proxy(_proxy(row, password), django_settings.CPM_SERVER_REGION or None)
    except ProxyTrouble as trouble:
        field = BLAMED.get(trouble.code, NON_FIELD)
        raise ValidationFailed.one(field, str(trouble), trouble.code) from None


def _place(row: ProxySettings) -> tuple[str, int | None, str]:
    return (row.address, row.port, row.username)


def _proxy(row: ProxySettings, password: str) -> Proxy:
    return Proxy(row.address, row.port or 0, row.username, password)


def _apply(row: ProxySettings, fields: ProxyFields) -> None:
    row.enabled = fields.get("enabled", row.enabled)
    row.address = fields.get("address", row.address).strip("[] ")
    row.port = fields.get("port", row.port)
    row.username = fields.get("username", row.username)


def _check(row: ProxySettings, password: str, *, usable: bool) -> None:
    problems = problems_of(row.address, row.port, row.username, password, usable=usable)
    if problems:
        raise ValidationFailed(problems)


def problems_of(
    address: str, port: int | None, user: str, password: str, *, usable: bool
) -> dict[str, list[Problem]]:
    """What is wrong with a proxy, by address, port, user and password; `usable` is one that has all that it needs."""
    problems: dict[str, list[Problem]] = {}
    if address and (problem := _problem_of(address)):
        problems["address"] = [(problem, "invalid")]
    elif usable and not address:
        problems["address"] = [("A proxy needs an address.", "required")]
    if port is not None and not 1 <= port <= 65535:
        problems["port"] = [("This must be a number from 1 to 65535.", "invalid")]
    elif usable and port is None:
        problems["port"] = [("A proxy needs a port.", "required")]
    if ":" in user:
        problems["user"] = [("A user's name has no colon: it would end there.", "invalid")]
    # Basic authentication says nothing about how other characters are sent.
    for name, text in (("user", user), ("password", password)):
        if not (text.isascii() and text.isprintable()):
            problems[name] = [("This may only have printable ASCII characters.", "invalid")]
    return problems


def _problem_of(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        looks_right = _HOST.fullmatch(address) is not None
        return (
            ""
            if looks_right
            else "This must be the name or the IP address of a host, without http:// and port."
        )
    # Link-local is where the cloud keeps its metadata and credentials.
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return "No proxy can have this address."
    return ""
