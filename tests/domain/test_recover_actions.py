"""The IAM actions of recoveries cover what the flow calls, and nothing is declared without a use."""

import re
from pathlib import Path

import pytest

from cpm.aws.block_io_actions import WRITE_SNAPSHOTS
from cpm.flows.recoveries import recover_actions

RECOVERIES = Path(recover_actions.__file__).parent
CPM = RECOVERIES.parents[1]
# Called through the gateway's own functions and the client of block I/O, or by AWS on the caller's behalf.
BLOCK_IO = {action.action for action in WRITE_SNAPSHOTS}
INDIRECT = {"sts:GetCallerIdentity", "iam:PassRole", *BLOCK_IO}
VERBS = re.compile(r"\.(?:call|paginate)\(\s*\"([A-Za-z]+)\"")


def called() -> set[str]:
    found = set()
    for path in [*RECOVERIES.glob("*.py"), CPM / "flows/dr/dr_keys.py", CPM / "resources/ec2_capture.py"]:
        if path.name != "recover_actions.py":
            found |= set(VERBS.findall(path.read_text()))
    return found - {"DescribeInstanceAttribute"}  # belongs to the backup


def test_every_action_that_recoveries_call_is_declared_and_no_other():
    declared = {action.action.split(":")[1] for action in recover_actions.IAM_ACTIONS}
    by_kms = {action.action.split(":")[1] for action in recover_actions.IAM_ACTIONS if action.action.startswith("kms:")}

    assert called() - declared == set()
    assert declared - called() - by_kms - {name.split(":")[1] for name in INDIRECT} == set()


@pytest.mark.parametrize("action", ["ec2:TerminateInstances", "ec2:DeregisterImage", "ec2:DeleteSnapshot"])
def test_what_destroys_is_limited_to_what_carries_our_tag(action):
    [found] = [one for one in recover_actions.IAM_ACTIONS if one.action == action]

    assert found.condition is not None
