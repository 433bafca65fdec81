"""What block I/O needs to be allowed, by the request that needs it. Flows put these into the policies they generate."""

from collections.abc import Mapping

from cpm.aws.iam_policy import IamAction, tagged_as_ours, tagging_as_ours

SNAPSHOTS = "arn:{partition}:ec2:*::snapshot/*"
BUCKETS = "arn:{partition}:s3:::*"
OBJECTS = "arn:{partition}:s3:::*/*"
OURS = tagged_as_ours()

READ_SNAPSHOTS = (
    IamAction("ebs:ListSnapshotBlocks", "copy to S3", "finds the blocks of a snapshot", SNAPSHOTS, OURS),
    IamAction(
        "ebs:ListChangedBlocks", "copy to S3", "finds what changed since the last copy", SNAPSHOTS, OURS
    ),
    IamAction("ebs:GetSnapshotBlock", "copy to S3", "reads blocks", SNAPSHOTS, OURS),
)
WRITE_SNAPSHOTS = (
    IamAction(
        "ebs:StartSnapshot",
        "recovery from S3",
        "begins the snapshot to recover",
        SNAPSHOTS,
        tagging_as_ours(),
    ),
    IamAction("ebs:PutSnapshotBlock", "recovery from S3", "writes blocks", SNAPSHOTS, OURS),
    IamAction("ebs:CompleteSnapshot", "recovery from S3", "completes that snapshot", SNAPSHOTS, OURS),
)
REPOSITORY = (
    IamAction("s3:PutObject", "S3 repository", "stores packs, indexes and manifests", OBJECTS),
    IamAction("s3:GetObject", "S3 repository", "reads them", OBJECTS),
    IamAction("s3:ListBucket", "S3 repository", "lists them, and tells absent from forbidden", BUCKETS),
    IamAction("s3:DeleteObject", "S3 repository", "removes what no backup needs", OBJECTS),
)
IMMUTABLE_REPOSITORY = (
    IamAction("s3:PutObjectRetention", "immutable S3 repository", "locks objects", OBJECTS),
    IamAction(
        "s3:GetObjectRetention", "immutable S3 repository", "learns how long an object is locked", OBJECTS
    ),
    IamAction("s3:ListBucketVersions", "immutable S3 repository", "finds the versions to remove", BUCKETS),
    IamAction(
        "s3:DeleteObjectVersion", "immutable S3 repository", "removes versions whose lock has ended", OBJECTS
    ),
)
ARCHIVE = (IamAction("s3:RestoreObject", "archive", "asks for readable copies of archived objects", OBJECTS),)

NEEDS: Mapping[str, frozenset[str]] = {
    "ListSnapshotBlocks": frozenset({"ebs:ListSnapshotBlocks"}),
    "ListChangedBlocks": frozenset({"ebs:ListChangedBlocks"}),
    "GetSnapshotBlock": frozenset({"ebs:GetSnapshotBlock"}),
    "StartSnapshot": frozenset({"ebs:StartSnapshot"}),
    "PutSnapshotBlock": frozenset({"ebs:PutSnapshotBlock"}),
    "CompleteSnapshot": frozenset({"ebs:CompleteSnapshot"}),
    "PutObject": frozenset({"s3:PutObject", "s3:PutObjectRetention"}),
    "GetObject": frozenset({"s3:GetObject"}),
    "HeadObject": frozenset({"s3:GetObject", "s3:GetObjectRetention"}),
    "ListObjectsV2": frozenset({"s3:ListBucket"}),
    "ListObjectVersions": frozenset({"s3:ListBucketVersions"}),
    "DeleteObjects": frozenset({"s3:DeleteObject", "s3:DeleteObjectVersion"}),
    "PutObjectRetention": frozenset({"s3:PutObjectRetention"}),
    "RestoreObject": frozenset({"s3:RestoreObject"}),
}
"""IAM actions by the API action that is recorded for a request; S3 names many of them differently."""
