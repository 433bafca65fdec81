"""The IAM policies of deploy/iam: generated, complete, and with nothing that no flow needs."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils import timezone

from cpm.aws import gateway
from cpm.flows import iam
from cpm.flows.identities import identity_of
from cpm.models import Account
from cpm.services import catalogue
from tests.domain import copying, recovering, restoring
from tests.domain.world import DR_ACCOUNT, World

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "iam"
CALLERS = ("flows", "services", "notifications", "resources", "scheduler", "aws", "admin", "commands")
# GetCallerIdentity needs no permission.
FREE = {"sts:GetCallerIdentity"}


def mentioned() -> Iterator[str]:
    """The actions that are called somewhere in the source: the constants given to a client's `call` or `paginate`."""
    for part in CALLERS:
        for path in (ROOT / "cpm" / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                    told = {"call", "paginate", "_ignore_absent"}
                    if path.stem in ("s3_objects", "ebs_direct"):
                        told |= {"_send", "_post", "_pages", "Request"}
                    if path.stem == "s3_copies":
                        told |= {"_ask", "_with_body", "Request"}
                    if name in told and texts and texts[0].isalnum() and not texts[0].isupper():
                        yield iam.NAMED_OTHERWISE.get(texts[0], texts[0])


def declared() -> set[str]:
    return {one.action for one in iam.ACTIONS}


def test_committed_policies_are_what_the_declarations_say(tmp_path: Path) -> None:
    written = {path.name: path.read_text() for path in iam.write(tmp_path)}

    committed = {path.name: path.read_text() for path in FOLDER.iterdir() if path.name != "README.md"}

    assert committed == written, "run: cpm iam write"


def test_every_action_in_the_source_is_declared_and_no_other() -> None:
    called = set(mentioned())

    names = {action.split(":")[1] for action in declared()}

    assert called - names == set()
    assert names - called - {action.split(":")[1] for action in iam.WITHOUT_CALL} == set()
    assert set(iam.WITHOUT_CALL) <= declared() and set(iam.WITHOUT_CALL.values()) <= declared()


def test_nothing_that_is_not_ours_can_be_deleted_shared_or_claimed_by_default() -> None:
    """A tag guards what is deleted, so tagging what exists must be guarded too."""
    guarded = {
        "ec2:DeleteSnapshot", "ec2:DeregisterImage", "ec2:DeleteVolume", "ec2:TerminateInstances", "ec2:CreateTags",
        "ec2:ModifySnapshotAttribute", "ec2:ModifyImageAttribute", "ec2:DeleteNetworkInterface",
        "ebs:GetSnapshotBlock", "ebs:PutSnapshotBlock",
    }  # fmt: skip

    open_ones = {
        one.action for name in ("backup-account", "dr-account") for one in iam.POLICIES[name] if not one.condition
    }

    assert guarded & open_ones == set()


def test_policy_without_deleting_deletes_nothing() -> None:
    verbs = ("Delete", "Deregister", "Terminate", "Put")

    actions = {one.action.split(":")[1] for one in iam.POLICIES["dr-account-no-delete"]}

    assert not [name for name in actions if name.startswith(verbs)]
    assert {"CopySnapshot", "CopyImage", "CreateTags"} <= actions


def test_readme_names_every_file() -> None:
    readme = (FOLDER / "README.md").read_text()

    for path in FOLDER.glob("*.json"):
        assert path.name in readme, path.name


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(240)
def test_flows_call_only_what_is_declared(world: World) -> None:
    dr = world.add_account(DR_ACCOUNT, name="far", is_dr_account=True)
    for account, region in ((None, "us-east-1"), (None, "us-west-2"), (DR_ACCOUNT, "us-east-1")):
        kms = world.aws.client("kms", region, account)
        key = kms.create_key()["KeyMetadata"]
        kms.create_alias(AliasName="alias/ours", TargetKeyId=key["KeyId"])
    own = world.aws.client("kms").describe_key(KeyId="alias/ours")["KeyMetadata"]["Arn"]
    policy_text = '{"Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}]}'
    world.aws.client("kms").put_key_policy(KeyId=own, PolicyName="default", Policy=policy_text)
    free = world.aws.volume(Encrypted=True, KmsKeyId=own)
    instance, _ = world.aws.instance((1, 1))
    policy = world.policy(
        free, generations=1, dr_enabled=True, dr_regions=[world.region_id("us-west-2")],
        dr_account=Account.objects.get(pk=dr.pk), copy_to_snapshot_original_region=True,
    )  # fmt: skip
    world.target(policy, instance, ami_backup_option="S")

    with gateway.recording() as calls:
        world.back_up(policy, dr_status="C")
        backup = world.back_up(policy, status="B", dr_status="C")
        recovering.recover(world, recovering.volume_row(backup, free))
        recovering.recover(world, recovering.instance_row(backup), restore_from="I")
        recovering.recover(world, recovering.instance_row(backup), to_region=world.region_id("us-west-2"))
        copied = copying.policy_with_s3(world, free, name="copied")
        world.back_up(copied, s3_copy_status="S")
        in_s3 = world.back_up(copied, s3_copy_status="S")
        restoring.recover(world, recovering.volume_row(in_s3, free), encryption_key="alias/ours")
        world.back_up(world.policy(name="cpmdata"), status="B")
        catalogue.rebuild(actor=world.actor, account=world.account, regions=["us-east-1"], server_id=None, now=timezone.now())
        gateway.regions_enabled(identity_of(world.account, session="test"))

    made = {iam.action_of(service, action) for service, action in calls}
    assert made - declared() - FREE == set()
    for group in ("ec2:CreateSnapshots", "ec2:CreateImage", "ec2:CopySnapshot", "ec2:CopyImage", "ec2:DeleteSnapshot",
                  "ec2:ModifySnapshotAttribute", "ec2:RunInstances", "ebs:PutSnapshotBlock", "kms:ListAliases",
                  "ebs:ListChangedBlocks", "s3:PutObject"):  # fmt: skip
        assert group in made, group
