"""Sessions over the images; no test here needs a database."""

from collections.abc import Callable, Iterator

import pytest

from cpm.explore.blocks import Device, RawFile
from cpm.explore.sandbox import Limits, Session
from tests.explore.images import image

Opener = Callable[..., Session]


@pytest.fixture
def explore() -> Iterator[Opener]:
    """`explore("ext4", …)` is a session over these images as disks of the same names."""
    opened: list[Session | Device] = []

    def start(*names: str, limits: Limits | None = None) -> Session:
        disks = {name: Device(RawFile(image(name))) for name in names}
        session = Session(disks, limits)
        opened.extend([session, *disks.values()])
        return session

    yield start
    for each in opened:
        each.close()
