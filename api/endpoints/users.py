"""Users: root, independent and managed ones. Delegates have an endpoint of their own."""

from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import BooleanField, OuterRef, Q
from django.db.models.expressions import ExpressionWrapper
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api import serializers as shapes
from api.endpoints.profiles import (
    NUM_ACCOUNTS,
    NUM_FROZEN,
    NUM_POLICIES,
    PROFILE,
    NewPersonBody,
    PasswordBody,
    People,
    PersonBody,
    blamed_in_profile,
    number_of,
    password,
    person_fields,
)
from api.fields import Boolean, Integer, Items, Object, Text
from api.views import Endpoint, Operation, Rows
from cpm.lib.states import Role
from cpm.models import User
from cpm.services import users

Assigned: Any = User.applied_managed_users.through
APPLIED = ArraySubquery(
    Assigned.objects.filter(from_user=OuterRef("pk")).order_by("to_user_id").values("to_user_id")
)
IS_EXTERNAL = ExpressionWrapper(~Q(domain_name=""), output_field=BooleanField())
IS_MANAGED = ExpressionWrapper(Q(role=Role.MANAGED), output_field=BooleanField())
FIELDS = person_fields(
    Object(
        allow_cost_explorer=Boolean("allow_cost_explorer"),
        allow_file_level_recovery=Boolean("allow_file_level_recovery"),
        applied_managed_users=Items(APPLIED, of="integer"),
        domain_name=Text("domain_name"),
        is_external_authentication=Boolean(IS_EXTERNAL),
        is_managed_user=Boolean(IS_MANAGED),
        **{name: Integer(name) for name in users.LIMITS},
    )
)
# What lists are ordered by beside columns.
ORDERED = {
    "delegate_users": number_of(User.objects.all(), "original_user"),
    "is_external_authentication": IS_EXTERNAL,
    "managed": IS_MANAGED,
    "managed_users": number_of(Assigned.objects.all(), "from_user"),
    "num_accounts": NUM_ACCOUNTS,
    "num_frozen_items": NUM_FROZEN,
    "num_policies": NUM_POLICIES,
}


class UserProfileBody(shapes.Body):
    """What the user may do and how much. What is left out keeps its value; no limit is null."""

    allow_cost_explorer = serializers.BooleanField(required=False, help_text="May see costs.")
    allow_file_level_recovery = serializers.BooleanField(
        required=False, help_text="May recover single files."
    )
    applied_managed_users = serializers.ListField(
        child=shapes.Id(), required=False, max_length=10_000,
        help_text="Managed users that this independent user looks after.",
    )  # fmt: skip
    is_managed_user = serializers.BooleanField(
        required=False, help_text="Root handles the user's objects too; otherwise the user is independent."
    )
    max_accounts = shapes.Whole(required=False, allow_null=True, help_text="Most accounts.")
    max_controlled_entities = shapes.Whole(
        required=False, allow_null=True, help_text="Most entities under resource control."
    )
    max_dynamodb_gib = shapes.Whole(required=False, allow_null=True, help_text="Most GiB of DynamoDB tables.")
    max_independent_ebs_gib = shapes.Whole(
        required=False, allow_null=True, help_text="Most GiB of volumes that are targets by themselves."
    )
    max_instances = shapes.Whole(required=False, allow_null=True, help_text="Most instances.")
    max_rds_gib = shapes.Whole(required=False, allow_null=True, help_text="Most GiB of RDS databases.")
    max_redshift_gib = shapes.Whole(
        required=False, allow_null=True, help_text="Most GiB of Redshift clusters."
    )


class NewUserBody(NewPersonBody):
    profile = UserProfileBody(help_text="What the user may do.")


class UserBody(PersonBody):
    profile = UserProfileBody(help_text="What the user may do.")


class RootBody(PersonBody):
    """Root has no profile."""

    profile = UserProfileBody(required=False)


class OwnPasswordBody(PasswordBody):
    old_password = password("The password up to now.")


class Users(People):
    """Everybody who owns things."""

    fields, noun = FIELDS, "user"
    ordering = {"user_type": "role", "username": "username"} | {name: f"by_{name}" for name in ORDERED}
    search = ("username",)
    operations = {
        "list": Operation("users.read", since="1.0.0", many=True, summary="List users"),
        "create": Operation("users.change", since="1.0.0", body=NewUserBody, answers=201, summary="Add a user"),
        "retrieve": Operation("users.read", since="1.0.0", summary="Show a user"),
        "update": Operation("users.change", since="1.0.0", body=UserBody, summary="Change a user"),
        "destroy": Operation(
            "users.delete", since="1.0.0", answers=204, content=False,
            summary="Delete a user with accounts, policies and backup records; snapshots stay in AWS",
        ),
        "reset_password": Operation(
            "users.reset_password", since="1.0.0", body=PasswordBody, answers=201, content=False,
            summary="Give a user a new password",
        ),
    }  # fmt: skip

    def narrow(self, queryset: Rows) -> Rows:
        return queryset.annotate(**{f"by_{name}": value for name, value in ORDERED.items()})

    def create(self, request: Request) -> HttpResponseBase:
        body = self.body()
        profile = body.pop(PROFILE)
        role = Role.MANAGED if profile.pop("is_managed_user", False) else Role.INDEPENDENT
        with blamed_in_profile():
            made = users.create(actor=self.actor, role=role, **body, **profile)
        return self.show(made.pk)

    def update(self, request: Request, id: int) -> HttpResponseBase:
        found = self.find(id)
        body = self.body_for_root() if found.role == Role.ROOT else self.body()
        profile = body.pop(PROFILE, {})
        if "is_managed_user" in profile:
            profile["role"] = Role.MANAGED if profile.pop("is_managed_user") else Role.INDEPENDENT
        with blamed_in_profile():
            users.update(actor=self.actor, user=found, **body, **profile)
        return self.show(id)

    def body_for_root(self) -> dict[str, Any]:
        serializer = RootBody(data=self.request.data)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)


class OwnPassword(Endpoint):
    """The caller's own password."""

    operations = {
        "change": Operation(
            "users.change_own_password", since="1.0.0", body=OwnPasswordBody, answers=201, content=False,
            summary="Change one's own password; tokens obtained before end",
        ),
    }  # fmt: skip

    def change(self, request: Request) -> Response:
        users.change_own_password(actor=self.actor, now=timezone.now(), **self.body())
        return self.done()


urlpatterns = [
    path("users/", Users.as_view({"get": "list", "post": "create"})),
    path("users/me/change_password/", OwnPassword.as_view({"post": "change"})),
    path("users/<id:id>/", Users.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})),
    path("users/<id:id>/reset_password/", Users.as_view({"post": "reset_password"})),
]
