"""The families of AWS errors. Nothing outside ``cpm.aws`` sees an exception of botocore.

Callers decide by family: only ``NotFound`` means that a thing is absent; ``Throttled`` means wait; everything
else is an answer about the call and says nothing about whether the thing exists.
"""

import re
from typing import ClassVar

from cpm.aws import known_errors
from cpm.aws.known_error import KnownError

_RESOURCE_ID = re.compile(
    r"\b(?:snap|vol|i|ami|eni|sg|subnet|vpc|eipalloc|import-snap|rtb|igw|nat|fs)-[0-9a-f]{8,17}\b"
)


class AwsError(Exception):
    """One failed call. ``transient`` says whether the same call may succeed later without anybody's help."""

    family: ClassVar[str] = "unknown"
    transient: bool = False
    advice: ClassVar[str] = "Look the code up in the AWS documentation of this service."

    def __init__(
        self,
        code: str,
        message: str,
        *,
        action: str,
        service: str,
        region: str,
        request_id: str | None = None,
        account: str | None = None,
    ) -> None:
        self.code = code
        self.message = message
        self.action = action
        self.service = service
        self.region = region
        self.request_id = request_id
        self.account = account
        super().__init__(code, message)

    @property
    def call(self) -> str:
        return f"{self.service}:{self.action}"

    @property
    def known(self) -> KnownError | None:
        """The entry of `known_errors` that tells what to do about it, if there is one."""
        return known_errors.find(
            family=self.family,
            service=self.service,
            action=self.action,
            aws_code=self.code,
            message=self.message,
        )

    def explain(self) -> str:
        """A text for operators: what failed, where, what to do, and AWS's own words with the request id.

        A known error's stable code stands at the end, in square brackets.
        """
        where = f" in {self.region}" + (f" for account {self.account}" if self.account else "")
        said = (
            f"AWS said {self.code}: {self.message.rstrip('.')}" if self.message else f"AWS said {self.code}"
        )
        proof = f" (request id {self.request_id})" if self.request_id else ""
        entry = f" [{self.known.code}]" if self.known else ""
        return f"{self.call}{where} failed. {self.advise()} {said}{proof}{entry}."

    def advise(self) -> str:
        """What to do: about this very error if it is a known one, else about its family."""
        return self.known.advice if self.known else self.general_advice()

    def general_advice(self) -> str:
        return self.advice

    def __str__(self) -> str:
        return self.explain()

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (type(self), self.__dict__.copy()))


def _restore(kind: type[AwsError], state: dict[str, object]) -> AwsError:
    error = kind.__new__(kind, state["code"], state["message"])
    error.__dict__.update(state)
    error.args = (state["code"], state["message"])
    return error


class NotFound(AwsError):
    """The thing does not exist, or not for this identity. ``ids`` are the ids that AWS named, possibly
    none."""

    family = "not_found"
    advice = "It does not exist, or is not shared with this account."

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_RESOURCE_ID.findall(self.message)))


class Throttled(AwsError):
    """Refused before anything happened, because of too many calls. Wait ``retry_after`` seconds at least."""

    family = "throttled"
    transient = True
    advice = "Too many calls of this kind in this account and region; it is tried again later."
    retry_after: float = 1.0


class Denied(AwsError):
    """The identity may not do this. Every error of this family is a known one."""

    family = "denied"

    @property
    def missing_action(self) -> str:
        """The IAM action that is not allowed: the one AWS names, else the one that was called."""
        named = re.search(r"not authorized to perform:?\s+([a-zA-Z0-9-]+:[A-Za-z0-9*]+)", self.message)
        return named.group(1) if named else f"{self.service}:{self.action}"

    @property
    def denied_by(self) -> str | None:
        """The kind of policy with an explicit deny, such as "service control policy", when AWS names it."""
        named = re.search(r"explicit deny in an? ([a-z -]+?policy|[a-z -]+?boundary)", self.message)
        return named.group(1) if named else None

    def advise(self) -> str:
        return super().advise().format(permission=self.missing_action, policy=self.denied_by or "policy")


class BadCredentials(AwsError):
    """The credentials are wrong, expired, deleted or absent."""

    family = "bad_credentials"
    advice = (
        "The credentials of this account do not work (deleted, deactivated, expired, mistyped, or the "
        "server's clock is wrong); check them and enter them again."
    )


class RegionDisabled(AwsError):
    """The credentials work, but not in this region. Every error of this family is a known one."""

    family = "region_disabled"


class LimitReached(AwsError):
    """A quota or AWS's own capacity. Limits on things in progress clear by themselves: then it is
    transient."""

    family = "limit_reached"

    def general_advice(self) -> str:
        if self.transient:
            return "Too many of these operations are in progress; it is tried again when some have ended."
        return "A quota or the capacity of AWS is used up; remove something or ask AWS for more."


class InUse(AwsError):
    family = "in_use"
    advice = "Something else in AWS still uses it; release it there first."


class InvalidState(AwsError):
    family = "invalid_state"
    advice = "It is in a state that does not allow this now."


class Invalid(AwsError):
    family = "invalid"
    advice = "AWS does not accept these parameters; they have to be changed."


class AlreadyExists(AwsError):
    family = "already_exists"
    advice = "Something with this name or id exists already."


class KmsUnusable(AwsError):
    """A KMS key is disabled, deleted, or not usable by this identity. Says nothing about what it encrypts.

    Every error of this family is a known one.
    """

    family = "kms_unusable"


class Unreachable(AwsError):
    """No usable answer: no connection, a timeout, or a failure inside AWS.

    ``maybe_done`` is false only when the request surely never arrived. When it is true the call may have had
    its effect, and whoever creates something looks for it before creating it again.
    """

    family = "unreachable"
    transient = True
    maybe_done: bool = True

    def general_advice(self) -> str:
        if self.maybe_done:
            return "AWS gave no usable answer, so it is not known whether the call took effect."
        return "AWS could not be reached; check the network, the proxy and the endpoint settings."


class Unknown(AwsError):
    """A code that is in no family. It is never taken for "absent"."""
