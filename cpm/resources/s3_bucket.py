"""S3 buckets that are the source of an S3 sync. Nothing of them is snapshotted: `cpm.s3_sync` mirrors their objects.

AWS: Amazon S3 API Reference, "HeadBucket".
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cpm.aws.client import AwsClient
from cpm.aws.errors import AwsError, Denied, NotFound
from cpm.aws.iam_policy import IamAction
from cpm.resources.base import Described, ResourceType

SOURCE = "s3 sync source"
BUCKETS = "arn:{partition}:s3:::*"
NOT_ENCRYPTED = "ServerSideEncryptionConfigurationNotFoundError"
VERSIONED = ("Enabled", "Suspended")


class S3Bucket(ResourceType):
    """A bucket. Its region is among its details, for S3 finds buckets from wherever it is asked."""

    key = "s3syncs"
    noun = "S3 bucket"
    id_field = "name"
    service = "s3"
    policy = "optional-s3-sync"
    # S3 user guide, "General purpose bucket naming rules"; the oldest buckets in us-east-1 have underscores and capitals.
    id_pattern = r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,253}[a-zA-Z0-9]"
    details = ("creation_date", "is_encrypted", "region", "status", "versioned")
    iam_actions = (
        IamAction("s3:ListBucket", SOURCE, "looks whether the source is there, and where", BUCKETS),
        IamAction("s3:ListAllMyBuckets", SOURCE, "learns when the source was created"),
        IamAction("s3:GetEncryptionConfiguration", SOURCE, "shows whether the source is encrypted", BUCKETS),
        IamAction("s3:GetBucketVersioning", SOURCE, "shows whether the source keeps versions", BUCKETS),
    )

    def describe(self, client: AwsClient, ids: Sequence[str]) -> dict[str, Described]:
        found = {}
        for name in ids:
            try:
                region = region_of(client, name)
                found[name] = Described(
                    id=name,
                    tags={},
                    details={
                        "creation_date": _creation_date(client, name),
                        "is_encrypted": _is_encrypted(client, name),
                        "region": region,
                        "status": "available",
                        "versioned": client.call("GetBucketVersioning", Bucket=name).get("Status") in VERSIONED,
                    },
                )
            except NotFound:
                continue
        return found

    def existing(self, client: AwsClient, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Described]:
        """All but those that are definitely absent. One that denies even to be looked at exists; what copies its objects
        says so, and no other bucket of the region suffers from it."""
        found = {}
        for name, details in known.items():
            try:
                region = region_of(client, name)
            except NotFound:
                continue
            except Denied:
                region = str(details.get("region") or client.region)
            found[name] = Described(id=name, tags={}, details={**details, "region": region})
        return found


def region_of(client: AwsClient, bucket: str) -> str:
    """Where the bucket is. Raises `NotFound` for one that does not exist, and other `AwsError`."""
    return str(client.call("HeadBucket", Bucket=bucket).get("BucketRegion") or client.region)


def _creation_date(client: AwsClient, bucket: str) -> str:
    """Only the owner of a bucket is told."""
    for one in client.paginate("ListBuckets", "Buckets", Prefix=bucket):
        if one["Name"] == bucket:
            return str(one["CreationDate"].isoformat())
    return ""


def _is_encrypted(client: AwsClient, bucket: str) -> bool:
    try:
        client.call("GetBucketEncryption", Bucket=bucket)
    except AwsError as error:
        if error.code != NOT_ENCRYPTED:
            raise
        return False
    return True
