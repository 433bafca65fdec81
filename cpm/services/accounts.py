"""AWS accounts: how CPM reaches them, and who may say so."""

import re
from collections import defaultdict
from typing import TypedDict, Unpack

from django.db import transaction

from cpm import features, permissions
from cpm.aws.identity import role_arn
from cpm.features import Feature
from cpm.flows.identities import encrypt_secret
from cpm.lib.errors import InUse, LimitExceeded, ValidationFailed
from cpm.lib.names import Problem, name_problems
from cpm.lib.states import Authentication
from cpm.models import Account, Actor, EmailIdentity, Target, User
from cpm.services import audit, regions, scope

RIGHT = "accounts.change"
SERVER_ROLE_RIGHT = "accounts.use_server_role"

# IAM AccessKey: 16 to 128 word characters. STS AssumeRole: ExternalId of 2 to 1224 characters.
_ACCESS_KEY = re.compile(r"\w{16,128}", re.ASCII)
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
_ACCOUNT_NUMBER = re.compile(r"[0-9]{12}")

Problems = dict[str, list[Problem]]


class AccountFields(TypedDict, total=False):
    """What may be set; what is left out keeps its value. The secret key goes in and never comes out."""

    aws_access_key: str
    aws_secret_key: str
    account_number: str
    role_name: str
    external_id: str
    assume_from_account: int | None
    allow_deleting_snapshots: bool
    scan_tagged_resources: bool
    scan_regions: list[int]
    scan_resource_types: list[int]
    capture_vpcs: bool


_PLAIN = (
    "account_number", "role_name", "external_id", "allow_deleting_snapshots", "scan_tagged_resources", "capture_vpcs",
)  # fmt: skip


@transaction.atomic
def create(
    *,
    actor: Actor,
    user: int,
    is_dr_account: bool,
    name: str,
    authentication: Authentication,
    **fields: Unpack[AccountFields],
) -> Account:
    """A new account of that user. Nothing is asked of AWS; wrong credentials show at the first use.

    Raises `ValidationFailed`, `LimitExceeded`, `Conflict` for a name that is taken, `NotFound` for a user or source
    account out of reach, `PermissionDenied` for the server's role unless root or a delegate of root asks, and
    `FeatureOff` for a DR account on a server without cross-account DR.
    """
    if is_dr_account:
        features.require(Feature.CROSS_ACCOUNT)
    owner = scope.owner(actor, RIGHT, user)
    _check_limit(owner)
    account = Account(user=owner, is_dr_account=is_dr_account, name=name, authentication=authentication)
    _apply(actor, account, fields)
    with scope.name_is_unique("account", "account_name_of_user"):
        account.save()
    audit.record(actor, "account.created", account, after=audit.state_of(account))
    return account


@transaction.atomic
def update(
    *,
    actor: Actor,
    account: Account,
    name: str | None = None,
    authentication: Authentication | None = None,
    **fields: Unpack[AccountFields],
) -> Account:
    """Changes what is given. Owner and kind of an account never change. Raises what `create` raises."""
    row = scope.locked(actor, RIGHT, account, "account")
    was = audit.state_of(row)
    if row.authentication == Authentication.SERVER_ROLE:
        permissions.require(actor, SERVER_ROLE_RIGHT)
    row.name = row.name if name is None else name
    row.authentication = row.authentication if authentication is None else authentication
    _apply(actor, row, fields)
    with scope.name_is_unique("account", "account_name_of_user"):
        row.save()
    audit.record(actor, "account.updated", row, before=was, after=audit.state_of(row))
    return row


@transaction.atomic
def delete(*, actor: Actor, account: Account) -> None:
    """Forgets the account; its snapshots stay in AWS. Raises `InUse` while policies or accounts need it."""
    row = scope.locked(actor, RIGHT, account, "account")
    users = [f"policy {name}" for name in row.policies.order_by("name").values_list("name", flat=True)]
    users += [
        f"DR of policy {name}" for name in row.dr_policies.order_by("name").values_list("name", flat=True)
    ]
    users += [f"account {name}" for name in row.assumed_by.order_by("name").values_list("name", flat=True)]
    names = row.notifications.order_by("user__username").values_list("user__username", flat=True)
    users += [f"notification settings of {name}" for name in names]
    users += [f"S3 repository {name}" for name in row.s3_repositories.order_by("name").values_list("name", flat=True)]
    syncs = Target.objects.filter(resource_type="s3syncs", options__destination_account=row.pk)
    synced = syncs.order_by("policy__name", "pk").values_list("aws_resource_id", "policy__name")
    users += [f"S3 sync of {bucket} in policy {policy}" for bucket, policy in synced]
    users += ["the e-mail identity"] if EmailIdentity.objects.filter(account=row).exists() else []
    if users:
        raise InUse("account", users)
    audit.record(actor, "account.deleted", row, before=audit.state_of(row))
    row.delete()


