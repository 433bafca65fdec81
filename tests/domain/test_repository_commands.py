"""`cpm repo` and the admin page of repositories, against the simulated AWS."""

from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from typer.testing import CliRunner, Result

from cpm import cli
from cpm.commands import terminal
from cpm.lib.states import VerifyResult
from cpm.models import Job, S3Repository
from cpm.services import repositories
from tests import factories
from tests.domain.world import World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]
BUCKET = "backups-of-commands"


@pytest.fixture
def row(world: World, monkeypatch: pytest.MonkeyPatch) -> S3Repository:
    monkeypatch.setattr(cli, "join_running_stack", lambda _: {})
    monkeypatch.setattr(terminal.console, "width", 240)
    world.region_id("us-east-1")
    factories.bucket(world.aws, BUCKET)
    return repositories.create(
        actor=world.actor,
        account=world.account.pk,
        name="main",
        aws_bucket_name=BUCKET,
        aws_region="us-east-1",
    )


def cpm(*arguments: str, **more: str) -> Result:
    return CliRunner().invoke(cli.app, ["repo", *arguments], **more)


def test_repositories_are_listed_and_verified(world: World, row: S3Repository) -> None:
    verified = cpm("verify", "main", "--depth", "full")
    listed = cpm("list")

    assert verified.exit_code == 0 and "0 copies are sound" in verified.output, verified.output
    assert all(word in listed.output for word in ("main", BUCKET, "us-east-1", "Sound"))


def test_damage_is_shown_and_ends_with_1(world: World, row: S3Repository) -> None:
    world.aws.client("s3").put_object(Bucket=BUCKET, Key=f"{row.prefix}copies/abc", Body=b"nonsense")

    result = cpm("verify", str(row.pk))

    row.refresh_from_db()
    assert (
        result.exit_code == 1 and "copies/abc" in result.output and "is damaged: 1 objects" in result.output
    )
    assert row.last_verify_result == VerifyResult.DAMAGED


def test_what_cannot_be_is_refused_with_words(world: World, row: S3Repository) -> None:
    unknown, deep = cpm("verify", "nothing"), cpm("verify", "main", "--depth", "deeper")
    world.aws.fault(service="s3", action="GetObject", error="AccessDenied", status=403)
    denied = cpm("verify", "main")

    assert (unknown.exit_code, deep.exit_code, denied.exit_code) == (1, 1, 1)
    assert "There is no S3 repository nothing." in unknown.output and "list, sample or full" in deep.output
    assert "s3:GetObject" in denied.output and "Traceback" not in denied.output


def test_keys_are_added_listed_rotated_and_removed(world: World, row: S3Repository, tmp_path: Path) -> None:
    secret = "horse battery staple"  # of a repository that only tests see
    added = cpm("key", "add", "main", "--name", "safe", input=f"{secret}\n{secret}\n")
    slot = added.output.split("Key slot ")[1].split()[0]
    (tmp_path / "key").write_bytes(bytes(range(32)))
    rotated = cpm("key", "rotate", "main", slot, "--key-file", str(tmp_path / "key"))
    own = cpm("key", "rotate", "main")
    listed = cpm("key", "list", "main")
    after = rotated.output.split("Key slot ")[1].split()[0]
    removed = cpm("key", "remove", "main", after)
    server = own.output.split("Key slot ")[1].split()[0]
    kept = cpm("key", "remove", "main", server)

    assert [r.exit_code for r in (added, rotated, own, listed, removed, kept)] == [0, 0, 0, 0, 0, 1]
    assert all(word in listed.output for word in ("safe", "raw key", "server", after, server))
    assert slot not in listed.output and secret not in added.output
    assert "server's own" in kept.output
    assert cpm("verify", "main").exit_code == 0


def test_short_passwords_are_refused(world: World, row: S3Repository) -> None:
    result = cpm("key", "add", "main", input="short\nshort\n")

    assert result.exit_code == 1 and "at least 8" in result.output


def test_the_admin_shows_no_key_and_starts_a_verification(world: World, row: S3Repository) -> None:
    client = Client()
    client.force_login(world.user)
    page = reverse("admin:cpm_s3repository_change", args=[row.pk])
    address = reverse("admin:cpm_s3repository_verify", args=[row.pk])

    shown = client.get(page).content.decode()
    listed = client.get(reverse("admin:cpm_s3repository_changelist"))
    assert listed.status_code == 200 and "Damaged" in listed.content.decode()
    asked = client.get(address)
    assert asked.status_code == 200 and not Job.objects.exists()
    answered = client.post(address, {"depth": "sample"})
    world.run()

    row.refresh_from_db()
    assert BUCKET in shown and row.secret not in shown
    assert answered.status_code == 302 and row.last_verify_result == VerifyResult.SOUND
    assert row.last_verify_depth == "sample"
