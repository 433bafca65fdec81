"""SimulatePrincipalPolicy over users, roles, groups and their policies."""

import json

import pytest

from tests.contract.simulator.test_identity import ROLE, as_role, assume, trust
from tests.simulated_aws import DEFAULT_ACCOUNT, SimulatedAws

SNAPSHOT = "arn:aws:ec2:us-east-1::snapshot/snap-0123456789abcdef0"
OTHER = "210987654321"
NOBODY = f"arn:aws:iam::{DEFAULT_ACCOUNT}:role/nobody"


def document(*statements: dict) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def statement(action, effect="Allow", resource="*", **more) -> dict:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def role(aws: SimulatedAws, *statements: dict, path: str = "/") -> str:
    iam = aws.client("iam")
    arn = iam.create_role(RoleName="worker", AssumeRolePolicyDocument=trust(), Path=path)["Role"]["Arn"]
    iam.put_role_policy(RoleName="worker", PolicyName="work", PolicyDocument=document(*statements))
    return arn


def decisions(
    aws: SimulatedAws, principal: str, *actions: str, context: dict | None = None, **more
) -> list[str]:
    entries = [
        {"ContextKeyName": key, "ContextKeyType": "string", "ContextKeyValues": [value]}
        for key, value in (context or {}).items()
    ]
    answer = aws.client("iam").simulate_principal_policy(
        PolicySourceArn=principal, ActionNames=list(actions), ContextEntries=entries, **more
    )
    return [result["EvalDecision"] for result in answer["EvaluationResults"]]


def test_what_no_statement_allows_is_denied_implicitly(aws: SimulatedAws) -> None:
    """AWS: IAM User Guide, Policy evaluation logic."""
    arn = role(aws, statement(["ec2:Describe*", "EC2:createsnapshot"]))

    assert decisions(aws, arn, "ec2:DescribeVolumes", "ec2:CreateSnapshot", "ec2:DeleteSnapshot") == [
        "allowed", "allowed", "implicitDeny",
    ]  # fmt: skip


def test_explicit_deny_wins_and_names_its_policy(aws: SimulatedAws) -> None:
    """AWS: IAM User Guide, Policy evaluation logic; IAM API Reference, Statement."""
    arn = role(aws, statement("*"), statement("ec2:DeleteSnapshot", "Deny"))

    [result] = aws.client("iam").simulate_principal_policy(
        PolicySourceArn=arn, ActionNames=["ec2:DeleteSnapshot"]
    )["EvaluationResults"]

    assert result["EvalDecision"] == "explicitDeny"
    assert [one["SourcePolicyId"] for one in result["MatchedStatements"]] == ["role_worker_work"]


def test_resources_are_compared_and_each_has_a_result(aws: SimulatedAws) -> None:
    """AWS: IAM API Reference, SimulatePrincipalPolicy, ResourceArns: without any, all resources."""
    arn = role(aws, statement("ec2:DeleteSnapshot", resource="arn:aws:ec2:us-east-1::snapshot/*"))
    elsewhere = SNAPSHOT.replace("us-east-1", "eu-west-1")

    assert decisions(aws, arn, "ec2:DeleteSnapshot") == ["implicitDeny"]
    assert decisions(aws, arn, "ec2:DeleteSnapshot", ResourceArns=[SNAPSHOT, elsewhere]) == [
        "allowed",
        "implicitDeny",
    ]


def test_everything_but_what_is_named(aws: SimulatedAws) -> None:
    """AWS: IAM User Guide, JSON policy elements: NotAction, NotResource."""
    arn = role(aws, {"Effect": "Allow", "NotAction": "iam:*", "NotResource": SNAPSHOT})

    assert decisions(aws, arn, "ec2:DeleteSnapshot", "iam:GetRole") == ["allowed", "implicitDeny"]
    assert decisions(aws, arn, "ec2:DeleteSnapshot", ResourceArns=[SNAPSHOT]) == ["implicitDeny"]


@pytest.mark.parametrize(
    ("condition", "context", "decision"),
    [
        ({"Null": {"aws:ResourceTag/cpm": "false"}}, {"aws:resourcetag/cpm": "x"}, "allowed"),
        ({"Null": {"aws:ResourceTag/cpm": "false"}}, {}, "implicitDeny"),
        ({"Null": {"aws:ResourceTag/cpm": "true"}}, {}, "allowed"),
        ({"StringEquals": {"cpm:a": ["x", "y"]}}, {"cpm:a": "y"}, "allowed"),
        ({"StringEquals": {"cpm:a": "x"}}, {}, "implicitDeny"),
        ({"StringEqualsIfExists": {"cpm:a": "x"}}, {}, "allowed"),
        ({"StringNotEquals": {"cpm:a": "x"}}, {"cpm:a": "x"}, "implicitDeny"),
        ({"StringNotEquals": {"cpm:a": "x"}}, {}, "allowed"),
        ({"StringLike": {"cpm:a": "s3.*.com"}}, {"cpm:a": "s3.eu-west-1.com"}, "allowed"),
        ({"Bool": {"cpm:a": "true"}}, {"cpm:a": "True"}, "allowed"),
        (
            {"Bool": {"cpm:a": "true"}, "StringEquals": {"cpm:b": "x"}},
            {"cpm:a": "true", "cpm:b": "y"},
            "implicitDeny",
        ),
    ],
)
def test_conditions_are_weighed(aws: SimulatedAws, condition: dict, context: dict, decision: str) -> None:
    """AWS: IAM User Guide, Condition operators."""
    arn = role(aws, statement("ec2:CreateTags", Condition=condition))

    assert decisions(aws, arn, "ec2:CreateTags", context=context) == [decision]


