"""What users and delegates share: records of people, counted and found alike, and answers that blame their profile."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api import serializers as shapes
from api.fields import Fields, Integer, Object, Text
from api.views import Records, Rows
from cpm.lib.errors import NotFound, ValidationFailed
from cpm.models import Account, Backup, Policy, User
from cpm.services import user_deletion, users

PROFILE = "profile"
# Fields of the bodies that stand beside the profile.
OUTSIDE = frozenset({"username", "password", "email", PROFILE})


def number_of(rows: QuerySet[Any], owner: str) -> Coalesce:
    """How many of the rows name the person as their `owner`."""
    counted = (
        rows.filter(**{owner: OuterRef("pk")}).order_by().values(owner).annotate(n=Count("*")).values("n")
    )
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)


NUM_ACCOUNTS = number_of(Account.objects.all(), "user")
NUM_POLICIES = number_of(Policy.objects.all(), "user")
NUM_FROZEN = number_of(Backup.objects.filter(is_freezer_item=True), "user")


def person_fields(profile: Object) -> Fields:
    """What an answer tells of a person."""
    return Fields(
        email=Text("email"),
        id=Integer("id"),
        num_accounts=Integer(NUM_ACCOUNTS),
        num_frozen_items=Integer(NUM_FROZEN),
        num_policies=Integer(NUM_POLICIES),
        profile=profile,
        user_type=Text("role"),
        username=Text("username"),
    )


def password(text: str) -> serializers.CharField:
    return serializers.CharField(max_length=users.LONGEST_PASSWORD, trim_whitespace=False, help_text=text)


class PersonBody(shapes.Body):
    """What may be changed of a person."""

    email = serializers.EmailField(
        required=False, allow_blank=True, max_length=254, help_text="Where to write to the person."
    )


class NewPersonBody(PersonBody):
    password = password("The first password. It is stored as a hash.")
    username = shapes.Name(help_text="Letters, digits, underscores and dashes.")


class PasswordBody(shapes.Body):
    new_password = password("The password from now on.")


@contextmanager
def blamed_in_profile() -> Iterator[None]:
    """Errors about fields of the profile name them as clients sent them: `profile.max_accounts`."""
    try:
        yield
    except ValidationFailed as error:
        raise ValidationFailed({_sent_as(name): pairs for name, pairs in error.errors.items()}) from error
    except NotFound as error:
        error.field = _sent_as(error.field) if error.field else None
        raise


def _sent_as(name: str) -> str:
    if name in OUTSIDE:
        return name
    return f"{PROFILE}.{'is_managed_user' if name == 'role' else name}"


class People(Records):
    """Records of people. Subclasses say which and what is in their profiles."""

    model = User

    def scoped(self, queryset: Rows) -> Rows:
        assert self.operation.right, "nobody reaches people without a right"
        return users.reachable(cast(User, self.request.user), self.operation.right, queryset)

    def destroy(self, request: Request, id: int) -> Response:
        user_deletion.delete(actor=self.actor, user=self.find(id))
        return self.done()

    def reset_password(self, request: Request, id: int) -> Response:
        found = self.find(id)
        users.reset_password(
            actor=self.actor,
            user=found,
            password=self.body()["new_password"],
            now=timezone.now(),
            field="new_password",
        )
        return self.done()
