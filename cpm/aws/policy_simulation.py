"""Asks IAM whether a user or role may do what is declared, without doing it (SimulatePrincipalPolicy).

IAM weighs the policies of the principal and its groups, its permissions boundary and the organization's service
control policies. It leaves out policies of resources, such as those of KMS keys.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

from cpm.aws import errors, gateway
from cpm.aws.iam_policy import Condition, IamAction
from cpm.aws.identity import AssumedRole, Identity

CALLS_AT_ONCE = 4
# Stands where a declaration says that any name will do.
ANY_NAME = "cpm-check"

_ASSUMED = re.compile(r"arn:([\w-]+):sts::(\d{12}):assumed-role/([\w+=,.@-]+)/.+")
_SIMULATED = re.compile(r"arn:[\w-]+:iam::\d{12}:(user|role)/.+")

ContextEntry = tuple[str, str, str]


@dataclass(frozen=True)
class Verdict:
    """What IAM says of one declaration. Not allowed and denied by nothing means that no policy allows it."""

    action: IamAction
    allowed: bool
    denied_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Question:
    """Actions are asked about together if they are about the same resources under the same circumstances."""

    resources: tuple[str, ...]
    context: tuple[ContextEntry, ...]


@dataclass(frozen=True)
class _Place:
    """What takes the place of wildcards."""

    partition: str
    account: str
    region: str
    server_id: str


Answers = dict[str, list[dict[str, Any]]]


def principal_of(identity: Identity) -> str:
    """The ARN of whose policies decide on calls of this identity: a session's role instead of the session."""
    caller = gateway.caller_arn(identity)
    assumed = _ASSUMED.fullmatch(caller)
    if assumed is None:
        return caller
    partition, account, name = assumed.groups()
    # The session's ARN leaves out the path of the role.
    if isinstance(identity, AssumedRole) and identity.role_arn.rsplit("/", 1)[-1] == name:
        return identity.role_arn
    return f"arn:{partition}:iam::{account}:role/{name}"


def can_be_simulated(principal: str) -> bool:
    """IAM simulates users and roles, but not an account's root user or federated users."""
    return bool(_SIMULATED.fullmatch(principal))


def simulate(
    identity: Identity, principal: str, actions: Iterable[IamAction], *, server_id: str
) -> list[Verdict]:
    """A verdict for each declaration, in their order; one call for all that share resources and conditions.

    Raises `AwsError`: a refused simulation says nothing about the actions.
    """
    place = _Place(identity.partition, principal.split(":")[4], gateway.home_region(identity), server_id)
    asked = [(one, tuple(_questions(one, place))) for one in actions]
    names: dict[_Question, set[str]] = defaultdict(set)
    for one, questions in asked:
        for question in questions:
            names[question].add(one.action)
    answers = _ask_all(identity, principal, names)
    return [
        _verdict(one, [result for question in questions for result in answers[question][one.action.lower()]])
        for one, questions in asked
    ]


def _questions(action: IamAction, place: _Place) -> Iterator[_Question]:
    resources = tuple(_example(pattern, place) for pattern in action.resources if pattern != "*")
    for context in _contexts(action.condition or {}, place):
        yield _Question(resources, context)


def _example(pattern: str, place: _Place) -> str:
    """An ARN that fits the pattern."""
    arn, _, service, region, account, resource = pattern.split(":", 5)
    region = place.region if region == "*" else region
    account = place.account if account == "*" else account
    return ":".join((arn, place.partition, service, region, account, resource.replace("*", ANY_NAME)))


def _contexts(condition: Condition, place: _Place) -> Iterator[tuple[ContextEntry, ...]]:
    """Circumstances that fulfil the condition: one set for each value that it accepts, for each shall be allowed."""
    choices: list[list[ContextEntry]] = []
    for operator, keys in condition.items():
        for key, wanted in keys.items():
            values = [wanted] if isinstance(wanted, str) else list(wanted)
            if operator == "Null" and values == ["false"]:
                choices.append([(key, "string", place.server_id)])
            elif operator in ("StringEquals", "StringLike"):
                choices.append([(key, "string", value.rstrip("*").replace("*", place.region)) for value in values])
            elif operator == "Bool":
                choices.append([(key, "boolean", value) for value in values])
            else:
                raise ValueError(f"no circumstances are known for the condition {operator} {key}")
    yield from product(*choices)


def _ask_all(
    identity: Identity, principal: str, names: Mapping[_Question, set[str]]
) -> dict[_Question, Answers]:
    # Made here: the gateway may look into the database, which threads shall not.
    client = gateway.client(identity, "iam", gateway.home_region(identity))

    def ask(question: _Question) -> Answers:
        return _ask(client, principal, question, sorted(names[question]))

    first, *others = names
    # Alone, so that a principal that may not simulate is refused once.
    answers = {first: ask(first)}
    with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
        answers |= zip(others, pool.map(ask, others), strict=True)
    return answers


def _ask(client: gateway.AwsClient, principal: str, question: _Question, names: list[str]) -> Answers:
    """IAM's results by the action's name in lower case."""
    more: dict[str, Any] = {"ResourceArns": list(question.resources)} if question.resources else {}
    if question.context:
        more["ContextEntries"] = [
            {"ContextKeyName": key, "ContextKeyType": kind, "ContextKeyValues": [value]}
            for key, kind, value in question.context
        ]
    found: Answers = defaultdict(list)
    try:
        for result in client.paginate(
            "SimulatePrincipalPolicy", "EvaluationResults", PolicySourceArn=principal, ActionNames=names, **more
        ):
            found[str(result["EvalActionName"]).lower()].append(result)
    except errors.Invalid:
        # Some actions cannot be asked about together with others.
        if len(names) == 1:
            raise
        half = len(names) // 2
        return _ask(client, principal, question, names[:half]) | _ask(client, principal, question, names[half:])
    for name in names:
        if name.lower() not in found:
            raise errors.Unknown(
                "NoAnswer", f"IAM says nothing about {name}.",
                action="SimulatePrincipalPolicy", service="iam", region=client.region,
            )  # fmt: skip
    return found


def _verdict(action: IamAction, results: list[dict[str, Any]]) -> Verdict:
    denied_by = {text for result in results for text in _denials(result)}
    allowed = all(result["EvalDecision"] == "allowed" for result in results)
    return Verdict(action, allowed and not denied_by, tuple(sorted(denied_by)))


def _denials(result: Mapping[str, Any]) -> Iterator[str]:
    """What no further permission overcomes."""
    if not result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True):
        yield "a service control policy of the organization"
    if not result.get("PermissionsBoundaryDecisionDetail", {}).get("AllowedByPermissionsBoundary", True):
        yield "the permissions boundary"
    if result["EvalDecision"] == "explicitDeny":
        sources = sorted({str(one.get("SourcePolicyId")) for one in result.get("MatchedStatements") or ()})
        yield "an explicit deny" + (f" in {', '.join(sources)}" if sources else "")
