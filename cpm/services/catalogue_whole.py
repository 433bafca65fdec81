"""What a rebuilt catalogue records of resources that AWS snapshots as a whole.

Their tags keep the configuration that recovery needs. Where they do not, what AWS shows with the snapshot takes its place,
and where AWS shows nothing recovery leaves the choice to AWS.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from cpm.flows import tags
from cpm.flows.server.catalogue_scan import Found, number_of
from cpm.lib.states import SnapshotStatus
from cpm.models import Snapshot, Target
from cpm.resources.registry import WHOLE_BY_KEY, WHOLE_BY_KIND

Known = dict[tuple[str, str], Snapshot]


def in_making(found: Sequence[Found]) -> Known:
    """The records of these that backups at work have not given their id yet."""
    whole = [one for one in found if one.listed]
    rows = Snapshot.objects.filter(
        backup__in={one.backup for one in whole},
        resource_type__in=WHOLE_BY_KEY,
        status=SnapshotStatus.PENDING,
    ).select_related("backup", "parent")
    open_rows = {(row.backup_id, row.kind, row.source_id, row.account_id, row.region): row for row in rows}
    places = {
        (one.aws_id, one.region): (one.backup, one.kind, one.source_id, one.account.pk, one.region)
        for one in whole
    }
    return {place: open_rows[key] for place, key in places.items() if key in open_rows}


def fill(row: Snapshot, one: Found, original: Snapshot | None) -> None:
    """What tags and AWS say of the resource at the time of its snapshot or copy."""
    listed, kind = one.listed, WHOLE_BY_KIND[one.kind]
    assert listed is not None
    row.resource_type, row.source_id = kind.key, listed.source_id
    row.details = _details(one) | ({"original_snap": original.aws_id} if original else {})
    row.source_name = row.details["tags"].get("Name", "")
    row.capacity = listed.shown.capacity or row.details.get("capacity")
    known = row.details.get("encrypted")
    row.encrypted = listed.encrypted if known is None else bool(known)


def target(one: Found) -> dict[str, Any]:
    """What is kept of the target that the snapshot was made of, with what was chosen for it as far as tags tell."""
    kind, details = WHOLE_BY_KIND[one.kind], _details(one)
    return {
        "name": details["tags"].get("Name", ""),
        "details": {name: details[name] for name in kind.details},
        "options": {**{takes.name: takes.default for takes in kind.target_takes}, **(details.get("options") or {})},
    }


def add_target(policy_id: int, one: Found) -> None:
    """The resource becomes a target of the policy."""
    Target.objects.get_or_create(
        policy_id=policy_id,
        resource_type=WHOLE_BY_KIND[one.kind].key,
        aws_region=one.source_region,
        aws_resource_id=one.target_id,
        defaults=target(one),
    )


def not_known(found: Iterable[Found], known: Iterable[tuple[str, str]]) -> list[str]:
    """What of the new records AWS does not tell, in words for the operator."""
    passed, problems = set(known), {}
    for one in found:
        if one.listed is None or (one.aws_id, one.region) in passed:
            continue
        kind = WHOLE_BY_KIND[one.kind]
        if not kind.takes_tags:
            problems[kind.key] = (
                f"AWS keeps no tags with snapshots of a {kind.noun}: those of the original are not known, and a policy that"
                " nothing else tells of is named by the words of its name that are in the names of its snapshots."
            )
        elif "resource" not in one.configuration:
            problems[one.aws_id] = (
                f"Backup {number_of(one.labels, tags.BACKUP)}: the configuration of {one.source_id} is not in the tags of"
                f" {one.aws_id}; what AWS does not show with it has to be given at recovery, or is as AWS chooses."
            )
    return list(problems.values())


def _details(one: Found) -> dict[str, Any]:
    listed = one.listed
    assert listed is not None
    kept = one.configuration.get("resource", {})
    details = {
        **dict.fromkeys(WHOLE_BY_KIND[one.kind].details),
        **listed.details,
        "tags": tags.without_ours(one.labels),
        **kept,
        **listed.shown.details,
    }
    return {name: value for name, value in details.items() if name != "options" or value}
