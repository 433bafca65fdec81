"""People and programs that may log in: who they are, what they may do, and their passwords."""

import secrets
from collections import defaultdict
from datetime import datetime
from typing import Any, TypedDict, Unpack

import structlog
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from cpm import permissions
from cpm.lib.errors import Conflict, NotAllowed, NotFound, ValidationFailed
from cpm.lib.names import Problem, name_problems
from cpm.lib.states import Role
from cpm.models import Actor, User
from cpm.permissions import Reach
from cpm.services import attempts, audit, scope

log = structlog.get_logger(__name__)

CHANGE_OWN = "users.change_own_password"
LONGEST_PASSWORD = 1024
USER_FLAGS = ("allow_cost_explorer", "allow_file_level_recovery")
DELEGATE_FLAGS = (
    "allow_account_changes", "allow_backup_changes", "allow_recovery", "allow_settings_changes",
)  # fmt: skip
LIMITS = (
    "max_accounts", "max_controlled_entities", "max_dynamodb_gib", "max_independent_ebs_gib", "max_instances",
    "max_rds_gib", "max_redshift_gib",
)  # fmt: skip
_COLUMNS = ("email", *USER_FLAGS, *DELEGATE_FLAGS, *LIMITS)


class Profile(TypedDict, total=False):
    """What a user may do, and how much. A limit of None is no limit; `applied_managed_users` are ids.

    Users have the first block, delegates the second.
    """

    allow_file_level_recovery: bool
    allow_cost_explorer: bool
    max_accounts: int | None
    max_instances: int | None
    max_independent_ebs_gib: int | None
    max_rds_gib: int | None
    max_redshift_gib: int | None
    max_dynamodb_gib: int | None
    max_controlled_entities: int | None
    applied_managed_users: list[int]

    allow_account_changes: bool
    allow_backup_changes: bool
    allow_recovery: bool
    allow_settings_changes: bool

    email: str


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
    attempts.forget(root.username)
    return root, working


def right_to(verb: str, role: str) -> str:
    """The right for doing something to users of that role: delegates have rights of their own."""
    noun = "delegates" if role == Role.DELEGATE else "users"
    return f"{noun}.change" if role == Role.DELEGATE and verb == "delete" else f"{noun}.{verb}"


def reachable(user: User, right: str, rows: QuerySet[User]) -> QuerySet[User]:
    """Those of the user records that the right lets this user reach: for a right about delegates only delegates."""
    if right.startswith("delegates."):
        rows = rows.filter(role=Role.DELEGATE)
    elif right != CHANGE_OWN:
        rows = rows.exclude(role=Role.DELEGATE)
    reach = permissions.reach_of(user, right)
    if reach == Reach.OTHERS:
        return rows.exclude(pk=user.pk)
    if reach == Reach.SELF:
        return rows.filter(pk=user.pk)
    return rows if reach == Reach.ALL else rows.none()


@transaction.atomic
def create(
    *,
    actor: Actor,
    username: str,
    password: str,
    role: Role,
    original_user: int | None = None,
    **profile: Unpack[Profile],
) -> User:
    """A new user. Only root may do this; there is one root, and a delegate needs a user to act for.

    Raises `ValidationFailed`, `Conflict` for a name that is taken, and `NotFound` for users that do not exist.
    """
    permissions.require(actor, right_to("change", role))
    user = User(username=username, role=role, original_user=_original_user(role, original_user))
    problems: dict[str, list[Problem]] = defaultdict(list)
    problems["username"] += name_problems(username)
    _apply(user, profile, problems)
    problems["password"] += password_problems(password, user)
    if any(problems.values()):
        raise ValidationFailed(problems)
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError as error:
        raise Conflict("unique", "There is a user with this name already.", field="username") from error
    _assign(user, profile.get("applied_managed_users"))
    audit.record(actor, f"{_noun(user)}.created", user, after=state_of(user))
    return user