def test_users_have_their_own_policies_managed_ones_and_those_of_their_groups(aws: SimulatedAws) -> None:
    """AWS: IAM API Reference, SimulatePrincipalPolicy, PolicySourceArn."""
    iam = aws.client("iam")
    arn = iam.create_user(UserName="robot")["User"]["Arn"]
    iam.create_group(GroupName="robots")
    iam.add_user_to_group(GroupName="robots", UserName="robot")
    iam.put_user_policy(UserName="robot", PolicyName="own", PolicyDocument=document(statement("ec2:A*")))
    iam.put_group_policy(GroupName="robots", PolicyName="all", PolicyDocument=document(statement("ec2:B*")))
    managed = iam.create_policy(PolicyName="shared", PolicyDocument=document(statement("ec2:C*")))["Policy"][
        "Arn"
    ]
    iam.attach_user_policy(UserName="robot", PolicyArn=managed)

    assert decisions(aws, arn, "ec2:AttachVolume", "ec2:BundleInstance", "ec2:CopyImage", "ec2:DeleteVolume") == [
        "allowed", "allowed", "allowed", "implicitDeny",
    ]  # fmt: skip


def test_unknown_and_unfit_principals_are_refused(aws: SimulatedAws, refused) -> None:
    """AWS: IAM API Reference, SimulatePrincipalPolicy, errors. The path belongs to the ARN of a role."""
    role(aws, statement("*"), path="/team/")

    with refused("NoSuchEntity"):
        decisions(aws, f"arn:aws:iam::{DEFAULT_ACCOUNT}:user/nobody", "ec2:CopyImage")
    with refused("NoSuchEntity"):
        decisions(aws, f"arn:aws:iam::{DEFAULT_ACCOUNT}:role/worker", "ec2:CopyImage")
    with refused("InvalidInput"):
        decisions(aws, f"arn:aws:iam::{DEFAULT_ACCOUNT}:root", "ec2:CopyImage")


def test_those_whom_nobody_gave_policies_may_do_everything(aws: SimulatedAws, refused) -> None:
    """Our own: the simulator refuses them no call either."""
    me = aws.client("sts").get_caller_identity()["Arn"]

    assert decisions(aws, me, "ec2:CopyImage") == decisions(aws, NOBODY, "ec2:CopyImage") == ["allowed"]
    aws.control("POST", "/accounts", {"account_number": DEFAULT_ACCOUNT, "roles_must_exist": True})
    with refused("NoSuchEntity"):
        decisions(aws, NOBODY, "ec2:CopyImage")


def test_who_may_not_simulate_is_refused(aws: SimulatedAws, refused) -> None:
    """AWS: IAM User Guide, Permissions required for using the policy simulator API."""
    iam = aws.client("iam", account=OTHER)
    iam.create_role(RoleName="Backup", AssumeRolePolicyDocument=trust())
    mine = as_role(aws, "iam", assume(aws)["Credentials"])

    with refused("AccessDenied"):
        mine.simulate_principal_policy(PolicySourceArn=ROLE, ActionNames=["ec2:CopyImage"])
    own = document(statement("iam:SimulatePrincipalPolicy", resource=ROLE))
    iam.put_role_policy(RoleName="Backup", PolicyName="own", PolicyDocument=own)

    answer = mine.simulate_principal_policy(PolicySourceArn=ROLE, ActionNames=["ec2:CopyImage"])
    assert answer["EvaluationResults"][0]["EvalDecision"] == "implicitDeny"


def test_results_come_in_pages(aws: SimulatedAws) -> None:
    """AWS: IAM API Reference, SimulatePrincipalPolicy, MaxItems and Marker."""
    arn = role(aws, statement("*"))
    names = [f"ec2:Action{number}" for number in range(5)]

    pages = list(
        aws.client("iam")
        .get_paginator("simulate_principal_policy")
        .paginate(PolicySourceArn=arn, ActionNames=names, PaginationConfig={"PageSize": 2})
    )

    assert len(pages) == 3
    assert [result["EvalActionName"] for page in pages for result in page["EvaluationResults"]] == names
