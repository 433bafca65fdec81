"""Errors of the domain: what a service raises when it refuses something.

Every error has a stable ``code`` for programs, named ``data``, and a message that tells an operator what is
wrong and what would help. How an error is shown (HTTP status, exit code, colour) is decided where it is
shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, TypedDict

NON_FIELD = "non_field_errors"


class FieldError(TypedDict):
    message: str
    code: str


class DomainError(Exception):
    """Base of all refusals. ``str(error)`` is the rendered message; ``field`` names the input to blame, if
    any."""

    code: ClassVar[str] = "error"
    template: ClassVar[str] = "The request could not be carried out."

    def __init__(self, *, field: str | None = None, **data: object) -> None:
        self.field = field
        self.data = data
        super().__init__(self.message)

    @property
    def message(self) -> str:
        return self.template.format(**self.data)

    def error_code(self) -> str:
        """The code of this very error; classes that carry their code as data override it."""
        return self.code

    def to_fields(self) -> dict[str, list[FieldError]]:
        """The error as ``{field: [{message, code}]}``; ``non_field_errors`` when no field is to blame."""
        return {self.field or NON_FIELD: [{"message": self.message, "code": self.error_code()}]}

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not survive pickling by themselves; worker pools pickle
        # them.
        return (_restore, (type(self), self.__dict__.copy(), self.args))


def _restore(kind: type[DomainError], state: dict[str, object], args: tuple[object, ...]) -> DomainError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    error.args = args
    return error


class ValidationFailed(DomainError):
    """Input that makes no sense, possibly in several fields at once.

    ``errors`` maps a field (or ``non_field_errors``) to pairs of message and code.
    """

    code = "invalid"
    template = "{summary}"

    def __init__(self, errors: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        if not any(errors.values()):
            raise ValueError("ValidationFailed needs at least one error")
        self.errors: dict[str, list[tuple[str, str]]] = {
            name: list(pairs) for name, pairs in errors.items() if pairs
        }
        parts = [
            message if name == NON_FIELD else f"{name}: {message}"
            for name, pairs in self.errors.items()
            for message, _ in pairs
        ]
        super().__init__(field=next(iter(self.errors)), summary=" ".join(parts))

    @classmethod
    def one(cls, field: str, message: str, code: str = "invalid") -> "ValidationFailed":
        return cls({field: [(message, code)]})

    def to_fields(self) -> dict[str, list[FieldError]]:
        return {
            name: [{"message": message, "code": code} for message, code in pairs]
            for name, pairs in self.errors.items()
        }


class NotFound(DomainError):
    """Nothing with this id exists within what the actor may see. ``what`` is a noun such as "policy"."""

    code = "not_found"
    template = "There is no {what} with id {id}."

    def __init__(self, what: str, id: object, *, field: str | None = None) -> None:
        super().__init__(field=field, what=what, id=id)


class PermissionDenied(DomainError):
    """The actor lacks ``right``."""

    code = "permission_denied"
    template = "This needs the right “{right}”. Ask the owner of the account or the root user to grant it."

    def __init__(self, right: str, *, field: str | None = None) -> None:
        super().__init__(field=field, right=right)


class AuthenticationFailed(DomainError):
    """The caller is not who they claim to be. ``reason`` never repeats what was sent."""

    code = "authentication_failed"
    template = "{reason}"

    def __init__(self, reason: str = "The credentials are missing, wrong or expired.") -> None:
        super().__init__(reason=reason)


class TooManyAttempts(DomainError):
    """A name or an address has failed too often. ``seconds`` says how long nothing from it is looked at."""

    code = "too_many_attempts"
    template = "There were too many failed attempts. Try again in {seconds} seconds."

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(seconds=seconds)


class _Coded(DomainError):
    """An error whose code and message come from where it is raised."""

    template = "{text}"

    def __init__(self, code: str, message: str, *, field: str | None = None, **data: object) -> None:
        self._code = code
        super().__init__(field=field, text=message, **data)

    def error_code(self) -> str:
        return self._code


class PreconditionFailed(_Coded):
    """The input is fine but the state of things does not allow it now."""

    code = "precondition_failed"


class NotAllowed(_Coded):
    """Nobody may do this to the thing in question, whatever their rights."""

    code = "not_allowed"


class Conflict(_Coded):
    """The change collides with something that exists or with another change made meanwhile."""

    code = "conflict"


class InUse(DomainError):
    """``what`` cannot be removed or changed because the things in ``by`` depend on it."""

    code = "in_use"
    template = "The {what} is used by {users}; remove or change them first."
    shown: ClassVar[int] = 10

    def __init__(self, what: str, by: Iterable[str], *, field: str | None = None) -> None:
        self.by = list(by)
        users = ", ".join(self.by[: self.shown])
        if len(self.by) > self.shown:
            users += f" and {len(self.by) - self.shown} more"
        super().__init__(field=field, what=what, users=users)


class LimitExceeded(DomainError):
    """A limit set in CPM would be passed. ``limit`` is the allowed number of ``what``."""

    code = "limit_exceeded"
    template = "No more than {limit} {what} are allowed here; remove some or have the limit raised."

    def __init__(self, what: str, limit: int, *, field: str | None = None) -> None:
        super().__init__(field=field, what=what, limit=limit)


class FeatureOff(DomainError):
    """The feature is switched off for this server or this user."""

    code = "feature_off"
    template = "The feature “{feature}” is switched off; the root user can switch it on in the settings."

    def __init__(self, feature: str, *, field: str | None = None) -> None:
        super().__init__(field=field, feature=feature)
