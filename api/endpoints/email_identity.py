"""The address that mail comes from, and its verification by SES."""

from typing import Any

import orjson
from django.db.models import TextField, Value
from django.db.models.functions import NullIf
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import path
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api import pagination
from api import serializers as shapes
from api.fields import Boolean, Choice, Fields, NumberAsText, Text
from api.filters import Exactly
from api.views import Endpoint, Operation, Records, Rows
from cpm.lib.states import Authentication
from cpm.models import EmailIdentity
from cpm.services import email_identity

NOT_FROM_A_TABLE = Value("", output_field=TextField())
STATUS_FIELDS = Fields(email_address=Text(NOT_FROM_A_TABLE), status=Text(NOT_FROM_A_TABLE))


class IdentityBody(shapes.Body):
    """What is left out keeps its value."""

    email_address = shapes.Words(max_length=254, help_text="The address that mail comes from.")
    enabled = serializers.BooleanField(help_text="Send mail through Amazon SES.")
    ses_access_key = shapes.Words(
        max_length=128, help_text="Access key of an IAM user, with authentication C."
    )
    ses_account = shapes.Words(
        max_length=19, help_text="Id of the account to send from, with authentication A."
    )
    ses_authentication = shapes.Choice(Authentication, required=False, help_text="Whose SES it is.")
    ses_region = shapes.Words(max_length=32, help_text="AWS region of SES.")
    ses_secret_key = shapes.Words(
        max_length=1024, write_only=True, help_text="Its secret key. It is stored encrypted and never shown."
    )
    verify_source_address = serializers.BooleanField(
        required=False, help_text="Send only while SES knows the address as verified."
    )


class VerifyBody(shapes.Body):
    email_address = serializers.CharField(
        max_length=254, help_text="The address whose owner shall confirm it."
    )


class EmailIdentitySettings(Records):
    """The e-mail identity of the server."""

    model, noun = EmailIdentity, "settings"
    fields = Fields(
        email_address=Text("email_address"),
        enabled=Boolean("enabled"),
        ses_access_key=Text("access_key"),
        ses_account=NumberAsText("account_id"),
        # Nothing until somebody has chosen.
        ses_authentication=Choice(NullIf("authentication", Value("")), Authentication),
        ses_region=Text("region"),
        verify_source_address=Boolean("verify_source_address"),
    )
    operations = {
        "retrieve": Operation("settings.read", since="1.3.0", summary="Show the e-mail identity"),
        "change": Operation(
            "settings.change", since="1.3.0", body=IdentityBody, answers=201, summary="Change the e-mail identity"
        ),
    }  # fmt: skip

    def scoped(self, queryset: Rows) -> Rows:
        return queryset

    def retrieve(self, request: Request) -> HttpResponseBase:  # type: ignore[override]  # there is one row
        # The contract gives this the parameters of lists; they change nothing, but nonsense in them is a 400.
        if window := pagination.window_of(request):
            window.check(1)
        return self.show(EmailIdentity.current().pk)

    def change(self, request: Request) -> HttpResponseBase:
        return self.show(email_identity.change(actor=self.actor, **self.body()).pk)


class Verification(Endpoint):
    """Asking SES to verify an address, and how far it is."""

    operations = {
        "verify": Operation(
            "settings.change", since="1.4.0", body=VerifyBody, content=False, summary="Have SES verify an address"
        ),
        "status": Operation(
            "settings.read", since="1.4.0", fields=STATUS_FIELDS, filters={"email_address": Exactly()},
            summary="Show how far the verification is",
        ),
    }  # fmt: skip

    def verify(self, request: Request) -> Response:
        email_identity.verify(actor=self.actor, **self.body())
        return self.done()

    def status(self, request: Request) -> HttpResponse:
        asked: Any = self.values().get("email_address")
        address, status = email_identity.verify_status(actor=self.actor, email_address=asked)
        shown = {"email_address": address, "status": status}
        return HttpResponse(orjson.dumps(shown), content_type="application/json")


urlpatterns = [
    path("settings/email_identity/", EmailIdentitySettings.as_view({"get": "retrieve", "post": "change"})),
    path("settings/email_identity/verify/", Verification.as_view({"post": "verify"})),
    path("settings/email_identity/verify_status/", Verification.as_view({"get": "status"})),
]
