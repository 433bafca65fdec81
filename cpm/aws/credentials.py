"""Credentials for an identity in the form that botocore signs with; assumed roles renew themselves."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    Credentials,
    DeferredRefreshableCredentials,
)

from cpm.aws.identity import AssumedRole, Keys

AssumeRole = Callable[[AssumedRole], dict[str, Any]]
"""Asks STS for the role and returns the ``Credentials`` part of AssumeRole's answer."""


class _RoleCredentials(DeferredRefreshableCredentials):  # type: ignore[misc]  # botocore has no types
    """Asked for at first use and renewed before they expire.

    botocore renews in the background from ``_advisory_refresh_timeout`` seconds before the end, and makes
    everybody wait from ``_mandatory_refresh_timeout``. Its fixed 15 minutes equal the shortest session, which
    would then be renewed at every call; ours scale with the session.
    """

    def __init__(self, identity: AssumedRole, assume: AssumeRole) -> None:
        self._advisory_refresh_timeout = identity.duration // 4
        self._mandatory_refresh_timeout = identity.duration // 6
        super().__init__(refresh_using=lambda: _metadata(assume(identity)), method="cpm-assumed-role")


def _metadata(answer: dict[str, Any]) -> dict[str, str]:
    expires: datetime = answer["Expiration"]
    return {
        "access_key": answer["AccessKeyId"],
        "secret_key": answer["SecretAccessKey"],
        "token": answer["SessionToken"],
        "expiry_time": expires.isoformat(),
    }


class _Given(CredentialProvider):  # type: ignore[misc]  # botocore has no types
    """Hands one set of credentials to a botocore session, instead of its search through environment and
    files."""

    METHOD = "cpm"

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> Credentials:
        return self._credentials


def for_keys(identity: Keys) -> CredentialResolver:
    return CredentialResolver(
        [
            _Given(
                Credentials(
                    identity.access_key, identity.secret_key, identity.session_token, method="cpm-keys"
                )
            )
        ]
    )


def for_role(identity: AssumedRole, assume: AssumeRole) -> CredentialResolver:
    return CredentialResolver([_Given(_RoleCredentials(identity, assume))])
