"""What operators do with databases, tables and file systems in the admin and on the command line."""

import pytest
from django.urls import reverse
from typer.testing import CliRunner

from cpm import cli
from cpm.commands import pictures, takes, terminal
from cpm.lib.states import LabelledEnum
from cpm.models import Recovery, Snapshot, Target
from cpm.resources.fields import Takes
from cpm.resources.registry import WHOLE, WHOLE_BY_KEY
from tests import factories
from tests.domain.test_admin import _quiet, client_of, list_of, page_of
from tests.domain.whole_examples import EXAMPLES, recorded
from tests.domain.whole_examples.base import REGION

__all__ = ["_quiet"]
pytestmark = pytest.mark.django_db
KEYS = [kind.key for kind in WHOLE]


class Mode(LabelledEnum):
    FAST = "F", "Fast"


FIELDS = (
    Takes("name", required=True, help="Name of the new one."), Takes("port", int), Takes("public", bool),
    Takes("storage", words=("gp2", "io1")), Takes("mode", choices=Mode), Takes("to_account", int),
)  # fmt: skip


@pytest.fixture
def policy(world):
    world.region_id(REGION)
    return world.policy()


@pytest.fixture
def cpm(monkeypatch):
    monkeypatch.setattr(cli, "join_running_stack", lambda _: {})
    monkeypatch.setattr(terminal.console, "width", 240)
    return lambda *arguments: CliRunner().invoke(cli.app, list(arguments))


def words(request: dict[str, object]) -> dict[str, object]:
    """A request as a form sends it."""
    return {name: {True: "yes", False: "no"}.get(value, value) for name, value in request.items()}


@pytest.mark.parametrize("key", KEYS)
def test_any_type_is_put_under_a_policy_and_recovered_in_the_admin(key, world, policy):
    kind, example = WHOLE_BY_KEY[key], EXAMPLES[key]
    client = client_of(world.user)
    id = example.make(world, "orders")
    form = {"kind": key, "region": REGION, **{f"{key}-{k}": v for k, v in words(example.options()).items()}}
    add = reverse("admin:cpm_policy_add_target", args=[policy.pk])

    absent = client.post(add, {**form, "resource_id": id[:-1] + "0"})
    added = client.post(add, {**form, "resource_id": id})
    row = recorded.snapshot(world, kind, Target.objects.get(), factories.backup(policy))
    recover = reverse("admin:cpm_snapshot_recover", args=[row.pk])
    asked = client.get(recover).content.decode()
    started = client.post(recover, words(example.request("orders-again")))

    assert absent.status_code == 200 and f"AWS has no {kind.noun}" in absent.content.decode()
    assert added.status_code == 302, added.content.decode()
    assert {one.name for one in kind.recover_takes} <= set(_names(asked))
    assert started.status_code == 302, started.content.decode()
    recovery = Recovery.objects.get(snapshot=row)
    assert recovery.recovery_type == kind.recovery_type
    assert example.request("orders-again").items() <= recovery.request.items()


def _names(page: str) -> list[str]:
    return [part.split('"', 1)[0] for part in page.split('name="')[1:]]


def test_what_aws_refuses_comes_back_into_the_form(world, policy):
    kind = WHOLE_BY_KEY["dynamodb_tables"]
    row = recorded.snapshot(world, kind, recorded.target(world, kind, policy, "orders"), factories.backup(policy))
    recover = reverse("admin:cpm_snapshot_recover", args=[row.pk])

    taken = client_of(world.user).post(recover, {"aws_resource_name": "orders"})

    assert taken.status_code == 200 and "There is a table orders" in taken.content.decode()
    assert not Recovery.objects.exists()


def test_the_admin_lists_snapshots_by_kind_and_recovers_no_part_of_something_else():
    root = factories.root()
    backup = factories.backup(factories.policy(factories.account(root)))
    table = factories.snapshot(backup, "dynamodb_tables", resource_type="dynamodb_tables")
    image = factories.snapshot(backup, "initial_amis")
    client = client_of(root)

    listed = client.get(f"{list_of(Snapshot)}?kind=dynamodb_tables").content.decode()
    refused = client.post(reverse("admin:cpm_snapshot_recover", args=[image.pk]))

    assert "DynamoDB table" in listed and page_of(table) in listed and page_of(image) not in listed
    assert refused.status_code == 200 and "not recovered by itself" in refused.content.decode()


@pytest.mark.parametrize("key", KEYS)
def test_any_type_is_recovered_on_the_command_line(key, world, policy, cpm):
    kind, example = WHOLE_BY_KEY[key], EXAMPLES[key]
    row = recorded.snapshot(world, kind, recorded.target(world, kind, policy, "orders"), factories.backup(policy))
    said = [text for name, value in words(example.request("again")).items() for text in ("--set", f"{name}={value}")]

    bad = cpm("recover", "resource", str(row.backup_id), row.source_id, "--set", "nonsense=1")
    started = cpm("recover", "resource", str(row.backup_id), row.source_id, *said)

    assert bad.exit_code == 1 and all(
        one.name in bad.output for one in kind.recover_takes if one.name != "to_account"
    )
    assert started.exit_code == 0, started.output
    assert example.request("again").items() <= Recovery.objects.get(snapshot=row).request.items()
    assert f"{kind.noun} {row.source_id}" in pictures.of_backup(row.backup_id).bars[0].label


def test_a_volume_is_not_recovered_as_a_resource(cpm):
    row = factories.snapshot(factories.backup(factories.policy(factories.account(factories.root()))))

    result = cpm("recover", "resource", str(row.backup_id), row.aws_id)

    assert result.exit_code == 1 and "another kind: Volume" in result.output


def test_words_become_the_values_that_fields_take():
    given = ["name=a=b", "port=5432", "public=No", "storage=IO1", "mode=f"]

    found = takes.read("database", FIELDS, given)

    assert found == {"name": "a=b", "port": 5432, "public": False, "storage": "io1", "mode": "F"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "Missing: name."), (["name"], "NAME=VALUE"), (["to_account=1", "name=x"], "a NAME that is known"),
        (["name=x", "port=high"], "port is a number"), (["name=x", "public=maybe"], "public is yes or no"),
        (["name=x", "storage=gp3"], "gp2, io1"), (["name=x", "mode=slow"], "one of F"),
    ],
)  # fmt: skip
def test_words_that_do_not_fit_are_refused_with_what_would(given, said, capsys, monkeypatch):
    monkeypatch.setattr(terminal.complaints, "width", 240)

    with pytest.raises(terminal.typer.Exit):
        takes.read("database", FIELDS, given)

    assert said in capsys.readouterr().err