@transaction.atomic
def update(*, actor: Actor, user: User, role: Role | None = None, **profile: Unpack[Profile]) -> User:
    """Changes what is given; name and original user never change, and a user is managed or independent.

    Root has an e-mail address and no profile. Raises `NotAllowed` for users of an identity provider, else what
    `create` raises.
    """
    row = locked(actor, "change", user)
    require_local(row, "changed")
    if row.role == Role.ROOT and (role is not None or set(profile) - {"email"}):
        raise ValidationFailed.one("profile", "Root has no profile; leave it out.", "root_has_no_profile")
    before = state_of(row)
    if role is not None and role != row.role:
        if {role, Role(row.role)} != {Role.INDEPENDENT, Role.MANAGED}:
            raise ValidationFailed.one("role", "A user is managed or independent, and a delegate stays one.")
        row.role = role
    problems: dict[str, list[Problem]] = defaultdict(list)
    _apply(row, profile, problems)
    if any(problems.values()):
        raise ValidationFailed(problems)
    row.save()
    _assign(row, profile.get("applied_managed_users"))
    if row.role != Role.MANAGED:
        row.managing_users.clear()
    audit.record(actor, f"{_noun(row)}.updated", row, before=before, after=state_of(row))
    return row


@transaction.atomic
def set_active(*, actor: Actor, user: User, active: bool, now: datetime) -> None:
    """Lets a user in, or keeps it and its delegates out; tokens it has end for good. Root cannot be kept out."""
    row = locked(actor, "change", user)
    if row.role == Role.ROOT:
        raise NotAllowed("root_user", "The root user is always active.")
    before = state_of(row)
    row.is_active = active
    if not active:
        row.tokens_valid_from = now
    row.save(update_fields=["is_active", "tokens_valid_from"])
    audit.record(
        actor,
        f"{_noun(row)}.{'activated' if active else 'deactivated'}",
        row,
        before=before,
        after=state_of(row),
    )


@transaction.atomic
def revoke_tokens(*, actor: Actor, user: User, now: datetime) -> None:
    """Ends all tokens of the actor itself, or of anybody by root. API keys go on, and give new ones."""
    if actor.user.pk != user.pk:
        permissions.require(actor, right_to("change", user.role))
    if not User.objects.filter(pk=user.pk).update(tokens_valid_from=now):
        raise NotFound("user", user.pk)
    audit.record(actor, f"{_noun(user)}.tokens_revoked", user)


@transaction.atomic
def reset_password(
    *, actor: Actor, user: User, password: str, now: datetime, field: str = "password"
) -> None:
    """A new password for somebody else, by root; `field` is blamed for a weak one. Ends tokens and any lock-out.

    Raises `NotAllowed` for users of an identity provider, who have no password here.
    """
    row = locked(actor, "reset_password", user)
    require_local(row, "given a password")
    _store_password(row, password, now, field)
    attempts.forget(row.username)
    audit.record(actor, f"{_noun(row)}.password_reset", row)


def change_own_password(*, actor: Actor, old_password: str, new_password: str, now: datetime) -> None:
    """A new password for the actor itself, who knows the old one. Ends its tokens.

    A wrong old password is a `ValidationFailed` and counts as a failed attempt to log in, so this must be called
    outside of any transaction. Raises `TooManyAttempts`, and `NotAllowed` for users of an identity provider.
    """
    permissions.require(actor, CHANGE_OWN)
    user = actor.user
    require_local(user, "given a password")
    with attempts.counted(
        attempts.by_password(actor.source, user.username), now=now, refusals=(ValidationFailed,)
    ):
        if not user.check_password(old_password):
            raise ValidationFailed.one("old_password", "This is not the current password.", "wrong_password")
    with transaction.atomic():
        row = User.objects.select_for_update().filter(pk=user.pk).first()
        if row is None:
            raise NotFound("user", user.pk)
        _store_password(row, new_password, now, "new_password")
        audit.record(actor, f"{_noun(row)}.password_changed", row)


