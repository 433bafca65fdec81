"""Who may do what, and whose objects they see. The only place that knows.

`RIGHTS` has one row per right. A row says, per kind of caller, how far the right reaches, and which flags a delegate's
profile needs. Everybody who is not a delegate holds every flag, except those that a user's own profile can take away
(`USER_FLAGS`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from django.db import models
from django.db.models import QuerySet

from cpm.lib.errors import PermissionDenied
from cpm.lib.states import Role
from cpm.models import (
    Account,
    Actor,
    Alert,
    Backup,
    CustomTag,
    DisableTime,
    Notification,
    Policy,
    Recovery,
    Schedule,
    ScriptLog,
    Snapshot,
    Target,
    TargetVolume,
    User,
)

Row = TypeVar("Row", bound=models.Model)


class Caller(StrEnum):
    """Kinds of callers. A delegate of root differs from a delegate of anybody else."""

    ROOT = "root"
    INDEPENDENT = "independent"
    MANAGED = "managed"
    ROOT_DELEGATE = "root_delegate"
    DELEGATE = "delegate"


class Reach(StrEnum):
    """How far a right goes. `OWN` means a delegate's original user's objects for delegates.

    `SELF` and `OTHERS` are about user records: the caller's own, and every one but that.
    """

    NONE = "none"
    OWN = "own"
    OWN_AND_MANAGED = "own+managed"
    ALL = "all"
    OTHERS = "others"
    SELF = "self"
    SHARED = "shared"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Right:
    """One row of the table: reach per caller, and the flags that a delegate needs, all of them."""

    reach: Mapping[Caller, Reach]
    flags: tuple[str, ...] = ()


ACCOUNT_FLAGS = ("allow_backup_changes", "allow_account_changes")
BACKUP_FLAG = ("allow_backup_changes",)
RECOVERY_FLAG = ("allow_recovery",)
# Flags that a user's profile has too; a delegate holds them only if its original user does.
USER_FLAGS = frozenset({"allow_file_level_recovery", "allow_cost_explorer"})

OWN = dict.fromkeys(Caller, Reach.OWN)
ENVIRONMENT = OWN | {Caller.ROOT: Reach.OWN_AND_MANAGED}
ENVIRONMENT_AND_ROOT_DELEGATE = ENVIRONMENT | {Caller.ROOT_DELEGATE: Reach.OWN_AND_MANAGED}
SHARED = dict.fromkeys(Caller, Reach.SHARED)
ROOT_ONLY = dict.fromkeys(Caller, Reach.NONE) | {Caller.ROOT: Reach.SERVER}
ROOT_AND_ITS_DELEGATES = ROOT_ONLY | {Caller.ROOT_DELEGATE: Reach.SERVER}
ROOT_SEES_ALL = dict.fromkeys(Caller, Reach.NONE) | {Caller.ROOT: Reach.ALL}
ROOT_CHANGES_OTHERS = dict.fromkeys(Caller, Reach.NONE) | {Caller.ROOT: Reach.OTHERS}
ALL_FOR_ROOT_AND_ITS_DELEGATES = OWN | dict.fromkeys((Caller.ROOT, Caller.ROOT_DELEGATE), Reach.ALL)
NOT_FOR_DELEGATES = ENVIRONMENT | dict.fromkeys((Caller.ROOT_DELEGATE, Caller.DELEGATE), Reach.NONE)

RIGHTS: Mapping[str, Right] = {
    "accounts.change": Right(ENVIRONMENT, ACCOUNT_FLAGS),
    "accounts.read": Right(ENVIRONMENT),
    "accounts.use_server_role": Right(ROOT_AND_ITS_DELEGATES, ACCOUNT_FLAGS),
    "alerts.delete": Right(OWN, BACKUP_FLAG),
    "alerts.read": Right(OWN),
    "audit.read": Right(ROOT_SEES_ALL),
    "backups.change": Right(ENVIRONMENT, BACKUP_FLAG),
    "backups.list_snapshots": Right(ENVIRONMENT_AND_ROOT_DELEGATE),
    "backups.read": Right(ENVIRONMENT),
    "cleanup.read_log": Right(ENVIRONMENT),
    "cost_explorer.change": Right(ROOT_AND_ITS_DELEGATES, ("allow_settings_changes",)),
    "cost_explorer.read_settings": Right(ROOT_AND_ITS_DELEGATES),
    "dashboards.read": Right(ENVIRONMENT),
    "delegates.change": Right(ROOT_SEES_ALL),
    "delegates.read": Right(ROOT_SEES_ALL),
    "delegates.reset_password": Right(ROOT_CHANGES_OTHERS),
    "lookups.read": Right(SHARED),
    "notifications.change": Right(NOT_FOR_DELEGATES),
    "notifications.read": Right(NOT_FOR_DELEGATES),
    "policies.change": Right(ENVIRONMENT, BACKUP_FLAG),
    "policies.protect_server": Right(ROOT_ONLY),
    "policies.read": Right(ENVIRONMENT),
    "policies.run": Right(ENVIRONMENT, BACKUP_FLAG),
    "recoveries.delete": Right(ENVIRONMENT, RECOVERY_FLAG),
    "recoveries.read": Right(ENVIRONMENT),
    "recoveries.start": Right(ENVIRONMENT, RECOVERY_FLAG),
    "reports.backups": Right(ENVIRONMENT_AND_ROOT_DELEGATE),
    "reports.protected_resources": Right(ALL_FOR_ROOT_AND_ITS_DELEGATES),
    "reports.snapshots": Right(ENVIRONMENT_AND_ROOT_DELEGATE),
    "reports.usage": Right(ALL_FOR_ROOT_AND_ITS_DELEGATES),
    "reports.usage_anonymized": Right(ROOT_SEES_ALL | {Caller.ROOT_DELEGATE: Reach.ALL}),
    "schedules.change": Right(ENVIRONMENT, BACKUP_FLAG),
    "schedules.read": Right(ENVIRONMENT),
    "schedules.read_run_times": Right(ENVIRONMENT, BACKUP_FLAG),
    "settings.change": Right(ROOT_ONLY),
    "settings.read": Right(ROOT_ONLY),
    "support_logs.read": Right(ROOT_AND_ITS_DELEGATES),
    "users.change": Right(ROOT_SEES_ALL),
    "users.change_own_password": Right(dict.fromkeys(Caller, Reach.SELF)),
    "users.delete": Right(ROOT_CHANGES_OTHERS),
    "users.read": Right(ROOT_SEES_ALL),
    "users.reset_password": Right(ROOT_CHANGES_OTHERS),
}

# Where the owner of a row is found.
OWNER: Mapping[type[models.Model], str] = {
    Account: "user",
    Alert: "user",
    Backup: "user",
    CustomTag: "policy__user",
    DisableTime: "schedule__user",
    Notification: "user",
    Policy: "user",
    Recovery: "user",
    Schedule: "user",
    ScriptLog: "backup__user",
    Snapshot: "backup__user",
    Target: "policy__user",
    TargetVolume: "target__policy__user",
}


def caller_of(user: User) -> Caller:
    if user.role == Role.DELEGATE:
        return Caller.ROOT_DELEGATE if user.environment.role == Role.ROOT else Caller.DELEGATE
    return Caller(user.role)


def holds(user: User, flag: str) -> bool:
    """Whether a flag is granted: delegates need it in their profile, others only where profiles have it."""
    if flag in USER_FLAGS and not getattr(user.environment, flag):
        return False
    return user.role != Role.DELEGATE or flag in USER_FLAGS or bool(getattr(user, flag))


def allowed(user: User, right: str) -> bool:
    row = RIGHTS[right]
    return row.reach[caller_of(user)] != Reach.NONE and all(holds(user, flag) for flag in row.flags)


def require(actor: Actor, right: str) -> None:
    """Raises `PermissionDenied` unless the actor's user holds the right."""
    if not allowed(actor.user, right):
        raise PermissionDenied(right)


def owners(user: User, right: str = "backups.read") -> list[int]:
    """Ids of the users whose objects the right reaches, the caller's environment first.

    One query for callers that reach managed users, none for anybody else.
    """
    own = user.environment.pk
    if RIGHTS[right].reach[caller_of(user)] != Reach.OWN_AND_MANAGED:
        return [own]
    return [own, *User.objects.filter(role=Role.MANAGED).order_by("pk").values_list("pk", flat=True)]


def visible(user: User, queryset: QuerySet[Row], right: str = "backups.read") -> QuerySet[Row]:
    """The rows of the queryset that the right lets this user reach; everything else does not exist for them."""
    return owned_by(owners(user, right), queryset)


def owned_by(ids: Sequence[int], queryset: QuerySet[Row]) -> QuerySet[Row]:
    """The rows of the queryset that belong to these users."""
    path = f"{OWNER[queryset.model]}_id"
    return queryset.filter(**{path: ids[0]}) if len(ids) == 1 else queryset.filter(**{f"{path}__in": ids})
