"""Every kind of resource that the demo protects beside instances and volumes: how a customer makes one and looks into it."""

from cpm.demo.kinds.base import Kind
from cpm.demo.kinds.dynamodb_table import DynamoDbTable
from cpm.demo.kinds.efs_file_system import EfsFileSystem
from cpm.demo.kinds.rds_database import RdsDatabase
from cpm.demo.kinds.redshift_cluster import RedshiftCluster
from cpm.demo.kinds.s3_bucket import S3Bucket
from cpm.demo.kinds.storage_clusters import AuroraCluster, DocDbCluster

KINDS: tuple[Kind, ...] = (
    RdsDatabase(),
    AuroraCluster(),
    DocDbCluster(),
    RedshiftCluster(),
    DynamoDbTable(),
    EfsFileSystem(),
    S3Bucket(),
)
