"""DocumentDB clusters in the suite over all types."""

from typing import Any, ClassVar

from tests.domain.whole_examples.rds_cluster import AuroraExample
from tests.domain.world import World


class DocDbExample(AuroraExample):
    key = "docdb_clusters"
    service = engine = "docdb"
    public: ClassVar[dict[str, Any]] = {}

    def make(self, world: World, name: str) -> str:
        return super().make(world, _own(name))

    def named(self, name: str) -> str:
        return _own(name)

    def request(self, name: str) -> dict[str, Any]:
        return super().request(_own(name))


def _own(name: str) -> str:
    """A name that no Aurora cluster of the same tests has: AWS keeps the names of both together."""
    return name if name.startswith("papers-") else f"papers-{name}"
