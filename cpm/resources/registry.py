"""All resource types. Adding one here is what makes it known to targets, backups, filters, reports and IAM policies."""

from collections.abc import Mapping

from cpm.lib.states import SnapshotKind
from cpm.resources.base import ResourceType
from cpm.resources.docdb_cluster import DocDbCluster
from cpm.resources.dynamodb_table import DynamoDbTable
from cpm.resources.ebs_volume import EbsVolume
from cpm.resources.ec2_instance import Ec2Instance
from cpm.resources.efs_file_system import EfsFileSystem
from cpm.resources.rds_cluster import RdsCluster
from cpm.resources.rds_database import RdsDatabase
from cpm.resources.redshift_cluster import RedshiftCluster
from cpm.resources.s3_bucket import S3Bucket
from cpm.resources.whole import WholeResource

WHOLE: tuple[WholeResource, ...] = (
    RdsDatabase(),
    RdsCluster(),
    DocDbCluster(),
    RedshiftCluster(),
    DynamoDbTable(),
    EfsFileSystem(),
)
"""The types that AWS snapshots as a whole."""

TYPES: tuple[ResourceType, ...] = (Ec2Instance(), EbsVolume(), *WHOLE, S3Bucket())

BY_KEY: Mapping[str, ResourceType] = {kind.key: kind for kind in TYPES}
WHOLE_BY_KEY: Mapping[str, WholeResource] = {kind.key: kind for kind in WHOLE}
WHOLE_BY_KIND: Mapping[str, WholeResource] = {
    name: kind for kind in WHOLE for name in (kind.kind, kind.dr_kind) if name
}
"""The types by the lists in which the API shows their snapshots and copies."""

DR_KINDS: frozenset[str] = frozenset(
    {SnapshotKind.DR_VOLUME, SnapshotKind.DR_INITIAL_AMI, SnapshotKind.ONLY_DR_AMI, SnapshotKind.DR_INSTANCE}
) | {kind.dr_kind for kind in WHOLE if kind.dr_kind}
"""The lists of copies in other regions and accounts."""


def kind_label(kind: str) -> str:
    """What a person reads for a list of snapshots."""
    if kind in WHOLE_BY_KIND:
        whole = WHOLE_BY_KIND[kind]
        return f"{whole.noun}, DR copy" if kind == whole.dr_kind else whole.noun
    return SnapshotKind(kind).label if kind in set(SnapshotKind) else kind
