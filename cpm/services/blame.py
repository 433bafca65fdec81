"""What AWS refuses while settings are being saved is a mistake in the settings: which field is to blame for what."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cpm.aws.errors import AwsError
from cpm.lib.errors import PreconditionFailed, ValidationFailed
from cpm.lib.secrets import KeyFileError, SecretUnreadable

Fields = Mapping[type[AwsError], str]


@contextmanager
def blaming(field: str, *, account: str, unreadable: str, fields: Fields | None = None) -> Iterator[None]:
    """Raises `ValidationFailed` for what AWS refuses inside: of `field`, or as `fields` says for a kind of error.

    An account that cannot be used as it is puts the blame on the field `account`, a secret that this server cannot read
    on the field `unreadable`.
    """
    try:
        yield
    except AwsError as error:
        raise refusal(error, field, fields) from error
    except PreconditionFailed as error:
        raise ValidationFailed.one(account, error.message, error.error_code()) from error
    except (SecretUnreadable, KeyFileError) as error:
        raise ValidationFailed.one(unreadable, str(error), "secret_unreadable") from error


def refusal(error: AwsError, field: str, fields: Fields | None = None) -> ValidationFailed:
    """AWS's words as a refusal of input."""
    return ValidationFailed.one((fields or {}).get(type(error), field), error.explain(), f"aws_{error.family}")
