"""Every request of block I/O has its IAM actions declared, and none is declared that no request needs."""

import ast
from pathlib import Path

from cpm.aws import block_io_actions, ebs_direct, s3_objects
from cpm.aws.block_io_actions import (
    ARCHIVE,
    IMMUTABLE_REPOSITORY,
    NEEDS,
    READ_SNAPSHOTS,
    REPOSITORY,
    WRITE_SNAPSHOTS,
)


def requested() -> set[str]:
    found = set()
    for module in (ebs_direct, s3_objects):
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in {"Request", "_pages", "_send", "_post"}:
                    found.add(node.args[0].value)
    return found


def test_requests_and_declarations_match() -> None:
    declared = {
        one.action
        for one in (*READ_SNAPSHOTS, *WRITE_SNAPSHOTS, *REPOSITORY, *IMMUTABLE_REPOSITORY, *ARCHIVE)
    }

    assert requested() == set(NEEDS)
    assert frozenset().union(*NEEDS.values()) == declared


def test_only_snapshots_of_ours_are_read_and_written() -> None:
    for one in (*READ_SNAPSHOTS, *WRITE_SNAPSHOTS):
        assert one.condition and one.resources == (block_io_actions.SNAPSHOTS,), one.action