def _check_limit(owner: User) -> None:
    # The lock on the owner makes two that create at once count each other.
    limit = User.objects.select_for_update().get(pk=owner.pk).max_accounts
    if limit is not None and owner.accounts.count() >= limit:
        raise LimitExceeded("accounts", limit)


def _apply(actor: Actor, account: Account, fields: AccountFields) -> None:
    """Put the fields into the account and check the whole; what the chosen authentication does not use is emptied."""
    key_before = account.access_key
    for name in _PLAIN:
        if name in fields:
            setattr(account, name, fields[name])  # type: ignore[literal-required]
    account.access_key = fields.get("aws_access_key", account.access_key)
    if account.pk and account.access_key != key_before and not fields.get("aws_secret_key"):
        account.secret_key = ""
    if fields.get("aws_secret_key"):
        account.secret_key = encrypt_secret(fields["aws_secret_key"])
    if "scan_regions" in fields:
        account.scan_regions = regions.enabled_ids(fields["scan_regions"], field="scan_regions")
    if "scan_resource_types" in fields:
        account.scan_resource_types = regions.resource_type_ids(
            fields["scan_resource_types"], field="scan_resource_types"
        )
    _apply_authentication(actor, account, fields)
    problems = _problems(account)
    if any(problems.values()):
        raise ValidationFailed(problems)


def _apply_authentication(actor: Actor, account: Account, fields: AccountFields) -> None:
    if account.authentication == Authentication.SERVER_ROLE:
        permissions.require(actor, SERVER_ROLE_RIGHT)
    if account.authentication != Authentication.KEYS:
        account.access_key = account.secret_key = ""
    if account.authentication != Authentication.ASSUME_ROLE:
        account.role_name = account.external_id = ""
        account.assume_from_account = None
        return
    source = fields.get("assume_from_account")
    if source is not None:
        # Only accounts of the same owner: a role assumed from somebody else's credentials would hand them over.
        account.assume_from_account = scope.referred(
            Account.objects.filter(user=account.user_id), source, what="account", field="assume_from_account"
        )
    elif "assume_from_account" in fields:
        account.assume_from_account = None


def _problems(account: Account) -> Problems:
    problems: Problems = defaultdict(list)
    problems["name"] += name_problems(account.name)
    if account.account_number and not _ACCOUNT_NUMBER.fullmatch(account.account_number):
        problems["account_number"].append(("An AWS account number has 12 digits.", "invalid"))
    if account.authentication == Authentication.KEYS:
        check_keys(account.access_key, account.secret_key, "aws", problems)
    elif account.authentication == Authentication.ASSUME_ROLE:
        _check_role(account, problems)
    return problems


def check_keys(access_key: str, secret_key: str, prefix: str, problems: Problems) -> None:
    """Adds what is wrong with a pair of keys to the problems of the fields `{prefix}_access_key`, `{prefix}_secret_key`."""
    if not access_key:
        problems[f"{prefix}_access_key"].append(("Access by keys needs the access key.", "required"))
    elif not _ACCESS_KEY.fullmatch(access_key):
        problems[f"{prefix}_access_key"].append(("An access key is 16 to 128 letters and digits.", "invalid"))
    if not secret_key:
        problems[f"{prefix}_secret_key"].append(
            ("Access by keys needs the secret key of this access key.", "required")
        )


def _check_role(account: Account, problems: Problems) -> None:
    if not account.account_number:
        problems["account_number"].append(("Assuming a role needs the number of its account.", "required"))
    if not account.role_name:
        problems["role_name"].append(("Assuming a role needs the name of the role.", "required"))
    elif account.role_name.startswith("arn:"):
        problems["role_name"].append(("This is an ARN; give the name of the role alone.", "invalid"))
    elif not _names_a_role(account.role_name):
        problems["role_name"].append(("This cannot be the name of an IAM role.", "invalid"))
    if account.external_id and not _EXTERNAL_ID.fullmatch(account.external_id):
        problems["external_id"].append(
            ("AWS accepts 2 to 1224 letters, digits and _+=,.@:/- here.", "invalid")
        )
    if account.assume_from_account is None:
        problems["assume_from_account"].append(
            ("Assuming a role needs the account to start from.", "required")
        )
    elif _starts_from_itself(account):
        problems["assume_from_account"].append(
            ("The accounts would assume their roles from each other in a circle.", "cycle")
        )


def _names_a_role(name: str) -> bool:
    try:
        role_arn("aws", "000000000000", name)
    except ValueError:
        return False
    return len(name) <= 128


def _starts_from_itself(account: Account) -> bool:
    seen = {account.pk} if account.pk else set()
    link = account.assume_from_account
    while link is not None:
        if link.pk in seen:
            return True
        seen.add(link.pk)
        link = link.assume_from_account
    return False
