"""The web proxy between this server and AWS."""

from typing import Any

from django.http.response import HttpResponseBase
from django.urls import path
from rest_framework import serializers
from rest_framework.request import Request

from api import serializers as shapes
from api.endpoints.settings import Singleton
from api.fields import Boolean, Fields, Integer, Text
from api.views import Operation
from cpm.features import Feature
from cpm.models import ProxySettings
from cpm.services import proxy


class ProxyBody(shapes.Body):
    """Fields that are left out keep their value. The password is never shown."""

    address = shapes.Words(max_length=253, help_text="Name or IP address of the proxy's host.")
    enabled = serializers.BooleanField(required=False)
    password = shapes.Words(max_length=255, trim_whitespace=False)
    port = shapes.Whole(required=False, allow_null=True)
    user = shapes.Words(max_length=255, help_text="Empty for a proxy without authentication.")


class Proxy(Singleton):
    """Through which proxy AWS is called. A change acts within seconds."""

    model = ProxySettings
    fields = Fields(
        address=Text("address"), enabled=Boolean("enabled"), port=Integer("port"), user=Text("username")
    )
    operations = {
        "retrieve": Operation("settings.read", since="1.0.0", summary="Show the proxy settings"),
        "change": Operation(
            "settings.change", since="1.0.0", body=ProxyBody, answers=201, summary="Change the proxy settings"
        ),
        "test": Operation(
            "settings.change", since="1.3.0", body=ProxyBody, content=False, feature=Feature.PROXY,
            summary="Reach AWS through a proxy, without storing it",
        ),
    }  # fmt: skip

    def change(self, request: Request) -> HttpResponseBase:
        return self.show(proxy.change(actor=self.actor, **self.given()).pk)

    def test(self, request: Request) -> HttpResponseBase:
        proxy.test_connection(actor=self.actor, **self.given())
        return self.done()

    def given(self) -> Any:
        body = self.body()
        if "user" in body:
            body["username"] = body.pop("user")
        return body


urlpatterns = [
    path("settings/proxy/", Proxy.as_view({"get": "retrieve", "post": "change"})),
    path("settings/proxy/test_connection/", Proxy.as_view({"post": "test"})),
]
