"""Who may do what, and whose objects they see. The only place that knows.

`RIGHTS` has one row per right. A row says, per kind of caller, how far the right reaches, and which flags a delegate's
profile needs. Everybody who is not a delegate holds every flag, except those that a user's own profile can take away
(`USER_FLAGS`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from django.conf import settings
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
    ExploreSession,
    Notification,
    Policy,
    Recovery,
    S3Copy,
    S3Repository,
    Schedule,
    ScriptLog,
    Snapshot,
    Target,
    TargetVolume,
    UsageRecord,
    User,
    WorkerConfiguration,
    WorkerTag,
    WorkerTest,
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
REPOSITORY_FLAG = ("allow_account_changes",)
BACKUP_FLAG = ("allow_backup_changes",)
RECOVERY_FLAG = ("allow_recovery",)
EXPLORE_FLAG = ("allow_file_level_recovery",)
# Flags of users' profiles, which delegates' profiles lack, and the flag that a delegate needs for each of them.
USER_FLAGS: Mapping[str, str | None] = {
    "allow_file_level_recovery": "allow_recovery",
    "allow_cost_explorer": None,
}
# Users who own things. Everybody else is a delegate.
OWNING_ROLES = (Role.ROOT, Role.INDEPENDENT, Role.MANAGED)
# Whose objects a reach adds to the caller's own.
_ROLES_REACHED: Mapping[Reach, tuple[Role, ...]] = {
    Reach.OWN_AND_MANAGED: (Role.MANAGED,),
    Reach.ALL: OWNING_ROLES,
    Reach.OTHERS: OWNING_ROLES,
}
# What root's delegates may do too where CPM_SETTINGS_BY_ROOT_DELEGATES is on.
SETTINGS_RIGHTS = frozenset({"settings.change", "settings.read"})

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
    "explore_sessions.read": Right(ENVIRONMENT),
    "explore_sessions.use": Right(ENVIRONMENT, EXPLORE_FLAG),
    "lookups.read": Right(SHARED),
    "notifications.change": Right(NOT_FOR_DELEGATES),
    "notifications.read": Right(NOT_FOR_DELEGATES),
    "notifications.use_server_role": Right(ROOT_ONLY),
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
    "s3_operations.abort": Right(ENVIRONMENT, BACKUP_FLAG),
    "s3_repositories.change": Right(ENVIRONMENT, REPOSITORY_FLAG),
    "s3_repositories.read": Right(ENVIRONMENT),
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
    "worker_tags.change": Right(ENVIRONMENT, REPOSITORY_FLAG),
    "worker_tags.read": Right(ENVIRONMENT),
    "workers.change": Right(ENVIRONMENT, REPOSITORY_FLAG),
    "workers.read": Right(ENVIRONMENT),
    "workers.test": Right(ENVIRONMENT, REPOSITORY_FLAG),
}

# Where the owner of a row is found.
OWNER: Mapping[type[models.Model], str] = {
    Account: "user",
    Alert: "user",
    Backup: "user",
    CustomTag: "policy__user",
    DisableTime: "schedule__user",
    ExploreSession: "user",
    Notification: "user",
    Policy: "user",
    Recovery: "user",
    S3Copy: "backup__user",
    S3Repository: "user",
    Schedule: "user",
    ScriptLog: "backup__user",
    Snapshot: "backup__user",
    Target: "policy__user",
    TargetVolume: "target__policy__user",
    UsageRecord: "user",
    WorkerConfiguration: "user",
    WorkerTag: "account__user",
    WorkerTest: "configuration__user",
}


def caller_of(user: User) -> Caller:
    if user.role == Role.DELEGATE:
        return Caller.ROOT_DELEGATE if user.environment.role == Role.ROOT else Caller.DELEGATE
    return Caller(user.role)


def holds(user: User, flag: str) -> bool:
    """Whether a flag is granted.

    Root holds all. Other users hold those that their profile does not take away. Delegates need it in their profile;
    a flag of users' profiles they hold with their original user, and with the flag of their own that it needs.
    """
    if flag not in USER_FLAGS:
        return user.role != Role.DELEGATE or bool(getattr(user, flag))
    environment = user.environment
    if environment.role != Role.ROOT and not getattr(environment, flag):
        return False
    needed = USER_FLAGS[flag]
    return user.role != Role.DELEGATE or needed is None or bool(getattr(user, needed))


def reach_of(user: User, right: str) -> Reach:
    """How far the right goes for this user, whatever flags it needs."""
    reach = RIGHTS[right].reach[caller_of(user)]
    if reach == Reach.NONE and right in SETTINGS_RIGHTS and _changes_settings(user):
        return RIGHTS[right].reach[Caller.ROOT]
    return reach


def _changes_settings(user: User) -> bool:
    """Whether this server lets root's delegates at its settings, and this one is such a delegate with the flag."""
    option: bool = settings.CPM_SETTINGS_BY_ROOT_DELEGATES
    return option and caller_of(user) == Caller.ROOT_DELEGATE and holds(user, "allow_settings_changes")


def allowed(user: User, right: str) -> bool:
    return reach_of(user, right) != Reach.NONE and all(holds(user, flag) for flag in RIGHTS[right].flags)


def require(actor: Actor, right: str) -> None:
    """Raises `PermissionDenied` unless the actor's user holds the right."""
    if not allowed(actor.user, right):
        raise PermissionDenied(right)


def owners(user: User, right: str = "backups.read") -> list[int]:
    """Ids of the users whose objects the right reaches, the caller's environment first.

    Delegates own nothing. Callers that came by a token brought the ids of other users along (`User.tenants`); for
    root in the admin and on the command line it is one query, and none for anybody else.
    """
    environment, reach = user.environment, reach_of(user, right)
    if reach not in _ROLES_REACHED:
        return [environment.pk]
    tenants = environment.tenants if environment.tenants is not None else _tenants()
    reached = [pk for role in _ROLES_REACHED[reach] for pk in tenants[role] if pk != environment.pk]
    return reached if reach == Reach.OTHERS else [environment.pk, *reached]


def _tenants() -> dict[str, list[int]]:
    found: dict[str, list[int]] = {role: [] for role in OWNING_ROLES}
    for pk, role in User.objects.filter(role__in=OWNING_ROLES).order_by("pk").values_list("pk", "role"):
        found[role].append(pk)
    return found


def visible(user: User, queryset: QuerySet[Row], right: str = "backups.read") -> QuerySet[Row]:
    """The rows of the queryset that the right lets this user reach; everything else does not exist for them."""
    return owned_by(owners(user, right), queryset)


def owned_by(ids: Sequence[int], queryset: QuerySet[Row]) -> QuerySet[Row]:
    """The rows of the queryset that belong to these users."""
    path = f"{OWNER[queryset.model]}_id"
    return queryset.filter(**{path: ids[0]}) if len(ids) == 1 else queryset.filter(**{f"{path}__in": ids})
