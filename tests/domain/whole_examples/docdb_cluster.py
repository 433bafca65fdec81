"""DocumentDB clusters in the suite over all types."""

from tests.domain.whole_examples.rds_cluster import AuroraExample
from tests.domain.world import World


class DocDbExample(AuroraExample):
    key = "docdb_clusters"
    service = engine = "docdb"

    def make(self, world: World, name: str) -> str:
        # Its clusters share their names with those of Aurora.
        return super().make(world, f"papers-{name}")
