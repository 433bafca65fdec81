"""IAM's policy simulation over the users, roles and policies that moto keeps.

No call of the simulator is refused for want of a permission, but this one: it says what AWS would allow. Permissions
boundaries and service control policies are not looked at.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from moto.iam.models import iam_backends

from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError
from cpm.simulator.sts import as_list

PRINCIPAL = re.compile(r"arn:aws:iam::(\d{12}):(user|role)/(?:.*/)?([\w+=,.@-]{1,64})")
SESSION = re.compile(r"arn:aws:sts::(\d{12}):assumed-role/([\w+=,.@-]+)/.+")
Context = dict[str, list[str]]


@dataclass(frozen=True)
class Statement:
    """One statement of a policy, and where it stands."""

    policy: str
    kind: str
    text: dict[str, Any]

    def concerns(self, action: str, resource: str) -> bool:
        return self._element("Action", action.lower(), str.lower) and self._element("Resource", resource, str)

    def _element(self, name: str, value: str, form: Any) -> bool:
        """AWS: IAM User Guide, JSON policy elements: NotAction and NotResource match everything else."""
        inverted = f"Not{name}" in self.text
        patterns = as_list(self.text.get(f"Not{name}" if inverted else name))
        return any(_like(value, form(pattern)) for pattern in patterns) != inverted


# Nobody wrote policies for those whom the simulator itself has made up: they may do everything.
EVERYTHING = Statement("simulator", "none", {"Effect": "Allow", "Action": "*", "Resource": "*"})


def simulate_principal_policy(call: Call) -> dict[str, Any]:
    """AWS: IAM API Reference, SimulatePrincipalPolicy; IAM User Guide, Policy evaluation logic."""
    params = call.params
    source = params["PolicySourceArn"]
    _check_caller(call, source)
    statements = list(_statements(call, source))
    context: Context = {
        entry["ContextKeyName"].lower(): entry.get("ContextKeyValues", [])
        for entry in params.get("ContextEntries", [])
    }
    results = [
        _evaluation(statements, action, resource, context)
        for action in params["ActionNames"]
        for resource in params.get("ResourceArns") or ["*"]
    ]
    start, size = int(params.get("Marker", 0)), params.get("MaxItems", 100)
    page = {"EvaluationResults": results[start : start + size], "IsTruncated": len(results) > start + size}
    return page | ({"Marker": str(start + size)} if page["IsTruncated"] else {})


def _check_caller(call: Call, source: str) -> None:
    key = call.state.identities.find(call.access_key)
    assert key is not None
    found = _evaluation(
        list(_statements(call, _entity_behind(key.arn))), "iam:SimulatePrincipalPolicy", source, {}
    )
    if found["EvalDecision"] != "allowed":
        raise AwsError(
            "AccessDenied",
            f"User: {key.arn} is not authorized to perform: iam:SimulatePrincipalPolicy on resource: {source}",
            403,
        )


def _entity_behind(caller: str) -> str:
    """The user or role whose policies decide; the ARN of a session leaves out the path of its role."""
    session = SESSION.fullmatch(caller)
    if session is None:
        return caller
    account, name = session.groups()
    roles = iam_backends[account]["aws"].roles.values()
    return next((role.arn for role in roles if role.name == name), f"arn:aws:iam::{account}:role/{name}")


def _statements(call: Call, principal: str) -> Iterator[Statement]:
    match = PRINCIPAL.fullmatch(principal)
    if match is None:
        raise AwsError(
            "InvalidInput", f"Invalid Entity Arn: {principal} does not clearly define entity type and name."
        )
    account, kind, name = match.groups()
    backend = iam_backends[account]["aws"]
    known = backend.users.values() if kind == "user" else backend.roles.values()
    entity = next((one for one in known if one.name == name and one.arn == principal), None)
    if entity is not None:
        yield from _attached(kind, entity)
        if kind == "user":
            for group in backend.get_groups_for_user(name):
                yield from _attached("group", group)
    elif _is_made_up(call, kind, principal, {one.name for one in known} & {name}):
        yield EVERYTHING
    else:
        raise AwsError("NoSuchEntity", f"The {kind} with name {name} cannot be found.", 404)


def _is_made_up(call: Call, kind: str, principal: str, namesakes: set[str]) -> bool:
    """Users with a key of the simulator, and roles that anybody may assume because they are not in IAM."""
    identities = call.state.identities
    if kind == "user":
        return any(key.arn == principal for key in identities.keys.values())
    return not identities.roles_must_exist and not namesakes


def _attached(kind: str, entity: Any) -> Iterator[Statement]:
    """Inline and managed policies."""
    for name, document in entity.policies.items():
        yield from _of(f"{kind}_{entity.name}_{name}", kind, document)
    for policy in entity.managed_policies.values():
        version = next(one for one in policy.versions if one.is_default)
        yield from _of(policy.name, "user-managed", version.document)


def _of(policy: str, kind: str, document: str) -> Iterator[Statement]:
    for text in as_list(json.loads(document)["Statement"]):
        yield Statement(policy, kind, text)


def _evaluation(statements: list[Statement], action: str, resource: str, context: Context) -> dict[str, Any]:
    """An explicit denial wins; without any permission the denial is implicit."""
    concerned = [one for one in statements if one.concerns(action, resource)]
    missing = {
        key
        for one in concerned
        for tests in one.text.get("Condition", {}).values()
        for key in tests
        if key.lower() not in context
    }
    holding = [one for one in concerned if _conditions_hold(one.text.get("Condition", {}), context)]
    effects = {one.text["Effect"] for one in holding}
    decision = "explicitDeny" if "Deny" in effects else "allowed" if "Allow" in effects else "implicitDeny"
    deciding = "Deny" if decision == "explicitDeny" else "Allow"
    return {
        "EvalActionName": action,
        "EvalResourceName": resource,
        "EvalDecision": decision,
        "MatchedStatements": [
            {"SourcePolicyId": one.policy, "SourcePolicyType": one.kind}
            for one in holding
            if one.text["Effect"] == deciding
        ],
        "MissingContextValues": sorted(missing),
    }


def _conditions_hold(conditions: dict[str, Any], context: Context) -> bool:
    return all(
        _holds(operator, context.get(key.lower()), [str(value) for value in as_list(wanted)])
        for operator, tests in conditions.items()
        for key, wanted in tests.items()
    )


def _holds(operator: str, given: list[str] | None, wanted: list[str]) -> bool:
    """AWS: IAM User Guide, Condition operators."""
    name = operator.removeprefix("ForAnyValue:").removesuffix("IfExists")
    if name == "Null":
        return (given is None) == (wanted[0].lower() == "true")
    inverted = "Not" in name
    if given is None:
        return inverted or operator.endswith("IfExists")
    compare = {
        "StringEquals": str.__eq__,
        "StringLike": _like,
        "ArnEquals": _like,
        "ArnLike": _like,
        "Bool": lambda value, pattern: value.lower() == pattern.lower(),
    }.get(name.replace("Not", ""))
    if compare is None:
        raise AwsError(
            "UnsupportedOperation", f"The simulator does not know the condition operator {operator}."
        )
    return any(compare(value, pattern) for value in given for pattern in wanted) != inverted


def _like(value: str, pattern: str) -> bool:
    """Wildcards * and ?; brackets have no meaning."""
    return fnmatchcase(value, pattern.replace("[", "[[]"))


ACTIONS = {"SimulatePrincipalPolicy": simulate_principal_policy}
