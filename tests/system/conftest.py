"""System tests build on the same simulated AWS as the flow tests."""

from tests.domain.conftest import aws, simulator, world

__all__ = ["aws", "simulator", "world"]
