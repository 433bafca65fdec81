"""The AWS actions that an S3 sync calls, each with its reason: of the source's account, and of the destination's.

Which buckets are synced is the customer's choice, so they cannot be named here; the resources are there to be narrowed.
With two accounts the identity of the destination makes the copies. `SOURCE_BUCKET_POLICY` is what the source's bucket must
allow it then, besides the key if the source is encrypted with one of KMS.
"""

from collections.abc import Mapping

from cpm.aws.iam_policy import IamAction

GROUP_SOURCE = "s3 sync source"
GROUP_DESTINATION = "s3 sync destination"
_BUCKETS = "arn:{partition}:s3:::*"
_OBJECTS = "arn:{partition}:s3:::*/*"
_KEYS = "arn:{partition}:kms:*:*:key/*"
_BY_S3 = {"StringLike": {"kms:ViaService": "s3.*.amazonaws.com*"}}

SOURCE = (
    IamAction("s3:ListBucket", GROUP_SOURCE, "finds the objects to mirror", _BUCKETS),
    IamAction("s3:GetObject", GROUP_SOURCE, "reads the metadata of large objects", _OBJECTS),
    IamAction("s3:GetObjectTagging", GROUP_SOURCE, "reads the tags of large objects", _OBJECTS),
    IamAction("kms:Decrypt", GROUP_SOURCE, "S3 reads the metadata of encrypted objects", _KEYS, _BY_S3, "s3:GetObject"),
)
DESTINATION = (
    IamAction("s3:ListBucket", GROUP_DESTINATION, "finds what the mirror has already", _BUCKETS),
    IamAction("s3:GetObject", GROUP_DESTINATION, "S3 reads the source of a copy", _OBJECTS),
    IamAction("s3:GetObjectTagging", GROUP_DESTINATION, "S3 reads the tags of a copy's source", _OBJECTS),
    IamAction("s3:PutObject", GROUP_DESTINATION, "writes copies", _OBJECTS),
    IamAction("s3:PutObjectTagging", GROUP_DESTINATION, "gives copies the tags of their source", _OBJECTS, within="s3:PutObject"),
    IamAction("s3:DeleteObject", GROUP_DESTINATION, "removes what the source no longer has", _OBJECTS),
    IamAction("s3:ListBucketMultipartUploads", GROUP_DESTINATION, "finds copies that broke off", _BUCKETS),
    IamAction(
        "s3:ListMultipartUploadParts", GROUP_DESTINATION, "learns which parts such a copy has", _OBJECTS
    ),
    IamAction("s3:AbortMultipartUpload", GROUP_DESTINATION, "removes parts of copies that failed", _OBJECTS),
    IamAction("kms:Decrypt", GROUP_DESTINATION, "S3 reads encrypted sources and parts", _KEYS, _BY_S3, "s3:PutObject"),
    IamAction("kms:GenerateDataKey", GROUP_DESTINATION, "S3 encrypts with the bucket's key", _KEYS, _BY_S3, "s3:PutObject"),
)
IAM_ACTIONS = (*SOURCE, *DESTINATION)

SOURCE_BUCKET_POLICY = ("s3:GetObject", "s3:GetObjectTagging")
"""Without the second, objects that have tags come without them."""

NEEDS: Mapping[str, frozenset[str]] = {
    "AbortMultipartUpload": frozenset({"s3:AbortMultipartUpload"}),
    "CompleteMultipartUpload": frozenset({"s3:PutObject"}),
    "CopyObject": frozenset({"s3:GetObject", "s3:GetObjectTagging", "s3:PutObject", "s3:PutObjectTagging"}),
    "CreateMultipartUpload": frozenset({"s3:PutObject", "s3:PutObjectTagging", "kms:GenerateDataKey"}),
    "DeleteObject": frozenset({"s3:DeleteObject"}),
    "DeleteObjects": frozenset({"s3:DeleteObject"}),
    "GetObjectTagging": frozenset({"s3:GetObjectTagging"}),
    "HeadObject": frozenset({"s3:GetObject"}),
    "ListMultipartUploads": frozenset({"s3:ListBucketMultipartUploads"}),
    "ListObjectsV2": frozenset({"s3:ListBucket"}),
    "ListParts": frozenset({"s3:ListMultipartUploadParts"}),
    "UploadPartCopy": frozenset({"s3:GetObject", "s3:PutObject", "kms:Decrypt"}),
}
"""IAM actions by the API action that is recorded for a request."""
