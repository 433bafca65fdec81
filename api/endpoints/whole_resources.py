"""Databases, clusters, tables and file systems: their targets, snapshots and recoveries, derived from the resource registry.

For each type the registry says what its targets and snapshots show and what its requests take; this module makes the
addresses, bodies and fields of them. Reading asks AWS nothing.
"""

from datetime import datetime
from typing import Any, ClassVar

from django.db.models.fields.json import KT
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from api import serializers as shapes
from api.endpoints.recover import CredentialsBody, OneOf, Recovering, Switch, Word, recovering
from api.endpoints.snapshots import DR_VOLUME_FILTERS, VOLUME_FILTERS, OfKind, in_region, operations
from api.endpoints.targets import OF_POLICY, ROWS, OfType
from api.fields import Boolean, Choice, Field, Fields, Integer, Moment, NumberAsText, Text, TextOrNull
from api.filters import Matching
from api.views import Operation, Rows
from cpm.reports.snapshots import SNAPSHOT_TYPE
from cpm.resources.fields import Shows, Takes
from cpm.resources.registry import WHOLE
from cpm.resources.whole import WholeResource
from cpm.services import recoveries, targets

# The contract shows the id of the account that holds a snapshot as a number in these lists and as a text in the others.
ACCOUNT_IDS_AS_NUMBERS = frozenset({"rds_databases", "dr_rds_databases", "dr_rds_clusters"})
# In these the filter `region` is a text, in the others a number.
REGIONS_AS_TEXTS = frozenset({"dynamodb_tables"})
# Of all lists of copies these alone can be narrowed to a user.
COPIES_BY_USER = frozenset({"dr_efs"})
# What a body calls the account to recover to, a text for some types; it is an id for all of them.
ACCOUNT = "to_account"



def _in_named_region(rows: Rows, text: str) -> Rows:
    return in_region("region").apply(rows, text) if text.isdecimal() else rows.filter(region=text)


NAMED_REGION = Matching(_in_named_region, "Name or id of a region.")

COMMON_FIELDS = Fields(
    account_id=Integer("backup__account_id"),
    account_name=Text("backup__account_name"),
    aws_account_number=Text("backup__account__account_number"),
    backed_up_resource_id=Text("source_id"),
    backed_up_resource_name=Text("source_name"),
    backup_id=NumberAsText("backup_id"),
    deletion_time=Moment("deletion_time"),
    end_time=Moment("end_time"),
    id=Integer("id"),
    instance_id=TextOrNull("instance_id"),
    instance_name=TextOrNull("instance_name"),
    policy_name=Text("backup__policy_name"),
    region=Text("region"),
    snapshot_account_name=Text("account_name"),
    snapshot_aws_account_number=Text("aws_account_number"),
    snapshot_id=Text("aws_id"),
    snapshot_type=Text(SNAPSHOT_TYPE),
    start_time=Moment("backup__start_time"),
    status=Text("status"),
    succeeded=Boolean("succeeded"),
    username=Text("backup__user__username"),
)


def shown(one: Shows) -> Field:
    """The field of an answer that a type declares."""
    if one.choices is not None:
        # The key of a JSON column as a text, which is what its emptiness is told by.
        return Choice(KT(one.path) if "__" in one.path else one.path, one.choices)
    kinds: dict[type, type[Field]] = {str: Text, int: Integer, bool: Boolean, datetime: Moment}
    return kinds[one.holds](one.path)


def taken(one: Takes) -> serializers.Field[Any, Any, Any, Any]:
    """The field of a body that a type declares."""
    common: dict[str, Any] = {"required": one.required, "help_text": one.help}
    if one.name == ACCOUNT:
        return shapes.Id(**common)
    if one.choices is not None:
        return shapes.Choice(one.choices, **common)
    if one.words:
        return OneOf(*one.words, help_text=one.help)
    if one.holds is int:
        return shapes.Whole(**common)
    if one.holds is bool:
        return Switch(**common) if one.default is None else Switch(default=one.default, help_text=one.help)
    return Word(**common, **({"allow_blank": False} if one.required else {}))


def body(name: str, about: str, *fields: Takes, **more: serializers.Field[Any, Any, Any, Any]) -> type[shapes.Body]:
    """A body with these fields."""
    made = {one.name: taken(one) for one in fields}
    return type(name, (shapes.Body,), {**made, **more, "__doc__": about})


class WholeTargets(OfType):
    """Targets of one type that AWS snapshots as a whole."""

    whole: ClassVar[WholeResource]

    def create(self, request: Request, policy_id: int) -> HttpResponseBase:
        policy, given = self.policy(), self.body()
        resource_id = given.pop(self.whole.id_field)
        made = targets.add_whole(
            actor=self.actor,
            policy=policy,
            key=self.whole.key,
            region=given.pop("aws_region"),
            resource_id=resource_id,
            now=timezone.now(),
            options=given,
        )
        return self.show(made.pk)

    def update(self, request: Request, policy_id: int, id: int) -> HttpResponseBase:
        targets.update_whole(actor=self.actor, target=self.find(id), options=self.body())
        return self.show(id)


