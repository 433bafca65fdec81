"""Who a call to AWS is made as: frozen values, never rows, so that clients can be cached by them.

An identity holds secrets. It hides them when shown and refuses to be pickled: a task message carries an id,
and the worker builds the identity from the stored account.
"""

import re
from dataclasses import dataclass, field
from typing import NoReturn, Self

MIN_DURATION = 900
# STS AssumeRole: a role assumed with the credentials of another role lasts an hour at most, whatever the role
# says.
MAX_CHAINED_DURATION = 3600
MAX_DURATION = 43200

_ACCOUNT = re.compile(r"\d{12}")
_ROLE_NAME = re.compile(r"(?:[\w+=,.@-]+/)*[\w+=,.@-]{1,64}")
_SESSION_FORBIDDEN = re.compile(r"[^\w+=,.@-]+", re.ASCII)


class _StaysHere:
    def __reduce__(self) -> NoReturn:
        raise TypeError("An AWS identity is not sent anywhere; send the account's id and build it there.")


@dataclass(frozen=True, slots=True)
class Keys(_StaysHere):
    """Access keys of an IAM user, or temporary ones with a session token.

    ``account_number`` is what the throttle shares its budget by; without it each access key has its own.
    """

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    partition: str = "aws"
    account_number: str | None = None

    def secrets(self) -> tuple[str, ...]:
        return (self.secret_key, self.session_token) if self.session_token else (self.secret_key,)

    @property
    def account_key(self) -> str:
        return self.account_number or self.access_key

    def __str__(self) -> str:
        return f"access key {self.access_key}"


@dataclass(frozen=True, slots=True)
class ServerRole(_StaysHere):
    """Whatever role the machine or container that runs this process has."""

    partition: str = "aws"
    account_number: str | None = None

    def secrets(self) -> tuple[str, ...]:
        return ()

    @property
    def account_key(self) -> str:
        return self.account_number or "server"

    def __str__(self) -> str:
        return "the server's own role"


@dataclass(frozen=True, slots=True)
class AssumedRole(_StaysHere):
    """A role assumed by ``source``, which may itself be an assumed role."""

    source: "Keys | ServerRole | AssumedRole"
    role_arn: str
    external_id: str | None = field(default=None, repr=False)
    session_name: str = "cpm"
    duration: int = 3600

    def __post_init__(self) -> None:
        longest = MAX_CHAINED_DURATION if isinstance(self.source, AssumedRole) else MAX_DURATION
        if not MIN_DURATION <= self.duration <= longest:
            raise ValueError(
                f"duration must be {MIN_DURATION} to {longest} seconds here, not {self.duration}"
            )

    @classmethod
    def of(
        cls,
        source: "Identity",
        account_number: str,
        role_name: str,
        *,
        external_id: str | None = None,
        session: str = "cpm",
        duration: int = 3600,
    ) -> Self:
        """The role with this name in that account, in the partition that ``source`` lives in."""
        arn = role_arn(source.partition, account_number, role_name)
        return cls(source, arn, external_id or None, session_name(session), duration)

    def secrets(self) -> tuple[str, ...]:
        return (*((self.external_id,) if self.external_id else ()), *self.source.secrets())

    @property
    def partition(self) -> str:
        return self.role_arn.split(":")[1]

    @property
    def account_number(self) -> str:
        return self.role_arn.split(":")[4]

    @property
    def account_key(self) -> str:
        return self.account_number

    def __str__(self) -> str:
        return f"role {self.role_arn} assumed by {self.source}"


Identity = Keys | ServerRole | AssumedRole


def role_arn(partition: str, account_number: str, role_name: str) -> str:
    """The ARN of a role. ``role_name`` may carry a path (``team/Backup``) but is not an ARN."""
    if not _ACCOUNT.fullmatch(account_number):
        raise ValueError(f"an AWS account number has 12 digits, not {account_number!r}")
    if not _ROLE_NAME.fullmatch(role_name):
        raise ValueError(f"not the name of an IAM role: {role_name!r}")
    return f"arn:{partition}:iam::{account_number}:role/{role_name}"


def session_name(wanted: str) -> str:
    """``wanted`` cut to what STS accepts as RoleSessionName: 2 to 64 of letters, digits and ``_+=,.@-``."""
    name = _SESSION_FORBIDDEN.sub("-", wanted).strip("-")[:64]
    return name if len(name) >= 2 else f"cpm-{name}".rstrip("-")
