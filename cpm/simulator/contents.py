"""What is inside a database or warehouse: opaque bytes by ARN, set and read through the control endpoint.

A snapshot keeps the bytes of its moment, and whatever is restored from it has them again.
"""

from dataclasses import dataclass, field


@dataclass
class Contents:
    """Bytes by the ARN of what holds them; what was never written is empty."""

    held: dict[str, bytes] = field(default_factory=dict)

    def read(self, arn: str) -> bytes:
        return self.held.get(arn, b"")

    def write(self, arn: str, data: bytes) -> None:
        self.held[arn] = data

    def copy(self, source: str, target: str) -> None:
        """The target has from now on what the source has at this moment."""
        self.write(target, self.read(source))

    def drop(self, arn: str) -> None:
        self.held.pop(arn, None)
