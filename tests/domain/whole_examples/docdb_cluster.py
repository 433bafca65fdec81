"""DocumentDB clusters in the suite over all types."""

from tests.domain.whole_examples.rds_cluster import AuroraExample


class DocDbExample(AuroraExample):
    key = "docdb_clusters"
    service = engine = "docdb"
