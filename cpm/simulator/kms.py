"""KMS keys as EBS and RDS use them: resolving references, the rights of other accounts, disabled keys."""

import json
from typing import Any

from moto.ec2.models import ec2_backends
from moto.kms.models import Key, KmsBackend, kms_backends

from cpm.simulator.call import Call
from cpm.simulator.sts import as_list, principal_matches

EBS_ALIAS = "alias/aws/ebs"
RDS_ALIAS = "alias/aws/rds"
MANAGED = (EBS_ALIAS, RDS_ALIAS)
INACCESSIBLE = "Given key ID is not accessible"
NEEDED = ("kms:CreateGrant", "kms:DescribeKey", "kms:Decrypt")


def default_key(account: str, region: str) -> str:
    """ARN of the key that EBS takes when none is named: the account's setting, else ``aws/ebs``.

    AWS: EC2 API Reference, GetEbsDefaultKmsKeyId.
    """
    backend = ec2_backends[account][region]
    return str(backend.default_kms_key_id or managed_key(account, region).arn)


def managed_key(account: str, region: str, alias: str = EBS_ALIAS) -> Key:
    """An AWS managed key of an account and region (``aws/ebs`` when none is named), made on first use."""
    backend = kms_backends[account][region]
    key = _in(backend, alias)
    if key is None:
        key = backend.create_key(None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "Default key", None)
        backend.create_alias(key.id, alias)
    key.key_manager = "AWS"
    return key


def is_managed(arn: str) -> bool:
    """Whether AWS keeps a key for one of its services; what it encrypts can never be shared, nor its policy changed."""
    found = _find(arn)
    return found is not None and found.key_manager == "AWS"


def resolve(call: Call, reference: str, region: str) -> tuple[str, str | None]:
    """The ARN a key id, alias or ARN stands for in a region, and why it cannot be used (None when it can).

    AWS: EC2 API Reference, CopySnapshot, KmsKeyId: AWS checks the key asynchronously, so an unusable key does
    not fail the call; the object made with it ends in ``error``.
    """
    if reference.startswith("arn:"):
        parts = reference.split(":", 5)
        if len(parts) != 6 or parts[3] != region:
            return reference, INACCESSIBLE
        account, name = parts[4], parts[5].removeprefix("key/")
    else:
        account, name = call.account, reference
    backend = kms_backends[account][region]
    key = _in(backend, name)
    if key is None:
        return reference, INACCESSIBLE
    return key.arn, usable(key.arn, call.account, _caller_arn(call))


def usable(arn: str, account: str, caller: str) -> str | None:
    """Why an account cannot use a key; None when it can.

    AWS: KMS Developer Guide, Allowing users in other accounts to use a KMS key: the key's policy must name the
    other account. Key states: only ``Enabled`` keys work.
    """
    key = _find(arn)
    if key is None or key.key_state != "Enabled":
        return INACCESSIBLE
    owner = arn.split(":")[4]
    return None if owner == account or _policy_allows(key.policy, account, caller) else INACCESSIBLE


def _policy_allows(policy: str, account: str, caller: str) -> bool:
    granted: set[str] = set()
    for statement in as_list(json.loads(policy).get("Statement")):
        if not principal_matches(statement.get("Principal"), account, caller):
            continue
        actions = as_list(statement.get("Action"))
        hit = {need for need in NEEDED if any(_covers(str(action), need) for action in actions)}
        if statement.get("Effect") == "Deny" and hit:
            return False
        granted |= hit
    return granted == set(NEEDED)


def _covers(action: str, need: str) -> bool:
    return action == need or (action.endswith("*") and need.startswith(action[:-1]))


def _caller_arn(call: Call) -> str:
    key = call.state.identities.find(call.access_key)
    return key.arn if key else ""


def caller_can_use(call: Call, arn: str) -> str | None:
    """Why the caller of this call cannot use a key; None when it can."""
    return usable(arn, call.account, _caller_arn(call))


def _in(backend: KmsBackend, name: str) -> Key | None:
    if name in MANAGED:
        name = backend.any_id_to_key_id(name)
    if name.startswith("alias/"):
        return next((key for key in backend.keys.values() if name in key.aliases), None)
    found: Key | None = backend.keys.get(name)
    return found


def _find(arn: str) -> Key | None:
    parts = arn.split(":", 5)
    return _in(kms_backends[parts[4]][parts[3]], parts[5].removeprefix("key/")) if len(parts) == 6 else None


def get_ebs_default(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, GetEbsDefaultKmsKeyId."""
    return {"KmsKeyId": default_key(call.account, call.region)}


ACTIONS = {"GetEbsDefaultKmsKeyId": get_ebs_default}
