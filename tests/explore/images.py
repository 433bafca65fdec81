"""The images of tests/fixtures/volumes, unpacked once per test run, and what stands in them."""

import json
import lzma
import os
import tempfile
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent.parent / "fixtures" / "volumes"
# Unpacked images are shared between the workers of a run and left to the next one.
UNPACKED = Path(tempfile.gettempdir()) / f"cpm-explore-images-{os.getuid()}"
PIECE = 1024 * 1024


def image(name: str) -> Path:
    """The raw image; tests must not write to it."""
    packed = FIXTURES / f"{name}.img.xz"
    unpacked = UNPACKED / f"{name}-{int(packed.stat().st_mtime)}.img"
    if unpacked.exists():
        return unpacked
    UNPACKED.mkdir(exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=UNPACKED)
    with os.fdopen(handle, "wb") as target, lzma.open(packed) as source:
        while piece := source.read(PIECE):
            if piece.strip(b"\0"):
                target.write(piece)
            else:
                target.seek(len(piece), os.SEEK_CUR)
        target.truncate()
    os.replace(partial, unpacked)
    return unpacked


def manifest(volume: str) -> dict[str, list[Any]]:
    """Path, one character per byte, to its kind (F, D, L, S), size and SHA-256."""
    found: dict[str, list[Any]] = json.loads((FIXTURES / "manifest.json").read_text())[volume]
    return found
