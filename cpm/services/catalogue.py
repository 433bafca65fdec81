"""The catalogue, that is what CPM knows of its backups, rebuilt from the tags in AWS when the database was lost.

Rebuilding only adds: what is known already is passed over and never changed, so it may run at any time and again.
Policies come back disabled and keep everything, because AWS does not tell their schedules and generations.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db import connection, models, transaction

from cpm import permissions
from cpm.aws import gateway
from cpm.aws.errors import AwsError
from cpm.flows import tags
from cpm.flows.identities import account_number_of, identity_of
from cpm.flows.server import catalogue_scan
from cpm.flows.server.catalogue_scan import Found
from cpm.lib.errors import PreconditionFailed, ValidationFailed
from cpm.lib.names import SERVER_DATA, name_problems
from cpm.lib.states import Role
from cpm.models import Account, Actor, Backup, Policy, ServerSettings, Step
from cpm.resources.registry import WHOLE
from cpm.resources.whole import WholeResource
from cpm.services import audit, catalogue_records, catalogue_whole

RIGHT = "settings.change"
SESSION = "cpm-catalogue"
# Ids that the lost database gave out after the last tag that we can see stay unused.
ID_RESERVE = 100_000


@dataclass
class CatalogueResult:
    """What a rebuild found and made. `problems` are sentences for the operator."""

    found: int = 0
    known: int = 0
    policies: int = 0
    backups: int = 0
    snapshots: int = 0
    problems: list[str] = field(default_factory=list)


def rebuild(
    *, actor: Actor, account: Account, regions: Sequence[str] | None, server_id: str | None, now: datetime
) -> CatalogueResult:
    """Record what AWS has of backups of this account, in it and in the DR accounts of its owner.

    With `server_id` this server takes the identity of the lost one. Raises `PermissionDenied` for anybody but root,
    `ValidationFailed` for an id that is none, `PreconditionFailed` when nothing carries that id; an AwsError only
    for trouble that may pass. Regions and accounts that cannot be read are among the problems.
    """
    permissions.require(actor, RIGHT)
    wanted = _server_id(server_id)
    result = CatalogueResult()
    found = _search(account, regions, wanted, result)
    result.found = len(found)
    if server_id is not None and not found:
        why = " ".join(result.problems) or "Check the id, the account and the regions."
        raise PreconditionFailed("nothing_found", f"No snapshot of {account.name} carries the server id {wanted}. {why}")
    with transaction.atomic():
        settings = ServerSettings.objects.select_for_update().get(pk=1)
        if settings.server_id != UUID(wanted):
            ServerSettings.objects.filter(pk=1).update(server_id=wanted)
        for model, key in ((Backup, tags.BACKUP), (Policy, tags.POLICY_ID), (Step, tags.STEP)):
            skip_ids(model, catalogue_scan.highest(found, key))
        _record(account, found, result, now)
        made = {"policies": result.policies, "backups": result.backups, "snapshots": result.snapshots}
        text = (
            f"Catalogue of account “{account.name}” rebuilt from AWS: {result.policies} policies, {result.backups}"
            f" backups, {result.snapshots} snapshots."
        )
        audit.record(actor, "catalogue.rebuilt", account, after={**made, "server_id": wanted}, text=text)
    return result


def _server_id(given: str | None) -> str:
    if given is None:
        return str(ServerSettings.current().server_id)
    ServerSettings.current()
    try:
        return str(UUID(given))
    except ValueError:
        raise ValidationFailed.one("server_id", f"“{given}” is not the id of a server.") from None


def _search(account: Account, regions: Sequence[str] | None, server_id: str, result: CatalogueResult) -> list[Found]:
    number = account_number_of(account, session=SESSION)
    others = Account.objects.filter(user=account.user_id, is_dr_account=True).exclude(pk=account.pk)
    found: list[Found] = []
    for place in (account, *others.order_by("pk")):
        identity = identity_of(place, session=SESSION)
        try:
            names = list(regions) if regions else gateway.regions_enabled(identity)
        except AwsError as error:
            _problem(error, f"Account {place.name} was not searched", result)
            continue
        for region in names:
            try:
                ec2 = gateway.client(identity, "ec2", region)
                found += catalogue_scan.scan(ec2, place, server_id=server_id, protected=number)
            except AwsError as error:
                _problem(error, f"{region} of account {place.name} was not searched", result)
        for kind in WHOLE:
            found += _search_whole(kind, place, names, (server_id, number), result)
    return found


def _search_whole(
    kind: WholeResource, place: Account, regions: Sequence[str], ours: tuple[str, str], result: CatalogueResult
) -> list[Found]:
    """What backups made of one type, anywhere in an account. What AWS refuses in many regions is one problem."""
    identity, (server_id, number) = identity_of(place, session=SESSION), ours
    found: list[Found] = []
    refused: dict[str, tuple[AwsError, list[str]]] = {}
    for region in regions:
        try:
            client = gateway.client(identity, kind.snapshots_in, region)
            found += catalogue_scan.scan_whole(client, kind, place, server_id=server_id, protected=number)
        except AwsError as error:
            refused.setdefault(error.code, (error, []))[1].append(region)
    for why, names in refused.values():
        what = f"{', '.join(names)} of account {place.name} was not searched for snapshots of a {kind.noun}"
        _problem(why, what, result)
    return found


def _problem(error: AwsError, what: str, result: CatalogueResult) -> None:
    if error.transient:
        raise error
    result.problems.append(f"{what}: {error.explain()}")


def skip_ids(model: type[models.Model], highest: int) -> None:
    """Steps find what they made by their id, so no id that stands in a tag may be given out again."""
    with connection.cursor() as cursor:
        sequence = "pg_get_serial_sequence(%s, 'id')"
        cursor.execute(f"SELECT pg_sequence_last_value({sequence}::regclass)", [model._meta.db_table])
        last = cursor.fetchone()[0] or 0
        if highest > last:
            cursor.execute(f"SELECT setval({sequence}, %s)", [model._meta.db_table, highest + ID_RESERVE])


def _record(account: Account, found: Sequence[Found], result: CatalogueResult, now: datetime) -> None:
    groups: dict[int, list[Found]] = defaultdict(list)
    for one in found:
        groups[one.backup].append(one)
    known = catalogue_records.known(found)
    initial: catalogue_records.Initial = {}
    new_policies: set[int] = set()
    # Backups that tell the whole name of their policy come first: others find it by its words.
    for number in sorted(groups, key=lambda number: (_named(groups[number]).guessed, number)):
        policy, made = _policy(account, groups[number])
        if made:
            new_policies.add(policy.pk)
        group = catalogue_records.Group(account, policy, number, groups[number], known, initial)
        result.backups += group.record(now)
        if policy.pk in new_policies:
            catalogue_records.add_targets(policy, groups[number])
        result.known += group.known_before
        result.snapshots += group.made
        result.problems += group.problems
    result.policies = len(new_policies)
    result.problems += catalogue_whole.not_known(found, known)


def _named(group: Sequence[Found]) -> Found:
    """One that says most of its policy."""
    return min(group, key=lambda one: one.guessed)


def _policy(account: Account, group: Sequence[Found]) -> tuple[Policy, bool]:
    """The policy of that name, made disabled and keeping everything when there is none."""
    best = _named(group)
    labels = best.labels
    name = labels.get(tags.POLICY, "")
    if best.guessed and (known := catalogue_records.policy_with_words(account, name)):
        return known, False
    # Whoever may tag in AWS must not become the owner of the server's own backup.
    reserved = name == SERVER_DATA and account.user.role != Role.ROOT
    if reserved or name_problems(name):
        name = f"rebuilt-{catalogue_scan.number_of(labels, tags.POLICY_ID) or 0}"
    return catalogue_records.policy_named(account, name)
