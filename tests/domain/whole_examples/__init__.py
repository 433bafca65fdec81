"""An example of each resource type that AWS snapshots as a whole, for the suite that runs for every type."""

from tests.domain.whole_examples.base import Example
from tests.domain.whole_examples.dynamodb_table import TableExample
from tests.domain.whole_examples.redshift_cluster import ClusterExample

EXAMPLES: dict[str, Example] = {example.key: example for example in (TableExample(), ClusterExample())}
