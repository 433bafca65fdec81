"""The operator's commands: what they show, what they start, and how they refuse."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone
from typer.testing import CliRunner, Result

from cpm import cli
from cpm.commands import pictures, terminal
from cpm.jobs import queue
from cpm.jobs.kinds import StepSpec
from cpm.lib import secrets
from cpm.lib.states import BackupStatus, JobState, RecoveryStatus, SnapshotStatus, StepState
from cpm.models import Account, ApiKey, Backup, Job, LogLine, Recovery, Step
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _terminal(monkeypatch, settings):
    """A wide terminal, the servers of the tests, and nobody to wake."""
    settings.CPM_JOBS_WAKE = "cpm.jobs.queue.no_wake"
    monkeypatch.setattr(cli, "join_running_stack", lambda _: {})
    monkeypatch.setattr(terminal.console, "width", 240)
    queue._wake.cache_clear()
    factories.root()
    yield
    queue._wake.cache_clear()


def _cpm(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def _job(kind="backup", state=StepState.READY, **fields) -> Job:
    root = factories.root()
    spec = queue.JobSpec(kind, "backup", 1, [StepSpec("one"), StepSpec("two")], user_id=root.pk)
    with transaction.atomic():
        job = queue.create_jobs([spec], engine_queues={"one": "backup", "two": "backup"})[0]
    Step.objects.filter(job=job).update(state=state)
    Job.objects.filter(pk=job.pk).update(**fields)
    return job


def _root_policy(**fields):
    policy = factories.policy(factories.account(factories.root()), **fields)
    factories.target(policy)
    return policy


def test_help_names_every_command_and_loads_none():
    result = _cpm("--help")

    assert result.exit_code == 0
    for name in ("up", "policy", "backups", "recover", "jobs", "apikey", "keys"):
        assert name in result.output


@pytest.mark.parametrize("command", sorted(cli.DJANGO_COMMANDS))
def test_every_command_has_help(command):
    result = _cpm(command, "--help")

    assert result.exit_code == 0
    assert "Usage" in result.output


def test_policies_are_listed_with_their_state():
    policy = _root_policy(missed_runs=7)

    result = _cpm("policy", "list")

    assert result.exit_code == 0
    assert policy.name in result.output and policy.account.name in result.output and "7" in result.output


def test_a_policy_is_shown_with_targets_and_backups():
    policy = _root_policy()
    factories.backup(policy, status=BackupStatus.FAILED)

    result = _cpm("policy", "show", policy.name)

    assert result.exit_code == 0
    assert policy.targets.get().aws_resource_id in result.output
    assert "Backup Failed" in result.output


def test_a_policys_options_for_s3_are_changed_and_shown():
    policy = _root_policy()
    repository = factories.s3_repository(policy.account, name="main")

    changed = _cpm(
        "policy", "set-s3", policy.name, "--on", "--repository", "main", "--interval", "3", "--generations", "none",
        "--keep", "6 months", "--storage-class", "standard_ia", "--delete-snapshots", "--archive", "--archive-every",
        "1 year", "--archive-keep", "8 Months",
    )  # fmt: skip
    shown = _cpm("policy", "show", str(policy.pk))

    assert changed.exit_code == 0, changed.output
    policy.refresh_from_db()
    assert (policy.s3_enabled, policy.s3_repository, policy.s3_copy_interval) == (True, repository, 3)
    assert (policy.s3_keep_by_generations, policy.s3_keep_by_time, policy.s3_keep_time) == (False, True, 6)
    assert (policy.s3_keep_time_unit, policy.s3_storage_class, policy.s3_delete_originals) == (
        "O", "STANDARD_IA", True,
    )  # fmt: skip
    assert (policy.archive_enabled, policy.archive_every_unit, policy.archive_keep) == (True, "Y", 8)
    assert "one of 3 backups to main" in shown.output and "kept 8 months from the backup" in shown.output
    assert "bills at least 90 days" in shown.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--keep", "6 moons"], "is not a time"),
        (["--keep", "soon"], "is not a time"),
        (["--generations", "-1"], "is not a number"),
        (["--storage-class", "GLACIER"], "none of STANDARD"),
        (["--repository", "other"], "has no S3 repository other"),
        (["--on"], "Choose the repository"),
        (["--keep", "3 days"], "less than one week"),
    ],
)
def test_options_for_s3_that_make_no_sense_change_nothing(options, words):
    policy = _root_policy()

    result = _cpm("policy", "set-s3", policy.name, *options)

    policy.refresh_from_db()
    assert result.exit_code == 1 and words in result.output
    assert (policy.s3_enabled, policy.s3_keep_by_time) == (False, False)


def test_what_runs_in_s3_is_shown_and_stopped():
    policy = _root_policy(s3_enabled=True)
    factories.backup(policy, s3_copy_status="P", s3_copy_progress=40, archive_status="S")
    job = factories.s3_operation(policy, "archive")

    shown = _cpm("policy", "set-s3", policy.name)
    listed = _cpm("backups")
    stopped = _cpm("policy", "abort-s3", policy.name)

    job.refresh_from_db()
    assert "Running now: archive" in shown.output
    assert "In Progress 40 %" in listed.output and "Completed Successfully" in listed.output
    assert stopped.exit_code == 0 and job.abort_requested_at


@pytest.mark.parametrize(
    ("status", "over", "ok"),
    [("P", False, True), ("G", False, True), ("S", True, True), ("F", True, False), ("K", True, True)],
)
def test_a_watched_backup_is_over_when_its_copy_is(status, over, ok):
    backup = factories.backup(_root_policy(), s3_copy_status=status, s3_copy_progress=40)

    picture = pictures.of_backup(backup.pk)

    assert (picture.over, picture.ok) == (over, ok)
    assert [(bar.label, bar.percent) for bar in picture.bars] == [("Copy to S3", 40)]


def test_running_a_policy_starts_a_backup():
    policy = _root_policy()

    result = _cpm("policy", "run", policy.name)

    assert result.exit_code == 0
    assert Backup.objects.get(policy=policy).status == BackupStatus.INITIALIZING


def test_a_refusal_is_one_sentence_and_exit_code_1():
    policy = _root_policy(enabled=False)

    result = _cpm("policy", "run", policy.name)

    assert result.exit_code == 1
    assert "disabled" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("policy", "run", "nonsense"),
        ("jobs", "show", "999999999"),
        ("apikey", "create", "nobody"),
        ("apikey", "revoke", "999999999"),
        ("recover", "volume", "999999999", "snap-1"),
        ("policy", "list", "--user", "nobody"),
    ],
)
def test_what_does_not_exist_is_named_with_exit_code_1(arguments):
    result = _cpm(*arguments)

    assert result.exit_code == 1
    assert "There is no" in result.output or "has no snapshot" in result.output


@pytest.mark.parametrize(
    "arguments",
    [("policy", "nonsense"), ("backups", "--status", "zzz"), ("jobs", "show", "x"), ("nonsense",)],
)
def test_bad_usage_is_exit_code_2(arguments):
    assert _cpm(*arguments).exit_code == 2


def test_watching_a_run_ends_with_its_outcome(monkeypatch):
    policy = _root_policy()
    monkeypatch.setattr(terminal.time, "sleep", lambda _: _finish(policy, BackupStatus.SUCCESSFUL))

    result = _cpm("policy", "run", policy.name, "--watch")

    assert result.exit_code == 0
    assert "Backup Successful" in result.output
    assert "vol-watched" in result.output


def test_watching_a_run_that_fails_is_exit_code_1(monkeypatch):
    policy = _root_policy()
    monkeypatch.setattr(terminal.time, "sleep", lambda _: _finish(policy, BackupStatus.FAILED))

    result = _cpm("policy", "run", policy.name, "--watch")

    assert result.exit_code == 1
    assert "Backup Failed" in result.output


def _finish(policy, status) -> None:
    backup = Backup.objects.get(policy=policy)
    factories.snapshot(backup, source_id="vol-watched", status=SnapshotStatus.COMPLETED)
    Backup.objects.filter(pk=backup.pk).update(status=status)


def test_backups_are_listed_newest_first_and_filtered():
    policy = _root_policy()
    factories.backup(policy, status=BackupStatus.FAILED, outcome="AccessDenied")
    factories.backup(policy, start_time=timezone.now() - timedelta(days=9))

    result = _cpm("backups", "--status", "failed", "--policy", policy.name)

    assert result.exit_code == 0
    assert "AccessDenied" in result.output and "Backup Successful" not in result.output


def test_another_users_things_do_not_exist():
    theirs = factories.policy()
    somebody = factories.user()

    listed = _cpm("policy", "list", "--user", somebody.username)
    started = _cpm("policy", "run", theirs.name, "--user", somebody.username)

    assert theirs.name not in listed.output
    assert started.exit_code == 1 and not Backup.objects.exists()


def test_a_volume_is_recovered_from_its_record():
    snapshot = factories.snapshot(
        factories.backup(_root_policy()), capacity=1, details={"aws_resource_type": "gp3"}
    )

    result = _cpm("recover", "volume", str(snapshot.backup_id), snapshot.aws_id, "--zone", "us-east-1b")

    assert result.exit_code == 0, result.output
    recovery = Recovery.objects.get(snapshot=snapshot)
    assert recovery.status == RecoveryStatus.IN_PROGRESS
    assert recovery.request["zone"] == "us-east-1b"


def test_a_volume_is_recovered_from_s3():
    snapshot = factories.snapshot(factories.backup(_root_policy(), status="M"), status="deleted", capacity=1)
    factories.s3_copy(snapshot, tier="A", archive_class="GLACIER")
    command = ("recover", "volume", str(snapshot.backup_id), snapshot.aws_id, "--retrieval", "B", "--days-to-keep", "3")

    refused = _cpm(*command)
    result = _cpm(*command, "--from-s3")

    assert refused.exit_code == 1 and "--from-s3" in refused.output
    assert result.exit_code == 0, result.output
    recovery = Recovery.objects.get(snapshot=snapshot)
    assert recovery.from_s3
    assert recovery.request["retrieve_options"] == {"retrieval_tier": "B", "days_to_keep": 3}


def test_a_recovery_that_makes_no_sense_says_which_option():
    snapshot = factories.snapshot(factories.backup(_root_policy()), capacity=1)

    result = _cpm("recover", "volume", str(snapshot.backup_id), str(snapshot.pk), "--zone", "eu-west-1b")

    assert result.exit_code == 1
    assert "zone" in result.output and not Recovery.objects.exists()


def test_jobs_are_listed_shown_aborted_and_retried():
    job = _job()
    LogLine.objects.create(subject_type="backup", subject_id=1, message="A line of its log.")

    listed = _cpm("jobs", "--state", "queued")
    shown = _cpm("jobs", "show", str(job.pk))
    aborted = _cpm("jobs", "abort", str(job.pk))
    again = _cpm("jobs", "abort", str(job.pk))

    assert listed.exit_code == shown.exit_code == aborted.exit_code == 0
    assert str(job.pk) in listed.output and "A line of its log." in shown.output
    assert again.exit_code == 1
    job.refresh_from_db()
    assert job.abort_requested_at is not None


def test_only_a_failed_job_can_be_retried():
    failed = _job(state=StepState.FAILED)
    Job.objects.filter(pk=failed.pk).update(state=JobState.FAILED, open_steps=0)
    queued = _job()

    retried = _cpm("jobs", "retry", str(failed.pk))
    refused = _cpm("jobs", "retry", str(queued.pk))

    assert (retried.exit_code, refused.exit_code) == (0, 1)
    assert not Step.objects.filter(job=failed).exclude(state=StepState.READY).exists()


def test_following_a_finished_job_tells_how_it_ended():
    good = _job(state=StepState.SUCCEEDED)
    Job.objects.filter(pk=good.pk).update(state=JobState.SUCCEEDED)
    bad = _job(state=StepState.FAILED)
    Job.objects.filter(pk=bad.pk).update(state=JobState.FAILED)

    assert _cpm("jobs", "--follow", str(good.pk)).exit_code == 0
    assert _cpm("jobs", "--follow", str(bad.pk)).exit_code == 1


def test_an_api_key_is_printed_once_listed_by_prefix_and_revoked():
    user = factories.user()

    created = CliRunner().invoke(cli.app, ["apikey", "create", user.username, "--name", "laptop"])
    key = created.stdout.strip()
    row = ApiKey.objects.get(user=user)
    listed = _cpm("apikey", "list")
    revoked = _cpm("apikey", "revoke", str(row.pk))

    assert row.key_hash == secrets.hash_api_key(key)
    assert key not in listed.output and row.prefix in listed.output
    row.refresh_from_db()
    assert revoked.exit_code == 0 and row.revoked_at is not None


def test_keys_rotate_and_secrets_stay_readable(tmp_path, settings):
    path = tmp_path / "field-keys"
    settings.CPM_FIELD_KEYS_FILE = str(path)
    old = secrets.SecretBox(secrets.ensure_key_file(path))
    accounts = [factories.account(secret_key=old.encrypt(f"secret {n}")) for n in range(3)]

    result = _cpm("keys", "rotate")

    assert result.exit_code == 0, result.output
    new = secrets.SecretBox(secrets.load_keys(path))
    assert "3 secrets" in result.output
    for number, account in enumerate(accounts):
        stored = Account.objects.get(pk=account.pk).secret_key
        assert not new.needs_rotation(stored) and new.decrypt(stored) == f"secret {number}"


def test_tokens_of_a_user_are_ended():
    user = factories.user()

    ended = _cpm("apikey", "revoke-tokens", user.username)

    user.refresh_from_db()
    assert ended.exit_code == 0 and user.tokens_valid_from is not None
    assert _cpm("apikey", "revoke-tokens", "nobody").exit_code == 1


def test_cleanups_are_started():
    factories.s3_copy()

    nothing, in_s3 = _cpm("cleanup"), _cpm("cleanup", "--s3")

    assert (nothing.exit_code, in_s3.exit_code) == (0, 0)
    assert "cleanup" in nothing.output and "s3_cleanup of s3_cleanup" in in_s3.output
    assert set(Job.objects.values_list("kind", flat=True)) == {"cleanup", "s3_cleanup"}