def password_problems(password: str, user: User) -> list[Problem]:
    """Message and code of what is wrong with a password; empty when nothing is."""
    if len(password) > LONGEST_PASSWORD:
        return [(f"A password has at most {LONGEST_PASSWORD} characters.", "max_length")]
    try:
        validate_password(password, user)
    except ValidationError as error:
        return [(" ".join(each.messages), each.code or "invalid") for each in error.error_list]
    return []


def locked(actor: Actor, verb: str, user: User) -> User:
    """The record read afresh and locked. Raises `PermissionDenied`, or `NotFound` beyond what the right reaches."""
    right = right_to(verb, user.role)
    permissions.require(actor, right)
    row = reachable(actor.user, right, User.objects.select_for_update()).filter(pk=user.pk).first()
    if row is None:
        raise NotFound(_noun(user), user.pk)
    return row


def require_local(user: User, done: str) -> None:
    """Raises `NotAllowed` for a user who logs in through an identity provider."""
    if user.domain_name:
        message = f"{user.username} logs in through an identity provider and cannot be {done} here."
        raise NotAllowed("external_user", message)


def _noun(user: User) -> str:
    return "delegate" if user.role == Role.DELEGATE else "user"


def state_of(user: User) -> audit.State:
    """What the audit log keeps of a user."""
    assigned = sorted(user.applied_managed_users.values_list("pk", flat=True))
    state = dict(audit.state_of(user, applied_managed_users=assigned))
    # Every login sets it.
    state.pop("last_login", None)
    return state


def _original_user(role: Role, original_user: int | None) -> User | None:
    if role == Role.ROOT:
        raise ValidationFailed.one("role", "There is one root user, made when the server is set up.")
    if role != Role.DELEGATE:
        if original_user is not None:
            raise ValidationFailed.one("original_user", "Only a delegate acts for a user.")
        return None
    if original_user is None:
        raise ValidationFailed.one("original_user", "A delegate needs the user to act for.", "required")
    # Locked, so that it is not deleted meanwhile.
    rows = User.objects.select_for_update()
    found = scope.referred(rows, original_user, what="user", field="original_user")
    if found.role == Role.DELEGATE:
        raise ValidationFailed.one("original_user", "A delegate cannot act for a delegate.")
    if found.domain_name:
        message = f"{found.username} logs in through an identity provider; such users have no delegates here."
        raise ValidationFailed.one("original_user", message, "external_user")
    return found


def _apply(user: User, profile: Profile, problems: dict[str, list[Problem]]) -> None:
    given: dict[str, Any] = {name: value for name, value in profile.items() if name in _COLUMNS}
    foreign = (*USER_FLAGS, *LIMITS) if user.role == Role.DELEGATE else DELEGATE_FLAGS
    for name in foreign:
        if given.pop(name, None):
            kind = "a delegate" if user.role == Role.DELEGATE else "a user who is no delegate"
            problems[name].append((f"The profile of {kind} does not have this.", "not_in_profile"))
    for name, value in given.items():
        setattr(user, name, value)
    if user.email:
        try:
            validate_email(user.email)
        except ValidationError as error:
            problems["email"] += [(message, "invalid") for message in error.messages]
    if profile.get("applied_managed_users") and user.role != Role.INDEPENDENT:
        problems["applied_managed_users"].append(
            ("Managed users are assigned to independent users only.", "not_independent")
        )


def _assign(user: User, ids: list[int] | None) -> None:
    """The managed users that an independent user looks after, instead of those before."""
    if user.role != Role.INDEPENDENT:
        user.applied_managed_users.clear()
    elif ids is not None:
        managed = User.objects.filter(role=Role.MANAGED)
        rows = scope.all_referred(managed, ids, what="managed user", field="applied_managed_users")
        user.applied_managed_users.set(rows)


def _store_password(user: User, password: str, now: datetime, field: str) -> None:
    if problems := password_problems(password, user):
        raise ValidationFailed({field: problems})
    user.set_password(password)
    user.tokens_valid_from = now
    user.save(update_fields=["password", "tokens_valid_from"])
