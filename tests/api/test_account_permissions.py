"""4.7, 4.8, 4.17 and 4.18: what CPM may do in an account."""

import csv
import io
from pathlib import Path

import pytest

from cpm.aws import gateway
from cpm.flows.identities import encrypt_secret
from cpm.lib.states import Authentication
from cpm.models import Account
from tests import factories, simulated_aws
from tests.api import facts
from tests.api.caller import Caller
from tests.simulated_aws import DEFAULT_ACCOUNT, SimulatedAws

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory):
    aws = simulated_aws.start(Path(tmp_path_factory.mktemp("aws")))
    yield aws
    aws.stop()


@pytest.fixture
def aws(running: SimulatedAws) -> SimulatedAws:
    running.reset()
    gateway.configure(gateway.GatewayConfig(endpoint_url=running.url))
    return running


def account(owner, aws: SimulatedAws, **fields) -> Account:
    access_key, secret_key = aws.credentials()
    return factories.account(
        owner, authentication=Authentication.KEYS, access_key=access_key, secret_key=encrypt_secret(secret_key),
        account_number=DEFAULT_ACCOUNT, **fields,
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "number"), [("backup", "4.7"), ("dr", "4.17")])
def test_each_connection_is_shown_with_its_groups(owner, call: Caller, aws: SimulatedAws, kind: str, number: str):
    mine = account(owner, aws, is_dr_account=kind == "dr")

    status, shown = call("GET", f"accounts/{kind}/{mine.pk}/check_aws_permissions/")

    assert status == 200
    facts.check(number, shown)
    [row] = shown
    assert (row["account_name"], row["account_number"]) == (mine.name, DEFAULT_ACCOUNT)
    assert row["connection"] == f"ok, as arn:aws:iam::{DEFAULT_ACCOUNT}:user/simulator"
    assert "encryption: ok" in row["groups"] and "s3 repositories (optional): ok" in row["groups"]
    assert ("backup: ok" in row["groups"]) == (kind == "backup")


def test_trouble_is_shown_and_not_taken_for_missing_permissions(owner, call: Caller, aws: SimulatedAws):
    mine = account(owner, aws)
    aws.fault(service="iam", action="SimulatePrincipalPolicy", error="AccessDenied", status=403)

    status, [row] = call("GET", f"accounts/backup/{mine.pk}/check_aws_permissions/")

    assert status == 200
    assert "could not be checked" in row["connection"]
    assert "backup: not checked" in row["groups"]
    assert [group.split(":")[0] for group in row["groups"] if "missing" in group] == ["permission check"]


@pytest.mark.parametrize("kind", ["backup", "dr"])
@pytest.mark.parametrize("accept", ["text/csv", "application/json"])
def test_the_download_has_a_line_for_each_group(owner, aws: SimulatedAws, kind: str, accept: str):
    mine = account(owner, aws, is_dr_account=kind == "dr")
    aws.fault(service="iam", action="SimulatePrincipalPolicy", error="AccessDenied", status=403)

    status, content = Caller(owner, accept)("GET", f"accounts/{kind}/{mine.pk}/check_aws_permissions/download/")

    assert status == 200
    lines = list(csv.DictReader(io.StringIO(content.decode())))
    assert {line["Account"] for line in lines} == {mine.name}
    by_group = {line["Group"]: line for line in lines}
    assert by_group["permission check"]["Missing actions"] == "iam:SimulatePrincipalPolicy"
    assert '"Effect": "Allow"' in by_group["permission check"]["Statement to add"]
    assert (by_group["encryption"]["Result"], by_group["encryption"]["Missing actions"]) == ("not checked", "")
    assert by_group["mail"]["Optional"] == "Yes"


def test_accounts_of_others_and_of_the_other_kind_are_not_found(owner, call: Caller, aws: SimulatedAws):
    mine, theirs = account(owner, aws), account(factories.user(), aws)

    for address in (f"accounts/dr/{mine.pk}", f"accounts/backup/{theirs.pk}"):
        for end in ("", "download/"):
            assert call("GET", f"{address}/check_aws_permissions/{end}")[0] == 404
    assert aws.count()["by_action"].get("iam:SimulatePrincipalPolicy", 0) == 0


def test_cells_cannot_become_formulas(owner, aws: SimulatedAws):
    mine = account(owner, aws)
    Account.objects.filter(pk=mine.pk).update(name="=1+1")

    _, content = Caller(owner, "text/csv")("GET", f"accounts/backup/{mine.pk}/check_aws_permissions/download/")

    assert {line["Account"] for line in csv.DictReader(io.StringIO(content.decode()))} == {"'=1+1"}
