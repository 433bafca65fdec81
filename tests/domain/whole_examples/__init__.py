"""An example of each resource type that AWS snapshots as a whole, for the suite that runs for every type."""

from tests.domain.whole_examples.base import Example
from tests.domain.whole_examples.docdb_cluster import DocDbExample
from tests.domain.whole_examples.dynamodb_table import TableExample
from tests.domain.whole_examples.efs_file_system import FileSystemExample
from tests.domain.whole_examples.rds_cluster import AuroraExample
from tests.domain.whole_examples.rds_database import RdsExample
from tests.domain.whole_examples.redshift_cluster import RedshiftExample

EXAMPLES: dict[str, Example] = {
    example.key: example
    for example in (
        RdsExample(),
        AuroraExample(),
        DocDbExample(),
        RedshiftExample(),
        TableExample(),
        FileSystemExample(),
    )
}
