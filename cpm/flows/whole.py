"""What the flows of all types that AWS snapshots as a whole share: their types, records and names."""

import dataclasses
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings

from cpm.aws.errors import InUse, InvalidState, NotFound
from cpm.aws.gateway import AwsClient
from cpm.flows import polling, tags
from cpm.jobs.context import NotYet, StepContext
from cpm.jobs.kinds import Wait
from cpm.models import ServerSettings, Snapshot
from cpm.resources.registry import WHOLE_BY_KEY
from cpm.resources.whole import Held, Listed, Making, Place, WholeResource

# Snapshots of RDS clusters have the shortest names: 63 characters. This leaves 12 digits each for backup and step.
LONGEST_POLICY = 24
_NAME = re.compile(r"cpm-([0-9a-f]{8})-(?:(.+)-)?(\d{1,18})-(\d{1,18})")


def type_of(row: Snapshot) -> WholeResource:
    """The type of the resource whose snapshot this is."""
    return WHOLE_BY_KEY[row.resource_type]


def held(row: Snapshot) -> Held:
    """What the record knows, as types take it."""
    return Held(
        aws_id=row.aws_id,
        source_id=row.source_id,
        region=row.region,
        account_number=row.aws_account_number,
        details=row.details,
        encrypted=row.encrypted,
        capacity=row.capacity,
        started=row.start_time,
    )


def making(
    context: StepContext, row: Snapshot, options: Mapping[str, Any], place: Place | None = None
) -> Making:
    """The snapshot or copy that this step makes for the record; the same at every attempt. `place` is needed for a copy."""
    server = ServerSettings.current().server_id
    ours = {**context.payload["tags"], tags.STEP: str(context.step_id)}
    return Making(
        resource_id=row.source_id,
        name=name_of(server, row.backup.policy_name, row.backup_id, context.step_id),
        token=str(uuid.uuid5(server, f"step {context.step_id}")),
        tags=tags.with_source(ours, row.details.get("tags") or {}),
        # Not when it was last intended: what a worker had made before it died may be found hours later.
        since=context.lease.started_at,
        options=options,
        place=place or Place(row.aws_account_number, row.region),
        details=row.details,
    )


def until_listed(context: StepContext) -> None:
    """Raise NotYet until AWS's lists surely show what an interrupted run of this step may have made."""
    assert context.lease.intent_at is not None
    listed = context.lease.intent_at + timedelta(seconds=settings.CPM_AWS_LIST_LAG_SECONDS)
    if context.token is None and context.now < listed:
        seconds = (listed - context.now).total_seconds()
        raise NotYet(Wait(seconds, message="Looking for what an interrupted step may have made."))


def discard(context: StepContext, client: AwsClient, row: Snapshot, aws_id: str) -> None:
    """Delete what was made for the record under this id; absent is as good as deleted.

    Raises NotYet while AWS is not done with making it.
    """
    one = dataclasses.replace(held(row), aws_id=aws_id)
    removed(context, aws_id, lambda: type_of(row).delete(client, one))


def removed(context: StepContext, aws_id: str, remove: Callable[[], None]) -> None:
    """Remove something; absent is as good as removed. Raises NotYet while AWS is not ready for that."""
    try:
        remove()
    except NotFound:
        return
    except (InvalidState, InUse) as error:
        raise NotYet(polling.again(context.now, message=f"Waiting until {aws_id} can be deleted.")) from error


def name_of(server: uuid.UUID, policy: str, backup: int, step: int) -> str:
    """A name that every service takes (letters, digits, single dashes) and that no other step of any server has."""
    return "-".join(filter(None, ("cpm", server.hex[:8], words_of(policy), str(backup), str(step))))


def words_of(policy: str) -> str:
    """What names keep of the name of a policy."""
    return re.sub(r"[^a-z0-9]+", "-", policy.lower()).strip("-")[:LONGEST_POLICY].rstrip("-")


def labels_of(kind: WholeResource, listed: Listed, server: uuid.UUID) -> dict[str, str]:
    """The tags of a snapshot of this server, or what its name says in their place where AWS takes no tags: without the id of
    the policy, of whose name there are only words. Empty for a name of another server, or of none."""
    if kind.takes_tags:
        return dict(listed.tags)
    found = _NAME.fullmatch(listed.name)
    if found is None or found[1] != server.hex[:8]:
        return {}
    return {
        tags.SERVER: str(server),
        tags.POLICY: found[2] or "",
        tags.BACKUP: found[3],
        tags.STEP: found[4],
        tags.SOURCE: listed.source_id,
        tags.KIND: kind.kind,
        tags.ACCOUNT: listed.source_account,
    }
