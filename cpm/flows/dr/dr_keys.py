"""Choosing the KMS key of an encrypted copy (security setting "encryption key detection").

A key of the target region matches by the alias of the source's key, or by its tag `cpm_dr_key` that names that
alias. AWS facts: EC2 API Reference, CopySnapshot; KMS API Reference, ListAliases and ListResourceTags.
"""

from dataclasses import dataclass

from cpm.aws.errors import AwsError, Denied, NotFound
from cpm.aws.gateway import AwsClient
from cpm.lib.states import KeyDetection

EBS_ALIAS = "alias/aws/ebs"
TAG = "cpm_dr_key"


class NoKey(Exception):
    """No key may be used for the copy; the message tells what to do."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`key_id` None means the region's default key; `fallback` that it stands in for a missing match."""

    key_id: str | None
    fallback: bool = False


def choose(
    *,
    source_kms: AwsClient,
    target_kms: AwsClient,
    key_id: str,
    default_alias: str,
    cross_account: bool,
    detection: KeyDetection,
) -> Choice:
    """The key for a copy of a snapshot that is encrypted with `key_id`; raises NoKey, or AwsError."""
    alias = alias_of(source_kms, key_id)
    if alias == default_alias:
        if cross_account:
            raise unusable_elsewhere(default_alias)
        return Choice(None)
    found = _by_alias(target_kms, alias) or _by_tag(target_kms, {alias or "", key_id, key_id.rsplit("/", maxsplit=1)[-1]})
    if found:
        return Choice(found)
    if detection is KeyDetection.STRICT:
        raise NoKey(
            f"No KMS key in {target_kms.region} matches the source's key ({alias or key_id}). Make one with the same"
            f" alias, or tag one {TAG}={alias or key_id}, or let the security settings use the default key."
        )
    return Choice(None, fallback=True)


def unusable_elsewhere(default_alias: str) -> NoKey:
    """What an AWS managed key encrypts can be used by no other account."""
    return NoKey(
        f"The snapshot is encrypted with the default key {default_alias.removeprefix('alias/')}, which AWS does not"
        " let other accounts use. Encrypt the source with a customer managed key and share that key with the DR"
        " account."
    )


def alias_of(kms: AwsClient, key_id: str) -> str:
    """The alias of a key as alias/name, or an empty text. A key of another account shows no aliases."""
    try:
        aliases = list(kms.paginate("ListAliases", "Aliases", KeyId=key_id))
    except (NotFound, Denied):
        return ""
    names = sorted(alias["AliasName"] for alias in aliases)
    return names[0] if names else ""


def _by_alias(kms: AwsClient, alias: str) -> str:
    if not alias:
        return ""
    for found in kms.paginate("ListAliases", "Aliases"):
        if found["AliasName"] == alias and found.get("TargetKeyId"):
            return str(found["TargetKeyId"])
    return ""


def _by_tag(kms: AwsClient, wanted: set[str]) -> str:
    for key in kms.paginate("ListKeys", "Keys"):
        try:
            tags = list(kms.paginate("ListResourceTags", "Tags", KeyId=key["KeyId"]))
        except AwsError as error:
            if error.transient:
                raise
            continue  # keys that may not be looked into cannot be the one that was tagged for us
        if any(tag["TagKey"] == TAG and tag["TagValue"] in wanted for tag in tags):
            return str(key["KeyId"])
    return ""
