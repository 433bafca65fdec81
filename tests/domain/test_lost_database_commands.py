"""`cpm catalogue rebuild` and `cpm server restore` as an operator meets them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cpm.commands import catalogue, iam, server
from cpm.models import Backup, Policy
from tests.domain.test_catalogue import lose_database
from tests.domain.world import World

pytestmark = pytest.mark.django_db(transaction=True)


def run(app: object, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "300", "AWS_SECRET_ACCESS_KEY": "wrong"})  # type: ignore[arg-type]
    return done.exit_code, done.output


def test_catalogue_is_rebuilt_and_says_what_it_did(world: World) -> None:
    world.back_up(world.policy(world.aws.volume(), name="daily"), status="B")
    lost = lose_database(world)

    code, words = run(catalogue.app, "catalogue", "rebuild", "--account", world.account.name, "--regions", "us-east-1", "--server-id", lost)

    assert code == 0, words
    assert Backup.objects.count() == 1 and Policy.objects.get().name == "daily"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--account", "nobody"),
        ("--account", "mine", "--server-id", "nonsense"),
        ("--account", "mine", "--regions", "us-east-1", "--server-id", "00000000-0000-4000-8000-000000000000"),
    ],
)
def test_catalogue_refuses_with_one_sentence(world: World, arguments: tuple[str, ...]) -> None:
    type(world.account).objects.filter(pk=world.account.pk).update(name="mine")

    code, words = run(catalogue.app, "catalogue", "rebuild", *arguments)

    assert code == 1 and "Traceback" not in words


def test_restore_refuses_with_one_sentence(world: World, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(b"no dump at all")

    for arguments in (
        [],
        [str(tmp_path / "absent")],
        [str(nonsense)],
        ["--snapshot", "snap-0123456789abcdef0"],
        ["--snapshot", "snap-0123456789abcdef0", "--region", "us-east-1", "--access-key", "AKIAIOSFODNN7EXAMPLE"],
    ):
        code, words = run(server.app, "server", "restore", *arguments)
        assert code == 1 and "Traceback" not in words, arguments


def test_policies_are_written_where_asked(tmp_path: Path) -> None:
    code, words = run(iam.app, "iam", "write", str(tmp_path), "--partition", "aws-us-gov")

    assert code == 0, words
    assert "arn:aws-us-gov:ec2" in (tmp_path / "backup-account-1.json").read_text()