def targets_of(kind: WholeResource) -> type[WholeTargets]:
    """The view of the targets of a type."""
    identity = Takes(kind.id_field, required=True, help=f"Id of the {kind.noun} in AWS.")
    region = Takes("aws_region", required=True, help="Name of the region, as us-east-1.")
    name = type(kind).__name__
    fields = Fields(
        aws_region=Text("aws_region"),
        aws_resource_id=Text("aws_resource_id"),
        id=Integer("id"),
        resource_type=Text("resource_type"),
        tagged=Boolean("tagged"),
    ).extended(**{one.name: shown(one) for one in kind.target_fields})
    found = {
        "list": Operation("policies.read", since=kind.since, many=True, summary=f"List a policy's targets: {kind.noun}"),
        "create": Operation(
            "policies.change", since=kind.since, answers=201, summary=f"Put under a policy: {kind.noun}",
            body=body(f"New{name}Body", f"The {kind.noun} to be protected.", region, identity, *kind.target_takes),
        ),
        "retrieve": Operation("policies.read", since=kind.since, summary=f"Show a target: {kind.noun}"),
        "destroy": Operation(
            "policies.change", since=kind.since, answers=204, content=False, summary=f"Take out of a policy: {kind.noun}"
        ),
    }  # fmt: skip
    if kind.target_takes:
        changes = body(f"{name}Body", "What is left out keeps its value.", *kind.target_takes)
        found["update"] = Operation(
            "policies.change", since=kind.since, body=changes, summary=f"Change a target: {kind.noun}"
        )
    declared = {
        "whole": kind,
        "resource_type": kind.key,
        "noun": kind.noun,
        "fields": fields,
        "operations": found,
        "__doc__": f"Under a policy: {kind.noun}.",
    }
    return type(f"{name}Targets", (WholeTargets,), declared)


def snapshots_of(kind: WholeResource, listed: str) -> type[OfKind]:
    """The view of one list of snapshots of a type: its own, or its DR copies."""
    copies = listed == kind.dr_kind
    noun = f"{'DR ' if copies else ''}{kind.noun} snapshot"
    extra = [*kind.snapshot_fields, *(kind.dr_fields if copies else ())]
    account = Integer if listed in ACCOUNT_IDS_AS_NUMBERS else NumberAsText
    fields = COMMON_FIELDS.extended(
        snapshot_account_id=account("account_id"), **{one.name: shown(one) for one in extra}
    )
    declared = {
        "kind": listed,
        "noun": noun,
        "fields": fields,
        "filters": {
            **(DR_VOLUME_FILTERS if copies and listed not in COPIES_BY_USER else VOLUME_FILTERS),
            **({"region": NAMED_REGION} if listed in REGIONS_AS_TEXTS else {}),
        },
        "operations": operations(noun, since=kind.dr_since if copies else kind.since_snapshots),
        "__doc__": f"Of a backup: {noun}s.",
    }
    return type(f"{type(kind).__name__}{'Copies' if copies else 'Snapshots'}", (OfKind,), declared)


def recovery_of(kind: WholeResource, listed: type[OfKind]) -> type[Recovering]:
    """The view that recovers from the records of one list."""
    name = type(kind).__name__
    wanted = body(
        f"{name}RecoveryBody", "What is left out is as it was.", *kind.recover_takes,
        credentials=CredentialsBody(required=False),
    )  # fmt: skip
    copies = listed.kind == kind.dr_kind
    declared = {
        "kind": listed.kind,
        "noun": listed.noun,
        "filters": {},
        "service": staticmethod(recoveries.recover_whole),
        "operations": recovering(wanted, kind.dr_since if copies else kind.since_snapshots, f"from a {listed.noun}"),
        "__doc__": f"Recovery from a {listed.noun}.",
    }
    return type(f"Recover{listed.__name__}", (Recovering,), declared)


def routes(kind: WholeResource) -> list[Any]:
    """All addresses of a type."""
    of_policy = targets_of(kind)
    one: dict[str, Any] = {"get": "retrieve", "delete": "destroy"}
    changed = {"put": "update"} if kind.target_takes else {}
    found = [
        path(f"{OF_POLICY}/{kind.key}/", of_policy.as_view(ROWS)),
        path(f"{OF_POLICY}/{kind.key}/<id:id>/", of_policy.as_view({**one, **changed})),
    ]
    for name in filter(None, (kind.kind, kind.dr_kind)):
        listed = snapshots_of(kind, name)
        snapshots = f"backups/<id:backup_id>/snapshots/{name}"
        found += [
            path(f"{snapshots}/", listed.as_view({"get": "list"})),
            path(f"{snapshots}/<id:id>/", listed.as_view(one)),
            path(
                f"{snapshots}/<id:snapshot_record_id>/recover/",
                recovery_of(kind, listed).as_view({"post": "recover"}),
            ),
        ]
    return found


urlpatterns = [route for kind in WHOLE for route in routes(kind)]
