"""Bearer tokens. A token belongs to the API key that it was obtained with and dies with it."""

from functools import cache

from django.db import connection
from django.http import HttpRequest
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken, Token

from api.errors import CHALLENGE
from cpm.lib.errors import AuthenticationFailed
from cpm.lib.states import Role
from cpm.models import User
from cpm.services import apikeys

KEY_CLAIM = "key"
# When the key was shown. Access tokens inherit it from their refresh token, so that the end of all tokens before a
# moment ends those too; and it is finer than the whole seconds of "iat".
OBTAINED_CLAIM = "obtained"
REFUSED = "The token is wrong or expired, or its API key was revoked. Obtain a new one."


def obtain(api_key: str) -> RefreshToken:
    """A refresh token (which carries an access token) for an API key. Raises `AuthenticationFailed`."""
    now = timezone.now()
    key = apikeys.authenticate(key=api_key, now=now)
    token: RefreshToken = RefreshToken.for_user(key.user)  # type: ignore[assignment]  # typed as the base class
    token[KEY_CLAIM] = key.pk
    token[OBTAINED_CLAIM] = now.timestamp()
    return token


def refresh(text: str) -> str:
    """A new access token for a refresh token. Raises `AuthenticationFailed`."""
    try:
        token = RefreshToken(text)  # type: ignore[arg-type]  # the stub wants a Token, the class reads text
    except TokenError as error:
        raise AuthenticationFailed(REFUSED) from error
    user_of(token)
    return str(token.access_token)


def user_of(token: Token) -> User:
    """The user of a token whose signature and age were checked. Raises `AuthenticationFailed`."""
    key, owner = token.get(KEY_CLAIM), str(token.get("user_id"))
    obtained = token.get(OBTAINED_CLAIM, 0)
    is_ours = isinstance(key, int) and owner.isdecimal() and isinstance(obtained, int | float)
    user = live_user(key, int(owner), obtained) if is_ours else None
    if user is None:
        raise AuthenticationFailed(REFUSED)
    return user


def live_user(key: int, owner: int, obtained: float) -> User | None:
    """The owner of an API key with the environment, and for root whom it reaches, in one indexed query.

    None if the key was revoked, belongs to somebody else, one of the two users is not active, or the owner's tokens
    of the time `obtained` (seconds since 1970) were ended.
    """
    with connection.cursor() as cursor:
        cursor.execute(_live_user_query(), [key, owner, float(obtained)])
        row = cursor.fetchone()
    if row is None:
        return None
    names = [field.attname for field in User._meta.concrete_fields]
    chosen, (managed, independent) = row[:-2], row[-2:]
    user = User.from_db(connection.alias, names, chosen[: len(names)])
    user.original_user = (
        User.from_db(connection.alias, names, chosen[len(names) :]) if user.original_user_id else None
    )
    if managed is not None:
        # So that no list asks again whose objects root sees.
        root = user.environment
        root.tenants = {Role.ROOT: [root.pk], Role.INDEPENDENT: independent, Role.MANAGED: managed}
    return user


@cache
def _live_user_query() -> str:
    # Every request asks this; composing it with the ORM would cost more than running it.
    columns = [field.column for field in User._meta.concrete_fields]
    chosen = ", ".join(f'{table}."{column}"' for table in ("u", "o") for column in columns)
    tables = (
        "cpm_apikey k JOIN cpm_user u ON u.id = k.user_id LEFT JOIN cpm_user o ON o.id = u.original_user_id"
    )
    others = "ARRAY(SELECT id FROM cpm_user WHERE role = '{}' ORDER BY id)"
    reached = ", ".join(
        f"CASE WHEN '{Role.ROOT}' IN (u.role, o.role) THEN {others.format(role)} END"
        for role in (Role.MANAGED, Role.INDEPENDENT)
    )
    live = "k.revoked_at IS NULL AND u.is_active AND coalesce(o.is_active, true)"
    live += " AND coalesce(extract(epoch FROM u.tokens_valid_from) < %s, true)"
    return f"SELECT {chosen}, {reached} FROM {tables} WHERE k.id = %s AND u.id = %s AND {live}"  # noqa: S608


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer <access token>`. Anything else in that header is a 401."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        header = request.META.get("HTTP_AUTHORIZATION")
        if not header:
            return None
        kind, _, text = header.strip().partition(" ")
        if kind.lower() != "bearer":
            raise AuthenticationFailed("The Authorization header must read: Bearer <access token>.")
        try:
            token = AccessToken(text.strip())  # type: ignore[arg-type]  # as above
        except TokenError as error:
            raise AuthenticationFailed(REFUSED) from error
        return user_of(token), token

    def authenticate_header(self, request: HttpRequest) -> str:
        return CHALLENGE
