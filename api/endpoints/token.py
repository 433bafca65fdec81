"""Exchanging an API key for tokens."""

from contextlib import AbstractContextManager

from django.db.models import TextField, Value
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.parsers import FormParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from api import authentication
from api.fields import Fields, Text
from api.parsers import JsonParser
from api.serializers import Body
from api.views import Endpoint, Operation
from cpm.services import attempts

NOT_FROM_A_TABLE = Value("", output_field=TextField())


class ApiKeyBody(Body):
    api_key = serializers.CharField(max_length=255, help_text="The key as it was shown when it was made.")


class RefreshBody(Body):
    refresh = serializers.CharField(max_length=4096, help_text="A refresh token.")


class Token(Endpoint):
    """Public: who calls these has no token yet. Bodies may be JSON or a form."""

    authentication_classes = []
    permission_classes = [AllowAny]
    parser_classes = [JsonParser, FormParser]
    operations = {
        "obtain": Operation(
            None, since="1.0.0", body=ApiKeyBody, summary="Obtain an access and a refresh token",
            fields=Fields(access=Text(NOT_FROM_A_TABLE), refresh=Text(NOT_FROM_A_TABLE)),
        ),
        "refresh": Operation(
            None, since="1.0.0", body=RefreshBody, summary="Refresh an access token",
            fields=Fields(access=Text(NOT_FROM_A_TABLE)),
        ),
    }  # fmt: skip

    def obtain(self, request: Request) -> Response:
        key = self.body()["api_key"]
        with self.counted():
            token = authentication.obtain(key)
        return Response({"access": str(token.access_token), "refresh": str(token)})

    def refresh(self, request: Request) -> Response:
        text = self.body()["refresh"]
        with self.counted():
            access = authentication.refresh(text)
        return Response({"access": access})

    def counted(self) -> AbstractContextManager[None]:
        """Around looking at what the caller shows: failures count against its address."""
        source = self.request.META.get("REMOTE_ADDR", "")
        return attempts.counted(attempts.by_key(source), now=timezone.now())


urlpatterns = [
    path("token/obtain/api_key/", Token.as_view({"post": "obtain"})),
    path("token/refresh/", Token.as_view({"post": "refresh"})),
]
