"""STS: who am I, and roles in other accounts with their trust policies."""

import json
import re
from datetime import timedelta
from typing import Any

from moto.iam.models import iam_backends

from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError
from cpm.simulator.timing import now

ROLE = re.compile(r"arn:aws:iam::(\d{12}):role/(?:.*/)?([\w+=,.@-]{1,64})")


def get_caller_identity(call: Call) -> dict[str, Any]:
    """AWS: STS API Reference, GetCallerIdentity."""
    key = call.state.identities.find(call.access_key)
    assert key is not None
    return {"UserId": key.user_id, "Account": key.account, "Arn": key.arn}


def assume_role(call: Call) -> dict[str, Any]:
    """AWS: STS API Reference, AssumeRole; IAM User Guide, External ID.

    A role that exists in IAM is assumed only if its trust policy lets the caller. One that does not exist is
    taken as trusting everybody, unless the control endpoint set ``roles_must_exist``.
    """
    params = call.params
    match = ROLE.fullmatch(params["RoleArn"])
    if match is None:
        raise AwsError("ValidationError", f"{params['RoleArn']} is invalid")
    seconds = params.get("DurationSeconds", 3600)
    if not 900 <= seconds <= 43200:
        raise AwsError("ValidationError", "DurationSeconds must be between 900 and 43200")
    account, name = match.groups()
    role = next((r for r in iam_backends[account]["aws"].roles.values() if r.name == name), None)
    caller = get_caller_identity(call)
    if role is None:
        if call.state.identities.roles_must_exist:
            raise _denied(caller["Arn"], params["RoleArn"])
        role_id = "AROASIMULATED" + account[:8]
    else:
        if not _trusts(role.assume_role_policy_document, caller, params.get("ExternalId")):
            raise _denied(caller["Arn"], params["RoleArn"])
        role_id = role.id
    session = params["RoleSessionName"]
    arn = f"arn:aws:sts::{account}:assumed-role/{name}/{session}"
    key = call.state.identities.add_session(
        account, arn, f"{role_id}:{session}", now() + timedelta(seconds=seconds)
    )
    return {
        "Credentials": {
            "AccessKeyId": key.access_key,
            "SecretAccessKey": key.secret_key,
            "SessionToken": key.session_token,
            "Expiration": key.expires,
        },
        "AssumedRoleUser": {"AssumedRoleId": key.user_id, "Arn": arn},
        "PackedPolicySize": 0,
    }


def _denied(caller: str, role: str) -> AwsError:
    return AwsError(
        "AccessDenied",
        f"User: {caller} is not authorized to perform: sts:AssumeRole on resource: {role}",
        403,
    )


def _trusts(document: str, caller: dict[str, Any], external_id: str | None) -> bool:
    """Whether a trust policy has a statement that lets the caller in. Explicit denials win."""
    statements = json.loads(document).get("Statement", [])
    verdicts = [
        statement["Effect"]
        for statement in (statements if isinstance(statements, list) else [statements])
        if "sts:AssumeRole"
        in as_list(statement.get("Action")) + (["sts:AssumeRole"] if _any(statement) else [])
        and principal_matches(statement.get("Principal"), caller["Account"], caller["Arn"])
        and _conditions_hold(statement.get("Condition", {}), external_id)
    ]
    return "Allow" in verdicts and "Deny" not in verdicts


def _any(statement: dict[str, Any]) -> bool:
    return bool({"*", "sts:*"} & set(as_list(statement.get("Action"))))


def as_list(value: Any) -> list[Any]:
    """Policies write one thing bare and several as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def principal_matches(principal: Any, account: str, arn: str) -> bool:
    """Whether a policy's principal covers a caller: everybody, its account, or its own ARN or role."""
    names = as_list(principal.get("AWS")) if isinstance(principal, dict) else as_list(principal)
    allowed = {"*", account, f"arn:aws:iam::{account}:root", arn}
    if ":assumed-role/" in arn:
        allowed.add(f"arn:aws:iam::{account}:role/{arn.split('/')[1]}")
    return bool(allowed & set(names))


def _conditions_hold(conditions: dict[str, Any], external_id: str | None) -> bool:
    for operator, tests in conditions.items():
        for key, wanted in tests.items():
            # Only the condition that CPM's roles carry is understood; any other refuses, never lets in.
            if key.lower() != "sts:externalid" or operator not in (
                "StringEquals",
                "ForAnyValue:StringEquals",
            ):
                return False
            if external_id not in as_list(wanted):
                return False
    return True


def get_session_token(call: Call) -> dict[str, Any]:
    """AWS: STS API Reference, GetSessionToken."""
    caller = get_caller_identity(call)
    expires = now() + timedelta(seconds=call.params.get("DurationSeconds", 43200))
    key = call.state.identities.add_session(call.account, caller["Arn"], caller["UserId"], expires)
    return {
        "Credentials": {
            "AccessKeyId": key.access_key,
            "SecretAccessKey": key.secret_key,
            "SessionToken": key.session_token,
            "Expiration": expires,
        }
    }


ACTIONS = {
    "GetCallerIdentity": get_caller_identity,
    "AssumeRole": assume_role,
    "GetSessionToken": get_session_token,
}
