"""The address that this server sends mail from, and its verification by Amazon SES."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict, Unpack

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction

from cpm import permissions
from cpm.aws import gateway
from cpm.aws.client import AwsClient
from cpm.flows.identities import encrypt_secret, identity_behind
from cpm.lib.errors import NON_FIELD, ValidationFailed
from cpm.lib.names import Problem
from cpm.lib.states import Authentication
from cpm.models import Account, Actor, EmailIdentity
from cpm.models.server import ONLY_ROW
from cpm.notifications import senders
from cpm.services import accounts, audit, regions, scope
from cpm.services.blame import blaming

RIGHT, READ_RIGHT = "settings.change", "settings.read"
SESSION = "cpm-email-identity"

Problems = dict[str, list[Problem]]


class IdentityFields(TypedDict, total=False):
    """What may be set; what is left out keeps its value. The secret key goes in and never comes out."""

    email_address: str
    ses_authentication: Authentication
    ses_access_key: str
    ses_secret_key: str
    ses_account: str
    ses_region: str
    verify_source_address: bool


@transaction.atomic
def change(*, actor: Actor, enabled: bool, **fields: Unpack[IdentityFields]) -> EmailIdentity:
    """Stores the settings; AWS is not asked. Raises `ValidationFailed`, and `NotFound` for an account out of reach."""
    permissions.require(actor, RIGHT)
    EmailIdentity.current()
    row = EmailIdentity.objects.select_for_update().get(pk=ONLY_ROW)
    before = audit.state_of(row)
    row.enabled = enabled
    row.email_address = fields.get("email_address", row.email_address)
    row.authentication = fields.get("ses_authentication", row.authentication)
    row.region = fields.get("ses_region", row.region)
    row.verify_source_address = fields.get("verify_source_address", row.verify_source_address)
    _apply_credentials(actor, row, fields)
    problems = _problems(row)
    if any(problems.values()):
        raise ValidationFailed(problems)
    row.save()
    audit.record(actor, "email_identity.updated", row, before=before, after=audit.state_of(row))
    return row


def verify(*, actor: Actor, email_address: str) -> None:
    """Has SES ask the owner of the address to confirm it, unless that is done already.

    Raises `ValidationFailed` for what is no address, without settings for SES, and with AWS's reason.
    """
    permissions.require(actor, RIGHT)
    _require_address(email_address)
    with _ses() as ses:
        status = senders.verify(ses, email_address)
    with transaction.atomic():
        text = f"Verification of {email_address} requested; it was {status}"
        audit.record(actor, "email_identity.verified", EmailIdentity.current(), text=text)


def verify_status(*, actor: Actor, email_address: str | None) -> tuple[str, str]:
    """The address, by default that of the settings, and where SES stands with it. Raises what `verify` raises."""
    permissions.require(actor, READ_RIGHT)
    address = email_address or EmailIdentity.current().email_address
    if not address:
        raise ValidationFailed.one("email_address", "No address is set; name one.", "required")
    _require_address(address)
    with _ses() as ses:
        return address, senders.status_of(ses, address)


@contextmanager
def _ses() -> Iterator[AwsClient]:
    row = EmailIdentity.current()
    if not (row.authentication and row.region):
        text = "SES is not set up: store its authentication and region in the e-mail identity first."
        raise ValidationFailed.one(NON_FIELD, text, "not_configured")
    with blaming(NON_FIELD, account="ses_account", unreadable="ses_secret_key"):
        yield gateway.client(identity_behind(row, session=SESSION), "ses", row.region)


def _apply_credentials(actor: Actor, row: EmailIdentity, fields: IdentityFields) -> None:
    """What the chosen authentication does not use is emptied."""
    key_before = row.access_key
    row.access_key = fields.get("ses_access_key", row.access_key)
    if row.access_key != key_before:
        row.secret_key = ""
    if fields.get("ses_secret_key"):
        row.secret_key = encrypt_secret(fields["ses_secret_key"])
    if row.authentication != Authentication.KEYS:
        row.access_key = row.secret_key = ""
    if row.authentication != Authentication.ASSUME_ROLE:
        row.account = None
    elif text := fields.get("ses_account"):
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise ValidationFailed.one("ses_account", "This must be the id of an account.")
        rows = permissions.visible(actor.user, Account.objects.all(), "accounts.read")
        row.account = scope.referred(rows, int(text), what="account", field="ses_account")
    elif "ses_account" in fields:
        row.account = None


def _problems(row: EmailIdentity) -> Problems:
    problems: Problems = defaultdict(list)
    if row.region:
        regions.require_enabled(row.region, field="ses_region")
    if row.email_address:
        _require_address(row.email_address)
    if row.authentication == Authentication.KEYS:
        accounts.check_keys(row.access_key, row.secret_key, "ses", problems)
    elif row.authentication == Authentication.ASSUME_ROLE and row.account is None:
        problems["ses_account"].append(("Access by an account needs the account.", "required"))
    if row.enabled:
        for value, field in (
            (row.email_address, "email_address"), (row.authentication, "ses_authentication"), (row.region, "ses_region"),
        ):  # fmt: skip
            if not value:
                problems[field].append(("Sending through SES needs this.", "required"))
    return problems


def _require_address(address: str) -> None:
    try:
        validate_email(address)
    except ValidationError as error:
        raise ValidationFailed.one("email_address", "This is not an e-mail address.") from error
