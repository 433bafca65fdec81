"""A deleted user takes along what it owns, in the database; nothing of anybody else, and nothing in AWS."""

import threading
from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.db import connection, connections, models, transaction
from django.db.models import ProtectedError

from cpm.jobs import queue
from cpm.jobs.kinds import StepSpec
from cpm.lib import errors
from cpm.lib.states import JobState, Role, SnapshotKind
from cpm.models import (
    Account,
    Actor,
    AuditRecord,
    Backup,
    BackupTally,
    EmailIdentity,
    Job,
    LogLine,
    Notification,
    Policy,
    Recovery,
    Snapshot,
    Step,
    StoredAnswer,
    User,
)
from cpm.services import backup_tally, user_deletion
from tests import factories
from tests.factories import NOW

# Groups and permissions of Django, which nobody has here; they go all the same.
DJANGO_S = {User.groups.through, User.user_permissions.through}
KEPT = {"AuditRecord", "AuditSeal", "BackupTally", "UsageRecord"}


def root() -> Actor:
    return Actor.of(factories.root())


def job(user: User, state: JobState = JobState.SUCCEEDED) -> Job:
    spec = queue.JobSpec("backup", "backup", 1, [StepSpec("one")], user_id=user.pk)
    with transaction.atomic():
        made = queue.create_jobs([spec], engine_queues={"one": "backup"})[0]
    Job.objects.filter(pk=made.pk).update(state=state)
    return made


def belongings(user: User) -> None:
    """Something of everything that a user can own."""
    account = factories.account(user)
    dr = factories.account(user, is_dr_account=True, assume_from_account=account)
    schedule = factories.schedule(user)
    factories.disable_time(schedule)
    policy = factories.policy(account, (schedule,), dr_account=dr)
    policy.custom_tags.create(tag_name="a", tag_value="b")
    target = factories.target(policy)
    factories.target_volume(target)
    backup = factories.backup(policy)
    factories.backup(policy, retry_of=backup, start_time=NOW + timedelta(hours=1))
    factories.script_log(backup)
    instance = factories.snapshot(backup, SnapshotKind.INSTANCE, target=target)
    volume = factories.snapshot(backup, parent=instance)
    factories.snapshot(backup, SnapshotKind.DR_VOLUME, original=volume, account=dr)
    recovery = factories.recovery(volume)
    # Users with repositories are not deleted; what was copied to one that is gone knows none.
    factories.s3_copy(volume, repository=None)
    factories.alert(user, policy=policy)
    factories.api_key(user)
    Notification.objects.create(user=user, authentication="C", account=account, region="us-east-1")
    StoredAnswer.objects.create(user=user, key="k", path="/", body_hash="h", created_at=NOW)
    LogEntry.objects.create(user=user, action_flag=1, object_repr="x")
    step = Step.objects.get(job=job(user))
    logged = {"backup": backup, "recovery": recovery, "cleanup": user, "s3_cleanup": policy, "archive": policy}
    for subject, row in logged.items():
        factories.log_line(subject, row.pk, step=step)
    factories.user().applied_managed_users.add(user)
    user.applied_managed_users.add(factories.user(Role.MANAGED))


def rows_left() -> dict[str, int]:
    """How many rows each table has, but for those that outlive users."""
    found = apps.get_app_config("cpm").get_models(include_auto_created=True)
    return {model.__name__: model._default_manager.count() for model in found if model.__name__ not in KEPT}


@pytest.mark.django_db
def test_everything_goes_and_nothing_of_others():
    other, user = factories.user(), factories.user()
    factories.root()
    belongings(other)
    before = rows_left()
    belongings(user)

    user_deletion.delete(actor=root(), user=user)

    connection.check_constraints()
    # Two users came along, the one that looked after the deleted one and the one it looked after; one is gone.
    assert rows_left() == {**before, "User": before["User"] + 1}
    assert not User.objects.filter(pk=user.pk).exists()
    assert Snapshot.objects.filter(backup__user=other).count() == 3


@pytest.mark.django_db
def test_all_that_refers_to_a_user_is_known():
    """A new model that belongs to users is deleted with them; this names one that would stop a deletion."""
    seen: set[type[models.Model]] = {User}
    waiting: list[type[models.Model]] = [User]
    while waiting:
        model = waiting.pop()
        for relation in user_deletion._relations_to(model):
            if relation.on_delete is models.CASCADE and relation.related_model not in seen:
                seen.add(relation.related_model)
                waiting.append(relation.related_model)
    unknown = seen - {model for model, _ in user_deletion.BELONGINGS} - {User} - DJANGO_S

    assert not unknown, f"{unknown} should stand in user_deletion.BELONGINGS"


