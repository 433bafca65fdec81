"""May CPM do in an account what it needs? Asked of IAM, without doing any of it, and told by group of permissions.

What is needed are the declarations of which the policies in deploy/iam are made (`cpm.flows.iam`).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from cpm.aws import policy_simulation
from cpm.aws.errors import AwsError, Denied
from cpm.aws.iam_policy import Document, IamAction, policies
from cpm.aws.identity import Identity
from cpm.aws.policy_simulation import Verdict
from cpm.flows import iam
from cpm.flows.identities import identity_of
from cpm.lib.errors import DomainError
from cpm.lib.secrets import KeyFileError, SecretUnreadable
from cpm.models import Account, ServerSettings, Target
from cpm.s3_sync.iam_actions import GROUP_DESTINATION, GROUP_SOURCE

ANY_BUCKET = ":s3:::*"
REPOSITORIES = "s3 repositories"
CHECK_ITSELF = iam.PERMISSION_CHECK[0]


class Outcome(StrEnum):
    """What is known of one group; not checked says nothing about its permissions."""

    OK = "ok"
    LACKING = "lacking"
    UNCHECKED = "not checked"


@dataclass(frozen=True)
class Group:
    """The permissions for one part of the product. `missing` and `denied` are empty unless it is lacking some."""

    name: str
    optional: bool
    outcome: Outcome
    missing: tuple[IamAction, ...] = ()
    denied: tuple[Verdict, ...] = ()
    partition: str = "aws"

    @property
    def title(self) -> str:
        return f"{self.name} (optional)" if self.optional else self.name

    @property
    def missing_names(self) -> list[str]:
        return sorted({one.action for one in self.missing})

    @property
    def denials(self) -> list[str]:
        """Each forbidden action with what forbids it; no statement mends that."""
        return sorted({f"{one.action.action} by {' and '.join(one.denied_by)}" for one in self.denied})

    @property
    def statements(self) -> list[Document]:
        """What has to be added to a policy of the principal for the missing actions."""
        documents = policies(self.missing, partition=self.partition)
        return [statement for document in documents for statement in document["Statement"]]

    @property
    def statement(self) -> str:
        """The same as JSON: one statement, or a list of several; nothing if none is missing."""
        found = self.statements
        return json.dumps(found[0] if len(found) == 1 else found) if found else ""

    def __str__(self) -> str:
        parts = []
        if self.missing:
            parts.append(f"missing {', '.join(self.missing_names)}; add to a policy: {self.statement}")
        if self.denied:
            parts.append(f"denied {', '.join(self.denials)}; change it there")
        return f"{self.title}: {'. '.join(parts) or self.outcome}"


@dataclass(frozen=True)
class ConnectionCheck:
    """One connection to AWS: as whom CPM gets in, or why not, and what it may do there."""

    account_name: str
    account_number: str
    connection: str
    groups: tuple[Group, ...]


class _NotChecked(Exception):
    """Why the check ended without verdicts; the text is for people. `lacking` are groups that are known nevertheless."""

    def __init__(self, reason: str, *lacking: Group) -> None:
        super().__init__(reason)
        self.lacking = {group.name: group for group in lacking}


def check(account: Account) -> list[ConnectionCheck]:
    """The check of each connection of the account, of which there is one. Trouble with AWS is told in it, not raised."""
    needed = _needed(account)
    try:
        connection, groups = _checked(account, needed)
    except _NotChecked as trouble:
        unchecked = [Group(name, optional, Outcome.UNCHECKED) for name, optional, _ in needed]
        connection, groups = str(trouble), [trouble.lacking.get(one.name, one) for one in unchecked]
    return [ConnectionCheck(account.name, account.account_number, connection, tuple(groups))]


Needed = list[tuple[str, bool, list[IamAction]]]


def _needed(account: Account) -> Needed:
    """Groups of declarations: name, whether they are optional, and what they need."""
    policy = "backup-account"
    if account.is_dr_account:
        policy = "dr-account" if account.allow_deleting_snapshots else "dr-account-no-delete"
    buckets = _buckets(account)
    found: dict[str, tuple[str, bool, list[IamAction]]] = {}
    for name in (policy, *iam.OPTIONAL[policy]):
        for action in iam.POLICIES[name]:
            group = found.setdefault(action.group, (action.group, name != policy, []))
            group[2].append(_in_buckets(action, buckets.get(action.group, buckets[REPOSITORIES])))
    return list(found.values())


def _buckets(account: Account) -> dict[str, list[str]]:
    """The buckets that the account works with, by the group of permissions that is for them."""
    syncs = Target.objects.filter(resource_type="s3syncs")
    to_it = syncs.filter(options__destination_account=account.pk)
    found: dict[str, Iterable[str]] = {
        REPOSITORIES: account.s3_repositories.values_list("aws_bucket_name", flat=True),
        GROUP_SOURCE: syncs.filter(policy__account=account).values_list("aws_resource_id", flat=True),
        GROUP_DESTINATION: to_it.values_list("options__destination_bucket_name", flat=True),
    }
    return {group: sorted(set(names)) for group, names in found.items()}


def _in_buckets(action: IamAction, buckets: Sequence[str]) -> IamAction:
    """The action on these buckets instead of on any; as it is if there are none."""
    if not buckets or not any(ANY_BUCKET in resource for resource in action.resources):
        return action
    named = [one.replace(ANY_BUCKET, f":s3:::{bucket}") for one in action.resources for bucket in buckets]
    return replace(action, resource=tuple(named))


def _checked(account: Account, needed: Needed) -> tuple[str, list[Group]]:
    identity = _identity(account)
    principal = _principal(identity, account)
    needed = [(name, optional, [_on_itself(one, principal) for one in actions]) for name, optional, actions in needed]
    verdicts = iter(_simulated(identity, principal, [one for _, _, actions in needed for one in actions]))
    groups = [
        _group(name, optional, [next(verdicts) for _ in actions], identity.partition)
        for name, optional, actions in needed
    ]
    return f"ok, as {principal}", groups


def _on_itself(action: IamAction, principal: str) -> IamAction:
    """Whoever checks need be allowed to check no others."""
    return replace(action, resource=principal) if action == CHECK_ITSELF else action


def _identity(account: Account) -> Identity:
    try:
        return identity_of(account, session="cpm-permissions")
    except (DomainError, SecretUnreadable, KeyFileError) as error:
        raise _NotChecked(f"failed: {error}") from error


def _principal(identity: Identity, account: Account) -> str:
    try:
        principal = policy_simulation.principal_of(identity)
    except AwsError as error:
        raise _NotChecked(f"failed: {error.explain()}") from error
    number = principal.split(":")[4]
    if account.account_number not in ("", number):
        raise _NotChecked(f"failed: these are credentials of account {number}")
    if not policy_simulation.can_be_simulated(principal):
        raise _NotChecked(f"ok, as {principal}, but IAM can check the permissions of users and roles only")
    return principal


def _simulated(identity: Identity, principal: str, actions: Iterable[IamAction]) -> list[Verdict]:
    server_id = str(ServerSettings.current().server_id)
    try:
        return policy_simulation.simulate(identity, principal, actions, server_id=server_id)
    except AwsError as error:
        raise _NotChecked(
            f"ok, as {principal}, but the permissions could not be checked: {error.explain()}",
            *_known_from(error, principal, identity.partition),
        ) from error


def _known_from(error: AwsError, principal: str, partition: str) -> Iterator[Group]:
    """A refusal tells of one permission at least: that to check."""
    if isinstance(error, Denied) and error.missing_action == CHECK_ITSELF.action:
        denied_by = (f"a {error.denied_by}",) if error.denied_by else ()
        verdict = Verdict(_on_itself(CHECK_ITSELF, principal), False, denied_by)
        yield _group(CHECK_ITSELF.group, False, [verdict], partition)


def _group(name: str, optional: bool, verdicts: Iterable[Verdict], partition: str) -> Group:
    lacking = [one for one in verdicts if not one.allowed]
    missing = tuple(one.action for one in lacking if not one.denied_by)
    denied = tuple(one for one in lacking if one.denied_by)
    return Group(name, optional, Outcome.LACKING if lacking else Outcome.OK, missing, denied, partition)
