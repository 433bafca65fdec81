"""Deleting a user with all that belongs to it: accounts, policies, schedules, and the records of backups.

What the backups made in AWS stays there, as when an account is deleted; nobody could reach it without the account's
credentials. Rows are deleted by statements over whole tables, so that a user with hundreds of thousands of records goes
in one transaction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib.admin.models import LogEntry
from django.db import models, transaction
from django.db.models import QuerySet

from cpm.lib.errors import InUse, NotAllowed, PreconditionFailed
from cpm.lib.states import JobState, Role
from cpm.models import (
    Account,
    Actor,
    Alert,
    ApiKey,
    Backup,
    CustomTag,
    DisableTime,
    ExploreSession,
    Job,
    LogLine,
    Notification,
    Policy,
    PolicySchedule,
    Recovery,
    S3Copy,
    S3Repository,
    Schedule,
    ScriptLog,
    Snapshot,
    Step,
    StoredAnswer,
    Target,
    TargetVolume,
    User,
    WorkerConfiguration,
    WorkerTag,
    WorkerTest,
)
from cpm.services import audit, users

OPEN = (JobState.QUEUED, JobState.RUNNING)
Assigned: type[models.Model] = User.applied_managed_users.through
# Whose rows go with a user, by the path to it; whatever refers to others stands before them.
BELONGINGS: Sequence[tuple[type[models.Model], str]] = (
    (Step, "job__user"), (Job, "user"), (ExploreSession, "user"), (Recovery, "user"), (ScriptLog, "backup__user"),
    (S3Copy, "backup__user"), (Snapshot, "backup__user"), (Backup, "user"), (Alert, "user"), (CustomTag, "policy__user"),
    (TargetVolume, "target__policy__user"), (Target, "policy__user"), (PolicySchedule, "policy__user"), (Policy, "user"),
    (S3Repository, "user"), (DisableTime, "schedule__user"), (PolicySchedule, "schedule__user"), (Schedule, "user"),
    (Notification, "user"), (WorkerTest, "configuration__user"), (WorkerConfiguration, "user"),
    (WorkerTag, "account__user"), (Account, "user"), (StoredAnswer, "user"), (ApiKey, "user"), (Assigned, "from_user"),
    (Assigned, "to_user"), (LogEntry, "user"),
)  # fmt: skip
# Whose log goes too: rows of this path under this subject of log lines.
LOGGED: Mapping[str, tuple[type[models.Model], str]] = {
    "backup": (Backup, "user"),
    "recovery": (Recovery, "user"),
    "explore_session": (ExploreSession, "user"),
    "cleanup": (User, "pk"),
    "s3_cleanup": (Policy, "user"),
    "archive": (Policy, "user"),
    "notification": (Notification, "user"),
    "worker_test": (WorkerTest, "configuration__user"),
}


@transaction.atomic
def delete(*, actor: Actor, user: User) -> None:
    """The user or delegate is gone, with everything it owns; its audit records and its snapshots in AWS stay.

    Raises `NotAllowed` for root and for users with delegates or S3 repositories, `PreconditionFailed` while something of theirs runs, and
    `InUse` when things of others need one of its accounts.
    """
    # In the order of everybody who adds something: policies, then users. Whoever comes later finds neither.
    list(Policy.objects.select_for_update().filter(user=user.pk).order_by("pk").values_list("pk"))
    row = users.locked(actor, "delete", user)
    if row.role == Role.ROOT:
        raise NotAllowed("root_user", "The root user cannot be deleted.")
    _refuse_delegates(row)
    _refuse_repositories(row)
    _refuse_running(row)
    noun = "delegate" if row.role == Role.DELEGATE else "user"
    audit.record(actor, f"{noun}.deleted", row, before=users.state_of(row))
    _erase(row)


def _refuse_delegates(user: User) -> None:
    names = list(user.delegates.order_by("username").values_list("username", flat=True)[:10])
    if names:
        message = f"{user.username} has delegates: {', '.join(names)}. Delete them first."
        raise NotAllowed("has_delegates", message)


def _refuse_repositories(user: User) -> None:
    """Their keys are in the database only: without them nobody could read the copies again."""
    names = list(user.s3_repositories.order_by("name").values_list("name", flat=True)[:10])
    if names:
        message = f"{user.username} has S3 repositories: {', '.join(names)}. Delete them first."
        raise NotAllowed("has_repositories", message)


def _refuse_running(user: User) -> None:
    """A job that loses its rows could neither thaw an instance nor remove what it has made so far."""
    running = Job.objects.filter(user=user.pk, state__in=OPEN).order_by("pk")
    kinds = sorted(set(running.values_list("kind", flat=True)))
    if kinds:
        count = running.count()
        message = (
            f"{count} job{'s' if count > 1 else ''} of {user.username} "
            f"({', '.join(kinds)}) must end first. Abort them or wait, then delete the user."
        )
        raise PreconditionFailed("jobs_running", message)


def _erase(user: User) -> None:
    for subject, (model, path) in LOGGED.items():
        ids = model._default_manager.filter(**{path: user.pk}).values("pk")
        _delete(LogLine.objects.filter(subject_type=subject, subject_id__in=ids))
    everything: Sequence[tuple[type[models.Model], str]] = [*BELONGINGS, (User, "pk")]
    for model, path in everything:
        rows = model._default_manager.filter(**{path: user.pk})
        _release(rows)
        _delete(rows)


def _release(rows: QuerySet[models.Model]) -> None:
    """Does to rows that refer to these what their models say. Raises `InUse` for what cannot be without them."""
    for relation in _relations_to(rows.model):
        others = relation.related_model._default_manager.filter(
            **{f"{relation.field.name}__in": rows.values("pk")}
        )
        if relation.on_delete is models.SET_NULL:
            others.update(**{relation.field.name: None})
        elif relation.on_delete is models.CASCADE:
            _release(others)
            _delete(others)
        elif users_of := [f"{relation.related_model._meta.verbose_name} {other}" for other in others[:10]]:
            raise InUse(str(rows.model._meta.verbose_name), users_of)


def _relations_to(model: type[models.Model]) -> list[Any]:
    """Foreign keys to the model, those without a name on its side too. What a row says of its own kind goes with it."""
    found = model._meta.get_fields(include_hidden=True)
    return [
        relation
        for relation in found
        if isinstance(relation, models.ManyToOneRel) and relation.related_model is not model
    ]


def _delete(rows: QuerySet[models.Model]) -> None:
    # Django's own delete() would load the rows to look for what depends on them.
    rows._raw_delete(rows.db)  # type: ignore[attr-defined]  # the stubs lack it
