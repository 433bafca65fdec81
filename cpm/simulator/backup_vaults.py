"""Backup vaults and the policies that open them to other accounts."""

import json
from typing import Any

from cpm.simulator import kms
from cpm.simulator.backup_model import RecoveryPoint, Vault
from cpm.simulator.backup_rules import bad_request, invalid, missing, page
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError
from cpm.simulator.sts import as_list, principal_matches
from cpm.simulator.timing import now
from cpm.simulator.world import State

KEY_ALIAS = "alias/aws/backup"
COPY_INTO = "backup:CopyIntoBackupVault"


def arn_of(account: str, region: str, name: str) -> str:
    return f"arn:aws:backup:{region}:{account}:backup-vault:{name}"


def find(call: Call, name: str) -> Vault | None:
    return call.state.backup_vaults.by_id.get(arn_of(call.account, call.region, name))


def named(call: Call) -> Vault:
    """The vault that a request names. AWS answers AccessDeniedException for one that does not exist."""
    owner = call.params.get("BackupVaultAccountId", call.account)
    found = find(call, call.params["BackupVaultName"]) if owner == call.account else None
    if found is None:
        raise AwsError("AccessDeniedException", "Insufficient privileges to perform this action.", 403)
    return found


def points(state: State, vault: Vault) -> list[RecoveryPoint]:
    """The recovery points in a vault that are not past their time."""
    here = state.recovery_points.at(vault.account, vault.region).values()
    return [point for point in here if point.vault_arn == vault.id and not point.expired]


def create(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, CreateBackupVault. Without a key named it takes the managed key ``aws/backup``.

    AWS Backup Developer Guide, Backup vault creation: only the console makes a vault named Default by itself.
    """
    params = call.params
    known, request = find(call, params["BackupVaultName"]), params.get("CreatorRequestId")
    if known is None:
        known = Vault(
            id=arn_of(call.account, call.region, params["BackupVaultName"]),
            account=call.account,
            region=call.region,
            name=params["BackupVaultName"],
            key_arn=_key(call),
            request_id=request,
            tags=dict(params.get("BackupVaultTags", {})),
            created=now(),
        )
        call.state.backup_vaults.add(known)
    elif known.request_id != request:
        raise AwsError(
            "AlreadyExistsException",
            f"Backup vault with the same name already exists: {known.name}",
            CreatorRequestId=known.request_id or "",
            Arn=known.id,
        )
    return {"BackupVaultName": known.name, "BackupVaultArn": known.id, "CreationDate": known.created}


def _key(call: Call) -> str:
    wanted = call.params.get("EncryptionKeyArn")
    if wanted is None:
        return str(kms.managed_key(call.account, call.region, KEY_ALIAS).arn)
    arn, refused = kms.resolve(call, wanted, call.region)
    if refused or not wanted.startswith("arn:"):
        raise invalid(f"The encryption key {wanted} does not exist or cannot be used")
    return arn


def _described(state: State, vault: Vault) -> dict[str, Any]:
    return {
        "BackupVaultName": vault.name, "BackupVaultArn": vault.id, "VaultType": "BACKUP_VAULT",
        "VaultState": "AVAILABLE", "EncryptionKeyArn": vault.key_arn, "CreationDate": vault.created,
        "CreatorRequestId": vault.request_id, "NumberOfRecoveryPoints": len(points(state, vault)), "Locked": False,
    }  # fmt: skip


def describe(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, DescribeBackupVault."""
    return _described(call.state, named(call))


def list_vaults(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, ListBackupVaults. No vault here is shared or air-gapped."""
    here = call.state.backup_vaults.at(call.account, call.region).values()
    if call.params.get("ByShared"):
        here = {}.values()
    shown, following = page(call, here, {"ByVaultType": lambda vault: "BACKUP_VAULT"})
    return {"BackupVaultList": [_described(call.state, vault) for vault in shown], "NextToken": following}


def delete(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, DeleteBackupVault: only an empty vault can be deleted."""
    vault = named(call)
    if points(call.state, vault):
        raise bad_request(f"Backup vault {vault.name} cannot be deleted because it contains recovery points")
    call.state.backup_vaults.remove(vault)
    return {}


def put_policy(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, PutBackupVaultAccessPolicy."""
    vault, policy = named(call), call.params.get("Policy", "")
    try:
        statements = as_list(json.loads(policy)["Statement"])
    except (ValueError, KeyError, TypeError) as broken:
        raise invalid("The policy is not a valid JSON document") from broken
    if not statements or not all(isinstance(one, dict) and "Principal" in one for one in statements):
        raise invalid("The policy has a statement without a principal")
    vault.policy = policy
    return {}


def get_policy(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, GetBackupVaultAccessPolicy."""
    vault = named(call)
    if vault.policy is None:
        raise missing(f"Backup vault {vault.name} has no access policy")
    return {"BackupVaultName": vault.name, "BackupVaultArn": vault.id, "Policy": vault.policy}


def delete_policy(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, DeleteBackupVaultAccessPolicy."""
    named(call).policy = None
    return {}


def admits_copy(vault: Vault, account: str) -> bool:
    """Whether the vault's policy lets an account copy into it; a statement with conditions lets nobody."""
    verdicts = set()
    for statement in as_list(json.loads(vault.policy or "{}").get("Statement")):
        actions = [str(action).lower() for action in as_list(statement.get("Action"))]
        covered = any(
            action == COPY_INTO.lower()
            or (action.endswith("*") and COPY_INTO.lower().startswith(action[:-1]))
            for action in actions
        )
        if not covered or not principal_matches(
            statement.get("Principal"), account, f"arn:aws:iam::{account}:root"
        ):
            continue
        if statement.get("Effect") == "Deny" or not statement.get("Condition"):
            verdicts.add(statement.get("Effect"))
    return "Allow" in verdicts and "Deny" not in verdicts


def tagged(call: Call) -> dict[str, str]:
    """The tags of the vault or recovery point that a request names, to be read or changed."""
    arn = call.params["ResourceArn"]
    found = call.state.backup_vaults.by_id.get(arn) or call.state.recovery_points.by_id.get(arn)
    gone = isinstance(found, RecoveryPoint) and found.expired
    if found is None or gone or (found.account, found.region) != (call.account, call.region):
        raise missing(f"{arn} does not exist")
    return found.tags


def list_tags(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, ListTags; one page holds all."""
    return {"Tags": tagged(call)}


def tag(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, TagResource."""
    wanted = {**tagged(call), **check_tags(call.params["Tags"])}
    if len(wanted) > 50:
        raise AwsError("LimitExceededException", "A resource has up to 50 tags")
    tagged(call).update(wanted)
    return {}


def check_tags(tags: dict[str, str]) -> dict[str, str]:
    if any(key.lower().startswith("aws:") for key in tags):
        raise invalid("Tag keys beginning with 'aws:' are reserved")
    return tags


def untag(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, UntagResource."""
    for key in call.params["TagKeyList"]:
        tagged(call).pop(key, None)
    return {}


ACTIONS = {
    "CreateBackupVault": create,
    "DescribeBackupVault": describe,
    "ListBackupVaults": list_vaults,
    "DeleteBackupVault": delete,
    "PutBackupVaultAccessPolicy": put_policy,
    "GetBackupVaultAccessPolicy": get_policy,
    "DeleteBackupVaultAccessPolicy": delete_policy,
    "ListTags": list_tags,
    "TagResource": tag,
    "UntagResource": untag,
}
