"""Recovery points: listing, describing and deleting them. Backup and copy jobs make them."""

from typing import Any

from cpm.simulator import backup_vaults
from cpm.simulator.backup_model import RecoveryPoint
from cpm.simulator.backup_rules import RESOURCE_TYPE, missing, page
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError


def find(call: Call, arn: str) -> RecoveryPoint:
    """The caller's recovery point of this ARN, in whatever vault."""
    found = call.state.recovery_points.at(call.account, call.region).get(arn)
    if found is None or found.expired:
        raise missing(f"Recovery point {arn} does not exist")
    return found


def _named(call: Call) -> RecoveryPoint:
    vault, found = backup_vaults.named(call), find(call, call.params["RecoveryPointArn"])
    if found.vault_arn != vault.id:
        raise missing(f"Recovery point {found.id} is not in backup vault {vault.name}")
    return found


def _described(point: RecoveryPoint) -> dict[str, Any]:
    dates = {"MoveToColdStorageAt": point.cold_at, "DeleteAt": point.delete_at}
    return {
        "RecoveryPointArn": point.id, "BackupVaultName": point.vault_arn.rsplit(":", 1)[1],
        "BackupVaultArn": point.vault_arn, "SourceBackupVaultArn": point.source_vault_arn,
        "ResourceArn": point.resource_arn, "ResourceType": RESOURCE_TYPE, "ResourceName": point.resource_name,
        "IamRoleArn": point.role_arn, "Status": point.status, "CreationDate": point.created,
        "CompletionDate": point.settling.end if point.settling.done() else None,
        "BackupSizeInBytes": point.size, "BackupSizeBytes": point.size,
        "CalculatedLifecycle": dates if any(dates.values()) else None,
        "Lifecycle": point.lifecycle or None, "EncryptionKeyArn": point.key_arn, "IsEncrypted": True,
        "StorageClass": "COLD" if point.cold else "WARM", "VaultType": "BACKUP_VAULT", "IsParent": False,
    }  # fmt: skip


def list_by_vault(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, ListRecoveryPointsByBackupVault."""
    equal = {
        "ByResourceArn": lambda point: point.resource_arn,
        "ByResourceType": lambda point: RESOURCE_TYPE,
        # No plan and no parent makes recovery points here.
        "ByBackupPlanId": lambda point: None,
        "ByParentRecoveryPointArn": lambda point: None,
    }
    shown, following = page(call, backup_vaults.points(call.state, backup_vaults.named(call)), equal)
    return {"RecoveryPoints": [_described(point) for point in shown], "NextToken": following}


def list_by_resource(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, ListRecoveryPointsByResource: in all vaults of the account and region."""
    wanted = call.params["ResourceArn"]
    here = call.state.recovery_points.at(call.account, call.region).values()
    of_it = [point for point in here if point.resource_arn == wanted and not point.expired]
    shown, following = page(call, of_it, {})
    return {"RecoveryPoints": [_described(point) for point in shown], "NextToken": following}


def describe(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, DescribeRecoveryPoint."""
    return _described(_named(call))


def delete(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, DeleteRecoveryPoint: not while a job still makes it."""
    found = _named(call)
    if found.status == "CREATING":
        raise AwsError("InvalidResourceStateException", f"Recovery point {found.id} is being created")
    call.state.recovery_points.remove(found)
    return {}


def restore_metadata(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, GetRecoveryPointRestoreMetadata; of EFS the id is what it documents."""
    found = _named(call)
    return {
        "BackupVaultArn": found.vault_arn, "RecoveryPointArn": found.id, "ResourceType": RESOURCE_TYPE,
        "RestoreMetadata": {"file-system-id": found.resource_arn.rsplit("/", 1)[1]},
    }  # fmt: skip


ACTIONS = {
    "ListRecoveryPointsByBackupVault": list_by_vault,
    "ListRecoveryPointsByResource": list_by_resource,
    "DescribeRecoveryPoint": describe,
    "DeleteRecoveryPoint": delete,
    "GetRecoveryPointRestoreMetadata": restore_metadata,
}
