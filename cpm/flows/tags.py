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
# Put on DR copies that retention would delete but may not.
OUTDATED = "cpm_outdated"
OURS = frozenset({SERVER, POLICY, POLICY_ID, BACKUP, STEP, SOURCE, KIND, RECOVERY})

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
    return {key: value for key, value in tags.items() if key not in OURS and not key.startswith("aws:")}


def specification(kind: str, tags: Mapping[str, str]) -> dict[str, object]:
    """One entry of EC2's TagSpecifications."""
    return {"ResourceType": kind, "Tags": as_list(tags)}
