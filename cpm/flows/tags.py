"""The tags that CPM puts on everything it makes in AWS, and the translation between AWS's two shapes of tags."""

from collections.abc import Iterable, Mapping

SERVER = "cpm_server_id"
POLICY = "cpm_policy_name"
POLICY_ID = "cpm_policy_id"
BACKUP = "cpm_backup_id"
STEP = "cpm_step_id"
SOURCE = "cpm_source_id"
KIND = "cpm_kind"
RECOVERY = "cpm_recovery_id"
# The number of the account that was backed up: a DR account may hold the copies of several.
ACCOUNT = "cpm_account_number"
# How many snapshots and images the run was to make.
COUNT = "cpm_snapshots"
# The configuration of what was backed up, in several tags (see `catalogue_tags`).
CONFIG = "cpm_config_"
# Put on DR copies that retention would delete but may not.
OUTDATED = "cpm_outdated"
OURS = frozenset({SERVER, POLICY, POLICY_ID, BACKUP, STEP, SOURCE, KIND, RECOVERY, ACCOUNT, COUNT, OUTDATED})

# EC2 takes 50 tags per resource, and reserves keys that start with "aws:".
MOST_TAGS = 50


def as_dict(tags: Iterable[Mapping[str, str]] | None) -> dict[str, str]:
    """EC2's [{Key, Value}] as a mapping."""
    return {tag["Key"]: tag["Value"] for tag in tags or ()}


def as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """A mapping as EC2's [{Key, Value}]."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def with_source(ours: Mapping[str, str], source: Mapping[str, str]) -> dict[str, str]:
    """Our tags with the source's own beside them, as many as AWS takes; ours win."""
    merged = dict(ours)
    for key, value in source.items():
        if len(merged) == MOST_TAGS:
            break
        if not key.startswith("aws:"):
            merged.setdefault(key, value)
    return merged


def without_ours(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that a recovered resource gets back: the source's own."""
    return {key: value for key, value in tags.items() if key not in OURS and not key.startswith(("aws:", CONFIG))}


def made_by(step_id: int, server_id: str) -> list[dict[str, object]]:
    """EC2 filters for what one step of one server has made; several servers may share an account."""
    return [{"Name": f"tag:{STEP}", "Values": [str(step_id)]}, {"Name": f"tag:{SERVER}", "Values": [server_id]}]


def specification(kind: str, tags: Mapping[str, str]) -> dict[str, object]:
    """One entry of EC2's TagSpecifications."""
    return {"ResourceType": kind, "Tags": as_list(tags)}
