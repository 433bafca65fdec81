"""Bearer tokens. A token belongs to the API key that it was obtained with and dies with it."""

from django.db.models import QuerySet
from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken, Token

from api.errors import CHALLENGE
from cpm.lib.errors import AuthenticationFailed
from cpm.lib.secrets import hash_api_key
from cpm.models import ApiKey, User

KEY_CLAIM = "key"
REFUSED = "The token is wrong or expired, or its API key was revoked. Obtain a new one."


def live_keys() -> QuerySet[ApiKey]:
    """Keys that still open the door, with their user and the user's environment in the same query."""
    return ApiKey.objects.filter(revoked_at=None, user__is_active=True).select_related("user__original_user")


def obtain(api_key: str) -> RefreshToken:
    """A refresh token (which carries an access token) for an API key. Raises `AuthenticationFailed`."""
    key = live_keys().filter(key_hash=hash_api_key(api_key)).first()
    if key is None or not key.user.environment.is_active:
        raise AuthenticationFailed("The API key is wrong or was revoked, or its user is not active.")
    token: RefreshToken = RefreshToken.for_user(key.user)  # type: ignore[assignment]  # typed as the base class
    token[KEY_CLAIM] = key.pk
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
    """The user of a token whose signature and age were checked; one indexed query. Raises `AuthenticationFailed`."""
    claim = token.get(KEY_CLAIM)
    key = live_keys().filter(pk=claim).first() if isinstance(claim, int) else None
    if key is None or str(key.user_id) != str(token.get("user_id")) or not key.user.environment.is_active:
        raise AuthenticationFailed(REFUSED)
    return key.user


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
