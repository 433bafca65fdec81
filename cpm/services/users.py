"""People and programs that may log in."""

import secrets
from typing import TypedDict, Unpack

import structlog
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from cpm import permissions
from cpm.lib.errors import Conflict, ValidationFailed
from cpm.lib.states import Role
from cpm.models import Actor, User

log = structlog.get_logger(__name__)


class Profile(TypedDict, total=False):
    """What a user may do, and how much. A limit of None is no limit."""

    email: str
    allow_account_changes: bool
    allow_backup_changes: bool
    allow_recovery: bool
    allow_settings_changes: bool
    allow_file_level_recovery: bool
    allow_cost_explorer: bool
    max_accounts: int | None
    max_instances: int | None
    max_independent_ebs_gib: int | None


@transaction.atomic
def ensure_root(*, username: str, password: str | None = None) -> tuple[User, str]:
    """The root user and a password that works now.

    Safe to call at every start. A given password is set unless it is the current one already; without one a
    new password is made up each time, because the current one cannot be read. An existing root keeps its name.
    """
    root = User.objects.select_for_update().filter(role=Role.ROOT).first()
    if root is None:
        root = User(username=username, role=Role.ROOT, is_superuser=True)
        log.info("root user created", username=username)
    working = password or secrets.token_urlsafe(18)
    if root.pk is None or not root.check_password(working):
        root.set_password(working)
        root.save()
    return root, working


@transaction.atomic
def create(
    *,
    actor: Actor,
    username: str,
    password: str,
    role: Role,
    original_user: User | None = None,
    **profile: Unpack[Profile],
) -> User:
    """A new user. Only root may do this; there is one root, and a delegate needs a user to act for."""
    permissions.require(actor, "users.change")
    _check_role(role, original_user)
    user = User(username=username, role=role, original_user=original_user, **profile)
    _check_password(password, user)
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError as error:
        raise Conflict("unique", "There is a user with this name already.", field="username") from error
    log.info("user created", user=user.pk, role=role, by=actor.user.pk)
    return user


@transaction.atomic
def set_password(*, actor: Actor, user: User, password: str) -> None:
    """A new password for the actor itself, or for anybody by root."""
    if actor.user.pk != user.pk:
        permissions.require(actor, "users.change")
    _check_password(password, user)
    user.set_password(password)
    user.save(update_fields=["password"])
    log.info("password changed", user=user.pk, by=actor.user.pk)


def _check_role(role: Role, original_user: User | None) -> None:
    if role == Role.ROOT:
        raise ValidationFailed.one("role", "There is one root user, made when the server is set up.")
    if role == Role.DELEGATE and original_user is None:
        raise ValidationFailed.one("original_user", "A delegate needs the user to act for.", "required")
    if original_user is not None and (role != Role.DELEGATE or original_user.role == Role.DELEGATE):
        raise ValidationFailed.one(
            "original_user", "Only a delegate acts for a user, and not for a delegate."
        )


def _check_password(password: str, user: User) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise ValidationFailed(
            {"password": [(" ".join(each.messages), each.code or "invalid") for each in error.error_list]}
        ) from error
