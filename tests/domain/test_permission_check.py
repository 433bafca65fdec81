"""The check of an account's permissions, against roles of the simulated IAM."""

import json
from typing import Any

import pytest

from cpm.aws import gateway, policy_simulation
from cpm.aws.iam_policy import IamAction, policies
from cpm.flows import iam
from cpm.lib.states import Authentication
from cpm.models import Account
from cpm.services import permission_check
from cpm.services.permission_check import ConnectionCheck, Group, Outcome
from tests import factories
from tests.domain.world import DR_ACCOUNT, World
from tests.simulated_aws import DEFAULT_ACCOUNT

pytestmark = pytest.mark.django_db(transaction=True)
OPTIONAL = {one.group for name in iam.OPTIONAL["backup-account"] for one in iam.POLICIES[name]}


def with_role(
    world: World, *documents: dict[str, Any], number: str = DEFAULT_ACCOUNT, path: str = "/", **fields: Any
) -> Account:
    """An account by a role that has exactly these policies."""
    client = world.aws.client("iam", account=number)
    trusting = {"Effect": "Allow", "Principal": {"AWS": DEFAULT_ACCOUNT}, "Action": "sts:AssumeRole"}
    client.create_role(RoleName="cpm", AssumeRolePolicyDocument=document(trusting), Path=path)
    attach(world, *documents, number=number)
    return factories.account(
        world.user, authentication=Authentication.ASSUME_ROLE, account_number=number,
        role_name=f"{path}cpm".lstrip("/"), assume_from_account=world.account, **fields,
    )  # fmt: skip


def attach(world: World, *documents: dict[str, Any], number: str = DEFAULT_ACCOUNT) -> None:
    client = world.aws.client("iam", account=number)
    for place, one in enumerate(documents):
        name = f"policy-{len(client.list_role_policies(RoleName='cpm')['PolicyNames'])}-{place}"
        client.put_role_policy(RoleName="cpm", PolicyName=name, PolicyDocument=json.dumps(one))


def after(*documents: dict[str, Any]) -> str:
    """The name under which a document is attached that comes after these."""
    return f"policy-{len(documents)}-{len(documents)}"


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def deployed(*names: str) -> list[dict[str, Any]]:
    """The documents of deploy/iam, as a customer attaches them."""
    return [one for name in names for one in policies(iam.POLICIES[name])]


def without(*actions: str, name: str = "backup-account") -> list[dict[str, Any]]:
    return policies([one for one in iam.POLICIES[name] if one.action not in actions])


