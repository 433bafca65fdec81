"""What the tags of our snapshots say of the thing that was backed up, so that a lost database can be rebuilt.

The configuration is JSON, compressed with zlib, in base64 and cut into the tags cpm_config_0, cpm_config_1, …
The first begins with "1/<number of tags>/". Every snapshot of an instance carries the whole configuration of the
instance, so that any of them, or any DR copy, is enough. User data is left out: it often holds secrets, and
tags are read by everybody who may list snapshots.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from cpm.aws.errors import AwsError, NotFound
from cpm.flows import tags
from cpm.flows.backups import backup_snapshots
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind, StepSpec
from cpm.lib.states import RunIf, SnapshotKind
from cpm.models import Snapshot
from cpm.resources.registry import WHOLE_BY_KEY

QUEUE = "backup"
VERSION = "1"
# EC2 takes 256 characters in a value.
VALUE = 256
MOST_CONFIG_TAGS = 20
# Tags of ours beside the configuration, and what AWS's VSS document puts on by itself.
RESERVED_TAGS = 12
LEFT_OUT = "aws_user_data"
# These are known from the snapshot itself, or mean something only inside one database.
NOT_KEPT = frozenset({LEFT_OUT, "initial_ami", "kms_key_id"})


def pack(configuration: Mapping[str, Any], *, lean: bool = True) -> dict[str, str]:
    """The tags that hold a configuration, without what says nothing if it may be `lean`; empty when it does not fit."""
    kept = _lean(configuration) if lean else configuration
    content = json.dumps(kept, separators=(",", ":"), ensure_ascii=False).encode()
    text = base64.b64encode(zlib.compress(content, 9)).decode()
    for count in range(1, MOST_CONFIG_TAGS + 1):
        whole = f"{VERSION}/{count}/{text}"
        if len(whole) <= count * VALUE:
            parts = [whole[start : start + VALUE] for start in range(0, len(whole), VALUE)]
            return {f"{tags.CONFIG}{n}": part for n, part in enumerate(parts)}
    return {}


def unpack(labels: Mapping[str, str]) -> dict[str, Any] | None:
    """The configuration in these tags; None when there is none, or it is not whole."""
    first = labels.get(f"{tags.CONFIG}0", "")
    version, _, rest = first.partition("/")
    count, _, text = rest.partition("/")
    if version != VERSION or not count.isdecimal() or int(count) > tags.MOST_TAGS:
        return None
    more = [labels.get(f"{tags.CONFIG}{n}", "") for n in range(1, int(count))]
    try:
        found = json.loads(zlib.decompress(base64.b64decode("".join([text, *more]), validate=True)))
    except (ValueError, zlib.error):
        return None
    return found if _sound(found) else None


def _sound(found: Any) -> bool:
    """Tags can be edited by others, so their content is looked at before it is relied on."""
    if not isinstance(found, dict) or not isinstance(found.get("region"), str):
        return False
    if not all(isinstance(found.get(name, {}), dict) for name in ("volume", "instance", "resource")):
        return False
    devices = found.get("instance", {}).get("block_devices", [])
    inner = [found.get("instance", {}).get("tags", {})]
    inner += [found.get("resource", {}).get(name) or {} for name in ("tags", "options")]
    sound = isinstance(devices, list) and all(isinstance(one, dict) for one in (*devices, *inner))
    return sound and ("id" not in found or ("instance" in found and isinstance(found["id"], str)))


def of_row(row: Snapshot) -> dict[str, str]:
    """The tags for a snapshot or image of this record: the instance's configuration, or the volume's own."""
    if row.parent is not None:
        return of_instance(row.parent)
    if row.kind != SnapshotKind.VOLUME:
        return {}
    details = {k: v for k, v in row.details.items() if k not in NOT_KEPT | {"tags"}}
    return pack({"region": row.region, "device": row.device, "volume": details})


def of_whole(row: Snapshot) -> dict[str, str]:
    """The configuration of what AWS snapshots as a whole; without its own tags when it does not fit with them."""
    kind = WHOLE_BY_KEY[row.resource_type]
    if not kind.takes_tags:
        return {}
    kept = [name for name in (*kind.details, "options") if name in row.details and name not in NOT_KEPT]
    details = {name: row.details[name] for name in kept if name != "tags"}
    labels = row.details.get("tags") or {}
    fits = pack({"region": row.region, "resource": {**details, "tags": labels}}, lean=False)
    return fits or pack({"region": row.region, "resource": details}, lean=False)


def of_instance(parent: Snapshot) -> dict[str, str]:
    """The instance's configuration; without the instance's own tags when it does not fit with them."""
    details = {k: v for k, v in parent.details.items() if k not in NOT_KEPT}
    whole = {
        "region": parent.region,
        "id": parent.source_id,
        "instance": details,
        "user_data_left_out": bool(parent.details.get(LEFT_OUT)),
    }
    fits = pack(whole)
    if fits:
        return fits
    return pack({**whole, "instance": {k: v for k, v in details.items() if k != "tags"}, "tags_left_out": True})


def step(parent: Snapshot, rows: Sequence[Snapshot], *, after: str) -> StepSpec:
    """The step that puts an instance's configuration on its snapshots once they are started.

    CreateSnapshots gives all its snapshots the same tags beside those of their volumes, and fails for a volume
    that leaves no room; CreateTags afterwards keeps that from the moment that matters.
    """
    config = of_instance(parent)
    roomy = [row.pk for row in rows if room(row) >= len(config)]
    payload = {
        "account": parent.account_id,
        "region": parent.region,
        "rows": roomy if config else [],
        "config": config,
        "instance": parent.source_id,
    }
    return StepSpec("backup.keep_configuration", payload, key=f"keep-{after}", after=(after,), run_if=RunIf.ENDED)


def keep(context: StepContext) -> Outcome:
    """CreateTags with the configuration. Without it the backup is no worse, only the rebuilt catalogue is."""
    payload = context.payload
    found = Snapshot.objects.filter(pk__in=payload["rows"]).exclude(aws_id="").values_list("aws_id", flat=True)
    ids = sorted(found)
    if not payload["rows"]:
        context.warn(
            f"The configuration of {payload['instance']} does not fit into the tags of its snapshots."
            " From AWS alone, only its volumes could be recovered."
        )
    if not ids:
        return Done()
    try:
        backup_snapshots.ec2(context).call("CreateTags", Resources=ids, Tags=tags.as_list(payload["config"]))
    except NotFound:
        return Done("A snapshot is gone already.")
    except AwsError as error:
        if error.transient:
            raise
        context.warn(f"The configuration of {payload['instance']} is not in its snapshots' tags: {error.explain()}")
    return Done()


def room(row: Snapshot) -> int:
    """How many more tags fit onto the snapshot of a volume, beside the volume's own and ours."""
    return tags.MOST_TAGS - RESERVED_TAGS - len(row.details.get("tags", {}))


def _lean(value: Any) -> Any:
    """Without what says nothing; readers fill it in again."""
    if isinstance(value, Mapping):
        lean = {key: _lean(one) for key, one in value.items()}
        # A number is never left out: 0 says something.
        return {key: one for key, one in lean.items() if one is not None and one is not False and one not in ("", [], {})}
    return [_lean(one) for one in value] if isinstance(value, list) else value


KINDS = (StepKind("backup.keep_configuration", QUEUE, keep),)
