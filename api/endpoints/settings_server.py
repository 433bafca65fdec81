"""What this server is: its identifier, certificate, metadata and activation key."""

import orjson
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from api import pagination
from api import serializers as shapes
from api.endpoints.settings import Singleton
from api.fields import Fields, Text
from api.renderers import JsonRenderer, PemRenderer
from api.views import Endpoint, Operation
from cpm.services import activation_key, certificate, identifier, metadata

CONFIRMATION = "X-Confirm-Identifier"


class ActivationKeyBody(shapes.Body):
    activation_key = serializers.CharField(max_length=1024)


class IdentifierBody(shapes.Body):
    cpm_name = shapes.Name(help_text="What this server is called.")


class ActivationKey(Endpoint):
    """Kept for clients of the documented API; this server has no licence."""

    operations = {
        "change": Operation(
            "settings.change", since="1.4.0", body=ActivationKeyBody, answers=201, content=False,
            summary="Store an activation key (it unlocks nothing)",
        ),
    }  # fmt: skip

    def change(self, request: Request) -> HttpResponseBase:
        activation_key.change(actor=self.actor, **self.body())
        return self.done()


class Identifier(Singleton):
    """Name and UUID. With a new UUID the server no longer knows as its own what the old one tagged."""

    fields = Fields(cpm_name=Text("name"), cpm_uuid=Text("server_id"))
    operations = {
        "retrieve": Operation("settings.read", since="1.1.0", summary="Show the identifier"),
        "renew": Operation(
            "settings.change", since="1.1.0", body=IdentifierBody, answers=201,
            summary=f"Give the server a new UUID; the header {CONFIRMATION} confirms it with the present one",
        ),
        "rename": Operation(
            "settings.change", since="1.4.0", body=IdentifierBody, summary="Change the name, keep the UUID"
        ),
    }  # fmt: skip

    def renew(self, request: Request) -> HttpResponseBase:
        confirmed = request.headers.get(CONFIRMATION, "")
        name = self.body()["cpm_name"]
        return self.show(identifier.renew(actor=self.actor, name=name, confirmed=confirmed).pk)

    def rename(self, request: Request) -> HttpResponseBase:
        return self.show(identifier.rename(actor=self.actor, name=self.body()["cpm_name"]).pk)


class Certificate(Endpoint):
    """The TLS certificate, to be trusted by clients."""

    renderer_classes = [PemRenderer, JsonRenderer]
    operations = {
        "retrieve": Operation(
            "settings.read", since="1.2.0", downloads=PemRenderer.media_type,
            summary="Download the TLS certificate as PEM",
        ),
    }  # fmt: skip

    def retrieve(self, request: Request) -> HttpResponseBase:
        if window := pagination.window_of(request):
            window.check(1)
        return attachment(certificate.pem(actor=self.actor), "cpm-certificate.pem", PemRenderer.media_type)


class Metadata(Endpoint):
    """Versions, numbers and switches of this server."""

    operations = {
        "retrieve": Operation(
            "settings.read", since="1.2.0", downloads=JsonRenderer.media_type,
            summary="Download what this server is, as JSON",
        ),
    }  # fmt: skip

    def retrieve(self, request: Request) -> HttpResponseBase:
        found = metadata.collect(actor=self.actor, now=timezone.now())
        content = orjson.dumps(found, option=orjson.OPT_INDENT_2)
        return attachment(content, "cpm-metadata.json", JsonRenderer.media_type)


def attachment(content: bytes, name: str, kind: str) -> HttpResponse:
    response = HttpResponse(content, content_type=kind)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


urlpatterns = [
    path("settings/activation_key/", ActivationKey.as_view({"post": "change"})),
    path("settings/cpm_certificate/", Certificate.as_view({"get": "retrieve"})),
    path("settings/cpm_metadata/", Metadata.as_view({"get": "retrieve"})),
    path("settings/identifier/", Identifier.as_view({"get": "retrieve", "post": "renew", "put": "rename"})),
]
