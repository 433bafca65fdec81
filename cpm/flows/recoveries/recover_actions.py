"""The AWS actions that recoveries call, each with its reason: the source of the IAM policy for recovery."""

from cpm.aws.block_io_actions import WRITE_SNAPSHOTS
from cpm.aws.iam_policy import IamAction, tag_only_on_create, tagged_as_ours

GROUP = "recovery"
REPLACE = "replacing volumes"
_EVERYWHERE = {
    "ec2:AttachNetworkInterface": "gives a recovered instance its additional network interfaces",
    "ec2:AttachVolume": "attaches a recovered volume to the instance that was chosen for it",
    "ec2:CopyImage": "brings the image of a backup to the region of the recovery",
    "ec2:CopySnapshot": "brings a snapshot to the region or account of the recovery",
    "ec2:CreateNetworkInterface": "makes additional network interfaces again that the instance had",
    "ec2:CreateVolume": "makes a volume from a snapshot",
    "ec2:DescribeAvailabilityZones": "finds the zones in which a volume can be recovered",
    "ec2:DescribeImageAttribute": "sees which accounts may use an image already",
    "ec2:DescribeImages": "finds the image to recover from and waits for copies",
    "ec2:DescribeInstances": "waits until instances run and sees what is attached to them",
    "ec2:DescribeKeyPairs": "checks that the key pair exists before anything is made",
    "ec2:DescribeNetworkInterfaces": "checks that an address is free and finds additional interfaces",
    "ec2:DescribePlacementGroups": "checks that the placement group exists before anything is made",
    "ec2:DescribeSecurityGroups": "checks that the security groups exist before anything is made",
    "ec2:DescribeSnapshotAttribute": "sees which accounts may use a snapshot already",
    "ec2:DescribeSnapshots": "finds the snapshots to recover from and waits for copies",
    "ec2:DescribeSubnets": "finds the subnet to recover to",
    "ec2:DescribeVolumes": "waits for volumes and sees what they are attached to",
    "ec2:DetachVolume": "makes room for a recovered volume",
    "ec2:ModifyInstanceAttribute": "sets which volumes end with an instance, and its enhanced networking",
    "ec2:ModifyNetworkInterfaceAttribute": "lets an interface made for an instance end with it",
    "ec2:RegisterImage": "makes an image from the snapshot of a root volume",
    "ec2:RunInstances": "launches recovered instances",
    "iam:GetInstanceProfile": "checks that the original's instance profile still exists",
    "kms:ListAliases": "finds the key for copies of encrypted snapshots",
    "kms:ListKeys": "finds the key for copies of encrypted snapshots",
    "kms:ListResourceTags": "finds the key for copies of encrypted snapshots",
    "sts:GetCallerIdentity": "learns the number of the account to share with",
}
_OURS = {
    "ec2:CreateTags": "gives the volumes of a recovered instance the tags of the originals",
    "ec2:DeleteVolume": "removes volumes that a failed recovery has made",
    "ec2:ModifySnapshotAttribute": "lets the account to recover to use a snapshot for the time of the recovery",
    "ec2:ModifyImageAttribute": "lets the account to recover to use an image for the time of the recovery",
    "ec2:DeleteNetworkInterface": "removes an interface that a failed recovery has made",
    "ec2:DeleteSnapshot": "removes temporary copies",
    "ec2:DeregisterImage": "removes temporary images",
    "ec2:StartInstances": "starts an instance that was launched by the recovery, with its recovered volumes",
    "ec2:StopInstances": "stops an instance that was launched by the recovery, to switch its volumes",
    "ec2:TerminateInstances": "ends instances that a failed recovery has launched",
}
_KMS = {
    "kms:Decrypt": "reads encrypted snapshots",
    "kms:GenerateDataKey": "EBS encrypts blocks that are written into a snapshot",
    "kms:DescribeKey": "looks at the key of an encrypted snapshot",
    "kms:GenerateDataKeyWithoutPlaintext": "encrypts recovered volumes and copies",
    "kms:ReEncryptFrom": "changes the key of a copy",
    "kms:ReEncryptTo": "changes the key of a copy",
}
IAM_ACTIONS: tuple[IamAction, ...] = (
    *(IamAction(action, GROUP, why) for action, why in _EVERYWHERE.items()),
    *(IamAction(action, GROUP, why, condition=tagged_as_ours()) for action, why in _OURS.items()),
    *(IamAction(action, GROUP, why, resource="arn:{partition}:kms:*:*:key/*") for action, why in _KMS.items()),
    *WRITE_SNAPSHOTS,
    IamAction(
        "ec2:CreateTags",
        GROUP,
        "tags what a recovery makes as ours, and with the tags of the original",
        condition=tag_only_on_create(
            "CopyImage", "CopySnapshot", "CreateNetworkInterface", "CreateVolume", "RegisterImage", "RunInstances",
            "StartSnapshot",
        ),
    ),
    IamAction(
        "ec2:DeleteVolume", REPLACE, "deletes the volume that a recovered one has replaced (switch_and_delete)"
    ),
    IamAction(
        "kms:CreateGrant",
        GROUP,
        "lets EC2 use the key of an encrypted volume",
        resource="arn:{partition}:kms:*:*:key/*",
        condition={"Bool": {"kms:GrantIsForAWSResource": "true"}},
    ),
    IamAction(
        "iam:PassRole",
        GROUP,
        "gives a recovered instance the instance profile of the original",
        resource="arn:{partition}:iam::*:role/*",
        condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
    ),
)
