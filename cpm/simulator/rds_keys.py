"""Which KMS keys encrypt databases and their snapshots, and who may use them.

Unlike EBS, RDS checks a key when it is named, and refuses the call.
"""

from cpm.simulator import kms
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError


def _inaccessible(which: str, key: str | None) -> AwsError:
    """AWS: RDS API Reference, KMSKeyNotAccessibleFault."""
    return AwsError(
        "KMSKeyNotAccessibleFault",
        f"{which} [{key}] does not exist, is not enabled or you do not have permissions to access it.",
    )


def named(call: Call, reference: str) -> str:
    """The ARN of the key that a call names; a key of another region or one that cannot be used is refused."""
    arn, refused = kms.resolve(call, reference, call.region)
    if refused:
        raise _inaccessible("The target KMS key", reference)
    return arn


def of_new(call: Call) -> str | None:
    """The key of a database to be made: the one named, else ``aws/rds`` when it is to be encrypted, else none.

    AWS: RDS API Reference, CreateDBInstance, KmsKeyId and StorageEncrypted.
    """
    reference, encrypted = call.params.get("KmsKeyId"), call.params.get("StorageEncrypted")
    if reference and encrypted is False:
        raise AwsError("InvalidParameterCombination", "KmsKeyId can only be given for an encrypted database.")
    if reference:
        return named(call, reference)
    return kms.managed_key(call.account, call.region, kms.RDS_ALIAS).arn if encrypted else None


def must_open(call: Call, arn: str | None) -> None:
    """Raises unless the caller can read what this key encrypts."""
    if arn and kms.caller_can_use(call, arn):
        raise _inaccessible("The source snapshot KMS key", arn)


def of_copy(
    call: Call, source_key: str | None, *, abroad: bool, shared: bool, may_encrypt: bool
) -> str | None:
    """The key of a snapshot's copy, None for a plain one.

    AWS: RDS API Reference, CopyDBSnapshot and CopyDBClusterSnapshot, KmsKeyId: required for the copy of an
    encrypted snapshot from another region or account; a plain cluster snapshot cannot be encrypted by copying.
    """
    reference = call.params.get("KmsKeyId")
    if source_key is None:
        if reference and not may_encrypt:
            raise AwsError(
                "InvalidParameterCombination",
                "KmsKeyId cannot be given for the copy of an unencrypted DB cluster snapshot.",
            )
        return named(call, reference) if reference else None
    if not reference and abroad:
        raise AwsError(
            "InvalidParameterValue", "Must specify new KMS key for cross region encrypted snapshot copy."
        )
    if not reference and shared:
        raise _inaccessible("The target KMS key", None)
    must_open(call, source_key)
    return named(call, reference) if reference else source_key
