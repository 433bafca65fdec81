"""Delegates: people who act in the environment of another user, with fewer rights."""

from django.http.response import HttpResponseBase
from django.urls import path
from rest_framework import serializers
from rest_framework.request import Request

from api import serializers as shapes
from api.endpoints.profiles import (
    PROFILE,
    NewPersonBody,
    PasswordBody,
    People,
    PersonBody,
    blamed_in_profile,
    person_fields,
)
from api.endpoints.users import IS_EXTERNAL
from api.fields import Boolean, Integer, Object, Text
from api.filters import Ids
from api.views import Operation
from cpm.lib.states import Role
from cpm.services import users

FIELDS = person_fields(
    Object(
        allow_account_changes=Boolean("allow_account_changes"),
        allow_backup_changes=Boolean("allow_backup_changes"),
        allow_recovery=Boolean("allow_recovery"),
        allow_settings_changes=Boolean("allow_settings_changes"),
        domain_name=Text("domain_name"),
        is_external_authentication=Boolean(IS_EXTERNAL),
        original_user=Integer("original_user_id"),
    )
)


class DelegateProfileBody(shapes.Body):
    """What the delegate may do beyond looking. What is left out keeps its value, and is not granted at first."""

    allow_account_changes = serializers.BooleanField(
        required=False, help_text="May change accounts, together with allow_backup_changes."
    )
    allow_backup_changes = serializers.BooleanField(
        required=False, help_text="May change policies, schedules and targets, and delete backups."
    )
    allow_recovery = serializers.BooleanField(required=False, help_text="May recover.")
    allow_settings_changes = serializers.BooleanField(required=False, help_text="May change settings.")


class NewDelegateProfileBody(DelegateProfileBody):
    original_user = shapes.Id(help_text="The user for whom the delegate acts.")


class NewDelegateBody(NewPersonBody):
    profile = NewDelegateProfileBody(help_text="For whom the delegate acts, and what it may do.")


class DelegateBody(PersonBody):
    profile = DelegateProfileBody(help_text="What the delegate may do.")


class Delegates(People):
    """Everybody who acts for somebody else. They own nothing, so their numbers of things are zero."""

    fields, noun = FIELDS, "delegate"
    filters = {"original_user": Ids("original_user_id")}
    ordering = {"original_user": "original_user_id", "username": "username"}
    search = ("username", "original_user__username")
    operations = {
        "list": Operation("delegates.read", since="1.0.0", many=True, summary="List delegates"),
        "create": Operation(
            "delegates.change", since="1.0.0", body=NewDelegateBody, answers=201, summary="Add a delegate"
        ),
        "retrieve": Operation("delegates.read", since="1.0.0", summary="Show a delegate"),
        "update": Operation("delegates.change", since="1.0.0", body=DelegateBody, summary="Change a delegate"),
        "destroy": Operation(
            "delegates.change", since="1.0.0", answers=204, content=False, summary="Delete a delegate"
        ),
        "reset_password": Operation(
            "delegates.reset_password", since="1.0.0", body=PasswordBody, answers=201, content=False,
            summary="Give a delegate a new password",
        ),
    }  # fmt: skip

    def create(self, request: Request) -> HttpResponseBase:
        body = self.body()
        profile = body.pop(PROFILE)
        with blamed_in_profile():
            made = users.create(actor=self.actor, role=Role.DELEGATE, **body, **profile)
        return self.show(made.pk)

    def update(self, request: Request, id: int) -> HttpResponseBase:
        found = self.find(id)
        body = self.body()
        with blamed_in_profile():
            users.update(actor=self.actor, user=found, **body.pop(PROFILE), **body)
        return self.show(id)


urlpatterns = [
    path("delegates/", Delegates.as_view({"get": "list", "post": "create"})),
    path("delegates/<id:id>/", Delegates.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})),
    path("delegates/<id:id>/reset_password/", Delegates.as_view({"post": "reset_password"})),
]
