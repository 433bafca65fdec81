import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpm.aws import iam_policy
from cpm.aws.iam_policy import IamAction

SNAPSHOT = "arn:{partition}:ec2:*::snapshot/*"


def granted(documents):
    return {
        (action, json.dumps(statement["Resource"]), json.dumps(statement.get("Condition"), sort_keys=True))
        for document in documents
        for statement in document["Statement"]
        for action in statement["Action"]
    }


def size(document):
    return len(re.sub(r"\s", "", json.dumps(document)))


def test_a_delete_is_limited_to_what_carries_our_tag():
    actions = [
        IamAction("ec2:DeleteSnapshot", "retention", "Old backups.", SNAPSHOT, iam_policy.tagged_as_ours())
    ]

    [document] = iam_policy.policies(actions, partition="aws-us-gov")

    assert document["Version"] == "2012-10-17"
    assert document["Statement"] == [
        {
            "Sid": "Retention",
            "Effect": "Allow",
            "Action": ["ec2:DeleteSnapshot"],
            "Resource": "arn:aws-us-gov:ec2:*::snapshot/*",
            "Condition": {"Null": {"aws:ResourceTag/cpm_server_id": "false"}},
        }
    ]


def test_actions_with_the_same_bounds_share_a_statement_in_any_order():
    actions = [
        IamAction("ec2:DescribeVolumes", "backup", "Finds volumes."),
        IamAction("ec2:DescribeSnapshots", "backup", "Watches progress."),
        IamAction("ec2:DescribeSnapshots", "dr", "Watches copies."),
    ]

    forward, backward = iam_policy.policies(actions), iam_policy.policies(reversed(actions))

    assert forward == backward
    assert forward[0]["Statement"][0]["Action"] == ["ec2:DescribeSnapshots", "ec2:DescribeVolumes"]
    assert len(forward[0]["Statement"]) == 1


def test_a_narrow_grant_beside_an_unlimited_one_is_left_out():
    actions = [
        IamAction("ec2:CreateTags", "backup", "Marks.", SNAPSHOT),
        IamAction("ec2:CreateTags", "recovery", "Names what was recovered."),
    ]

    assert granted(iam_policy.policies(actions)) == {("ec2:CreateTags", '"*"', "null")}


names = st.integers(0, 2000).map(lambda n: f"ec2:DescribeSomethingLong{n}")
actions = st.builds(
    IamAction,
    names,
    st.sampled_from(["backup", "dr copy", "recovery"]),
    st.just("Because."),
    st.sampled_from(
        [SNAPSHOT, "arn:{partition}:ec2:*:*:volume/*", (SNAPSHOT, "arn:{partition}:ec2:*:*:volume/*")]
    ),
    st.sampled_from([None, iam_policy.tagged_as_ours(), iam_policy.tagging_as_ours()]),
)


@given(st.lists(actions, max_size=600))
def test_every_document_fits_and_together_they_grant_exactly_what_was_declared(declared):
    documents = iam_policy.policies(declared)

    assert all(size(document) <= 6144 for document in documents)
    for document in documents:
        sids = [statement["Sid"] for statement in document["Statement"]]
        assert len(sids) == len(set(sids)) and all(sid.isalnum() for sid in sids)
    wanted = {
        (
            one.action,
            json.dumps([r.format(partition="aws") for r in one.resources] if len(one.resources) > 1
                       else one.resources[0].format(partition="aws")),
            json.dumps(one.condition, sort_keys=True),
        )
        for one in declared
    }  # fmt: skip
    assert granted(documents) == wanted


@pytest.mark.parametrize("action", ["ec2:*", "ec2:Describe*", "DescribeVolumes", "*", ""])
def test_wildcards_are_no_actions(action):
    with pytest.raises(ValueError):
        IamAction(action, "backup", "Because.")


def test_an_action_without_a_reason_is_refused():
    with pytest.raises(ValueError):
        IamAction("ec2:DescribeVolumes", "backup", " ")


def test_a_statement_that_cannot_be_split_is_reported():
    resource = tuple(f"arn:aws:ec2:*:*:volume/vol-{n:017x}" for n in range(200))

    with pytest.raises(ValueError, match="ec2:DeleteVolume"):
        iam_policy.policies([IamAction("ec2:DeleteVolume", "recovery", "Because.", resource)])


def test_trust_needs_the_external_id_of_the_server_only():
    role = "arn:aws:iam::222222222222:role/Cpm"

    document = iam_policy.trust_policy("arn:aws:iam::111111111111:root", external_id="x-1", self_arn=role)

    server, own = document["Statement"]
    assert server["Condition"] == {"StringEquals": {"sts:ExternalId": "x-1"}}
    assert own["Principal"] == {"AWS": "arn:aws:iam::222222222222:root"}
    assert own["Condition"] == {"ArnEquals": {"aws:PrincipalArn": role}}


def test_the_machine_may_use_its_role():
    [statement] = iam_policy.service_trust_policy()["Statement"]

    assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}


def test_files_hold_the_policies_and_reasons_and_stale_parts_go(tmp_path):
    many = [IamAction(f"ec2:DescribeSomethingRatherLong{n}", "backup", "Because.") for n in range(400)]
    few = [IamAction("ec2:DescribeVolumes", "backup", "Finds a | volume.")]
    (tmp_path / "cpm-trust.json").write_text("{}")

    longer = iam_policy.write(tmp_path, "cpm", many)
    shorter = iam_policy.write(tmp_path, "cpm", few)

    assert len(longer) > 3
    assert [path.name for path in shorter] == ["cpm-1.json", "cpm-actions.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cpm-1.json",
        "cpm-actions.md",
        "cpm-trust.json",
    ]
    assert json.loads(shorter[0].read_text()) == iam_policy.policies(few)[0]
    assert "| ec2:DescribeVolumes | Finds a \\| volume. |" in shorter[1].read_text()
