"""States of what a recovery makes that never end by themselves: they must fail it, not be waited for."""

from typing import Any

import pytest

from cpm.resources.registry import WHOLE_BY_KEY


class Answering:
    """A client that answers every call alike."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def call(self, action: str, **_: Any) -> dict[str, Any]:
        return self.answer

    def paginate(self, action: str, key: str, **_: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.answer[key]
        return rows


@pytest.mark.parametrize(
    ("key", "stage", "answer"),
    [
        (
            "dynamodb_tables", "table",
            {"Table": {"TableName": "orders", "TableStatus": "INACCESSIBLE_ENCRYPTION_CREDENTIALS"}},
        ),
        (
            "rds_databases", "database",
            {
                "DBInstances": [
                    {
                        "DBInstanceIdentifier": "orders",
                        "DBInstanceStatus": "inaccessible-encryption-credentials-recoverable",
                    }
                ]
            },
        ),
        ("rds_clusters", "cluster", {"DBClusters": [{"DBClusterIdentifier": "orders", "Status": "cloning-failed"}]}),
    ],
)  # fmt: skip
def test_a_state_that_does_not_end_fails_the_recovery(key: str, stage: str, answer: dict[str, Any]) -> None:
    growing = WHOLE_BY_KEY[key].restored(Answering(answer), ["orders"], stage)["orders"]  # type: ignore[arg-type]

    assert growing.failed
