"""From an account row to the AWS identity of its calls, and the encryption of what the row keeps secret."""

from functools import lru_cache
from pathlib import Path

from django.conf import settings

from cpm.aws import gateway
from cpm.aws.identity import AssumedRole, Identity, Keys, ServerRole
from cpm.lib.errors import PreconditionFailed
from cpm.lib.secrets import SecretBox, load_keys
from cpm.lib.states import Authentication
from cpm.models import Account, EmailIdentity, Notification

# AWS has no limit on chained roles, but every link is one more call and one more thing to expire.
MOST_LINKS = 8


def encrypt_secret(text: str) -> str:
    """A token that only this server's key file can open. Raises `KeyFileError` without a usable key file."""
    return _box().encrypt(text)


def decrypt_secret(token: str) -> str:
    """The text of a token. Raises `SecretUnreadable` when its key is gone, `KeyFileError` without any."""
    return _box().decrypt(token)


def identity_of(account: Account, *, session: str) -> Identity:
    """Who the account's calls are made as; no call is made yet.

    `session` shows up in CloudTrail as the session name of assumed roles. Raises `PreconditionFailed` when
    the chain of roles is broken, `SecretUnreadable` when a stored secret cannot be opened.
    """
    return _identity(account, session, MOST_LINKS)


def identity_behind(row: Notification | EmailIdentity, *, session: str) -> Identity:
    """Who the calls to SNS or SES for these settings are made as. Raises what `identity_of` raises."""
    if row.authentication == Authentication.KEYS:
        return Keys(row.access_key, decrypt_secret(row.secret_key))
    if row.authentication == Authentication.SERVER_ROLE:
        return ServerRole()
    if row.account is None:
        raise PreconditionFailed("no_credentials", "The settings do not say with which credentials AWS is asked.")
    return identity_of(row.account, session=session)


def account_number_of(account: Account, *, session: str) -> str:
    """The account's number, asked of AWS at the first need and kept. Raises `AwsError` without an answer."""
    if not account.account_number:
        number = gateway.account_number(identity_of(account, session=session))
        Account.objects.filter(pk=account.pk, account_number="").update(account_number=number)
        account.account_number = number
    return account.account_number


def _identity(account: Account, session: str, links_left: int) -> Identity:
    number = account.account_number or None
    if account.authentication == Authentication.KEYS:
        return Keys(account.access_key, decrypt_secret(account.secret_key), account_number=number)
    if account.authentication == Authentication.SERVER_ROLE:
        return ServerRole(account_number=number)
    if account.assume_from_account is None or not links_left:
        raise PreconditionFailed(
            "role_chain_broken",
            f"Account “{account.name}” assumes a role, but the account it starts from is "
            "missing or starts from it in turn.",
        )
    return AssumedRole.of(
        _identity(account.assume_from_account, session, links_left - 1),
        account.account_number,
        account.role_name,
        external_id=account.external_id or None,
        session=session,
    )


def _box() -> SecretBox:
    path = Path(settings.CPM_FIELD_KEYS_FILE)
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        changed = 0
    return _box_of(path, changed)


@lru_cache(maxsize=4)
def _box_of(path: Path, changed: int) -> SecretBox:
    # `changed` is part of the key so that a rotated key file is read again without a restart.
    return SecretBox(load_keys(path))