@pytest.mark.django_db
def test_the_deletion_is_recorded_and_records_stay():
    user = factories.user(username="anna")
    actor = root()

    user_deletion.delete(actor=actor, user=user)

    record = AuditRecord.objects.get(event_type="user.deleted")
    assert (record.subject_id, record.username) == (user.pk, actor.user.username)
    assert record.before["username"] == "anna"
    assert "password" not in record.before or record.before["password"] == "…"


@pytest.mark.django_db
def test_backups_are_no_longer_counted():
    policy = factories.policy()
    for _ in range(3):
        factories.backup(policy)
    assert backup_tally.count(users=[policy.user_id]) == 3

    user_deletion.delete(actor=root(), user=policy.user)
    backup_tally.fold()

    assert backup_tally.count(users=[policy.user_id]) == 0
    assert not BackupTally.objects.filter(user_id=policy.user_id).exists()


@pytest.mark.django_db
@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
def test_while_a_job_runs_nothing_is_deleted(state):
    user = factories.user()
    factories.policy(factories.account(user))
    job(user, state)

    with pytest.raises(errors.PreconditionFailed) as refused:
        user_deletion.delete(actor=root(), user=user)

    assert refused.value.error_code() == "jobs_running"
    assert "1 job of" in str(refused.value) and "backup" in str(refused.value)
    assert Policy.objects.filter(user=user).exists()


@pytest.mark.django_db
def test_users_with_repositories_stay():
    """Nobody could read what is in them without the key in the row."""
    owner = factories.user()
    row = factories.s3_repository(factories.account(owner))

    with pytest.raises(errors.NotAllowed, match=row.name):
        user_deletion.delete(actor=root(), user=owner)
    row.delete()
    user_deletion.delete(actor=root(), user=owner)

    assert not User.objects.filter(pk=owner.pk).exists()


@pytest.mark.django_db
def test_root_and_users_with_delegates_stay():
    owner = factories.user()
    factories.delegate(owner, username="deputy")

    with pytest.raises(errors.NotAllowed) as has_delegates:
        user_deletion.delete(actor=root(), user=owner)
    with pytest.raises(errors.NotFound):
        user_deletion.delete(actor=root(), user=factories.root())
    with pytest.raises(errors.PermissionDenied):
        user_deletion.delete(actor=Actor.of(owner), user=factories.user())

    assert "deputy" in str(has_delegates.value)
    assert User.objects.filter(role=Role.ROOT).exists()


@pytest.mark.django_db
def test_what_others_keep_forgets_the_user_and_what_they_need_stays():
    user, other = factories.user(), factories.user()
    theirs = factories.account(user)
    recovery = factories.recovery(
        factories.snapshot(factories.backup(factories.policy(factories.account(other))))
    )
    mine = factories.snapshot(factories.backup(factories.policy(theirs)))
    Recovery.objects.filter(pk=recovery.pk).update(snapshot=mine, backup=mine.backup, account=theirs)
    identity = EmailIdentity.objects.create(id=1, account=theirs)

    with pytest.raises(errors.InUse) as needed:
        user_deletion.delete(actor=root(), user=user)
    assert Account.objects.filter(pk=theirs.pk).exists()
    assert "email identity" in str(needed.value)
    identity.delete()
    user_deletion.delete(actor=root(), user=user)

    recovery.refresh_from_db()
    assert (recovery.backup, recovery.snapshot, recovery.account, recovery.user) == (None, None, None, other)
    connection.check_constraints()


@pytest.mark.django_db
def test_the_number_of_statements_does_not_grow_with_the_records(django_assert_max_num_queries):
    policy = factories.policy()
    for _ in range(50):
        factories.log_line("backup", factories.snapshot(factories.backup(policy)).backup_id)
    actor = root()

    with django_assert_max_num_queries(140):
        user_deletion.delete(actor=actor, user=policy.user)

    assert not Backup.objects.exists()
    assert not LogLine.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_account_that_is_added_meanwhile_is_refused_or_deleted_too():
    """Whoever comes second waits for the first, and finds the user gone or its account there."""
    user, actor = factories.user(), root()
    barrier, outcomes = threading.Barrier(2), []

    def attempt(what) -> None:
        barrier.wait()
        try:
            what()
            outcomes.append("done")
        except (errors.DomainError, User.DoesNotExist, ProtectedError) as error:
            outcomes.append(type(error).__name__)
        finally:
            connections.close_all()

    def add() -> None:
        with transaction.atomic():
            User.objects.select_for_update().get(pk=user.pk)
            factories.account(user)

    threads = [
        threading.Thread(target=attempt, args=(what,))
        for what in (lambda: user_deletion.delete(actor=actor, user=user), add)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not User.objects.filter(pk=user.pk).exists()
    assert not Account.objects.filter(user_id=user.pk).exists()
    assert "done" in outcomes