def deny(*actions: str) -> dict[str, Any]:
    denied = {"Effect": "Deny", "Action": list(actions), "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [denied]}


def check(account: Account) -> tuple[ConnectionCheck, dict[str, Group]]:
    [found] = permission_check.check(account)
    return found, {group.name: group for group in found.groups}


def lacking(groups: dict[str, Group]) -> dict[str, Group]:
    assert all(group.outcome != Outcome.UNCHECKED for group in groups.values())
    return {name: group for name, group in groups.items() if group.outcome != Outcome.OK}


def test_policies_of_deploy_allow_all_that_is_needed(world: World) -> None:
    account = with_role(world, *deployed("backup-account"))

    found, groups = check(account)

    assert found.connection == f"ok, as arn:aws:iam::{DEFAULT_ACCOUNT}:role/cpm"
    assert set(lacking(groups)) == OPTIONAL == {name for name, group in groups.items() if group.optional}
    attach(world, *deployed(*iam.OPTIONAL["backup-account"]))
    _, groups = check(account)
    assert lacking(groups) == {}
    assert str(groups["retention"]) == "retention: ok"


def test_each_missing_action_is_named_with_a_statement_that_mends_it(world: World) -> None:
    account = with_role(world, *without("ec2:DeleteSnapshot", "ec2:CopyImage", "kms:CreateGrant"))

    _, groups = check(account)

    found = {name: group for name, group in lacking(groups).items() if not group.optional}
    assert found["retention"].missing_names == ["ec2:DeleteSnapshot"]
    assert "ec2:CopyImage" in found["dr copies"].missing_names
    assert found["encryption"].missing_names == ["kms:CreateGrant"]
    assert json.loads(found["retention"].statement) == {
        "Sid": "Retention",
        "Effect": "Allow",
        "Action": ["ec2:DeleteSnapshot"],
        "Resource": "arn:aws:ec2:*::snapshot/*",
        "Condition": {"Null": {"aws:ResourceTag/cpm_server_id": "false"}},
    }
    assert str(found["retention"]).startswith("retention: missing ec2:DeleteSnapshot; add to a policy: {")
    attach(world, *[{"Version": "2012-10-17", "Statement": group.statements} for group in found.values()])
    _, mended = check(account)
    assert set(lacking(mended)) == OPTIONAL


def test_tags_on_create_are_needed_for_each_creating_call(world: World) -> None:
    narrow = IamAction("ec2:CreateTags", "x", "y", condition={"StringEquals": {"ec2:CreateAction": "CopySnapshot"}})
    account = with_role(world, *without("ec2:CreateTags"), *policies([narrow]))

    _, groups = check(account)

    assert groups["dr copies"].missing_names == ["ec2:CreateTags"]


def test_an_explicit_deny_is_told_from_a_missing_permission(world: World) -> None:
    account = with_role(world, *deployed("backup-account"), deny("ec2:DeregisterImage"))

    _, groups = check(account)

    retention = groups["retention"]
    assert (retention.outcome, retention.missing, retention.statement) == (Outcome.LACKING, (), "")
    assert retention.denials == [f"ec2:DeregisterImage by an explicit deny in role_cpm_{after(*deployed('backup-account'))}"]
    assert "change it there" in str(retention)


def test_who_may_not_simulate_is_told_so_and_nothing_else_is_called_missing(world: World) -> None:
    account = with_role(world, *without("iam:SimulatePrincipalPolicy"))
    before = world.aws.last_call()

    found, groups = check(account)

    assert "the permissions could not be checked" in found.connection
    assert "iam:SimulatePrincipalPolicy is missing" in found.connection
    own = groups.pop("permission check")
    assert own.missing_names == ["iam:SimulatePrincipalPolicy"]
    assert json.loads(own.statement)["Resource"] == f"arn:aws:iam::{DEFAULT_ACCOUNT}:role/cpm"
    assert {group.outcome for group in groups.values()} == {Outcome.UNCHECKED}
    assert str(groups["retention"]) == "retention: not checked"
    assert world.aws.count(before)["by_action"]["iam:SimulatePrincipalPolicy"] == 1


def test_a_simulation_forbidden_from_above_has_no_statement_that_mends_it(world: World) -> None:
    message = (
        "User: x is not authorized to perform: iam:SimulatePrincipalPolicy with an explicit deny in a service control policy"
    )
    world.aws.fault(service="iam", action="SimulatePrincipalPolicy", error="AccessDenied", message=message, status=403)

    found, groups = check(world.account)

    assert "forbidden by a service control policy" in found.connection
    assert groups["permission check"].denials == ["iam:SimulatePrincipalPolicy by a service control policy"]
    assert groups["permission check"].statement == ""


def test_trouble_that_passes_is_no_verdict(world: World) -> None:
    world.aws.fault(service="iam", action="SimulatePrincipalPolicy", error="NoSuchEntity", status=404)

    found, groups = check(world.account)

    assert "could not be checked" in found.connection and "NoSuchEntity" in found.connection
    assert {group.outcome for group in groups.values()} == {Outcome.UNCHECKED}


@pytest.mark.parametrize("case", ["secret", "number", "role", "unreadable"])
def test_without_a_connection_the_reason_is_told_and_nothing_checked(world: World, case: str) -> None:
    account = world.account
    if case == "secret":
        world.aws.control("POST", "/keys/revoke", {"access_key": account.access_key})
    elif case == "number":
        account.account_number = "999999999999"
    elif case == "role":
        world.aws.control("POST", "/accounts", {"account_number": DR_ACCOUNT, "roles_must_exist": True})
        account = factories.account(world.user, account_number=DR_ACCOUNT, assume_from_account=world.account)
    else:
        account.secret_key = "nonsense"

    found, groups = check(account)

    said = {
        "secret": "AWS does not accept these credentials", "number": f"credentials of account {DEFAULT_ACCOUNT}",
        "role": "sts:AssumeRole", "unreadable": "failed: ",
    }[case]  # fmt: skip
    assert found.connection.startswith("failed: ") and said in found.connection
    assert groups and {group.outcome for group in groups.values()} == {Outcome.UNCHECKED}


def test_root_of_an_account_cannot_be_checked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"arn:aws:iam::{DEFAULT_ACCOUNT}:root"
    monkeypatch.setattr(gateway, "caller_arn", lambda identity: root)

    found, groups = check(world.account)

    assert found.connection == f"ok, as {root}, but IAM can check the permissions of users and roles only"
    assert {group.outcome for group in groups.values()} == {Outcome.UNCHECKED}


@pytest.mark.parametrize(("deleting", "policy"), [(True, "dr-account"), (False, "dr-account-no-delete")])
def test_a_dr_account_needs_what_its_policy_has(world: World, deleting: bool, policy: str) -> None:
    account = with_role(
        world, *deployed(policy), number=DR_ACCOUNT, is_dr_account=True, allow_deleting_snapshots=deleting
    )

    found, groups = check(account)

    assert DR_ACCOUNT in found.connection and found.account_number == DR_ACCOUNT
    assert [name for name, group in lacking(groups).items() if not group.optional] == []
    assert {"dr copies", "encryption"} <= set(groups) and not {"backup", "server data"} & set(groups)
    assert ("retention" in groups) == deleting


def test_s3_is_needed_in_the_buckets_of_the_repositories(world: World) -> None:
    account = with_role(world, *deployed("backup-account", "optional-s3-repositories"))
    factories.s3_repository(account, "ours")
    document = json.loads(json.dumps(deployed("optional-s3-repositories")[0]).replace(":s3:::*", ":s3:::others"))
    world.aws.client("iam").put_role_policy(
        RoleName="cpm", PolicyName=after(*deployed("backup-account")), PolicyDocument=json.dumps(document)
    )

    _, groups = check(account)

    assert "s3:PutObject" in groups["s3 repositories"].missing_names
    assert "arn:aws:s3:::ours/cpm/*" in groups["s3 repositories"].statement


def test_the_path_of_a_role_is_kept(world: World) -> None:
    account = with_role(world, *deployed("backup-account"), path="/team/")

    found, groups = check(account)

    assert found.connection.endswith(":role/team/cpm")
    assert groups["retention"].outcome == Outcome.OK


def test_actions_that_cannot_be_asked_about_together_are_asked_apart(world: World) -> None:
    world.aws.fault(service="iam", action="SimulatePrincipalPolicy", error="InvalidInput", count=2)

    found, groups = check(world.account)

    assert found.connection.startswith("ok, as ") and lacking(groups) == {}


def test_a_check_takes_one_call_for_all_actions_with_the_same_bounds(world: World) -> None:
    needed = [*iam.POLICIES["backup-account"], *(one for name in iam.OPTIONAL["backup-account"] for one in iam.POLICIES[name])]
    before = world.aws.last_call()

    check(world.account)

    made = world.aws.count(before)["by_action"]
    assert made["sts:GetCallerIdentity"] == 1
    assert made["iam:SimulatePrincipalPolicy"] <= 60 < len(needed) / 4


def test_every_declaration_can_be_asked_about() -> None:
    place = policy_simulation._Place("aws", DEFAULT_ACCOUNT, "us-east-1", "server")

    for action in iam.ACTIONS:
        questions = list(policy_simulation._questions(action, place))
        assert questions, action
        assert not any("*" in text or "{" in text for one in questions for text in one.resources), action
