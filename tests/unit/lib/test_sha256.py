"""SHA-256 with a state that can be stored, against hashlib."""

import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from cpm.lib.sha256 import Sha256


@given(st.lists(st.binary(max_size=200), max_size=12))
def test_it_is_hashlibs_whatever_the_pieces_and_stored_between_them(pieces: list[bytes]) -> None:
    total = Sha256()

    for piece in pieces:
        total.update(piece)
        total = Sha256.resumed(json.loads(json.dumps(total.state())))

    assert total.digest() == hashlib.sha256(b"".join(pieces)).digest()


def test_taking_the_digest_changes_nothing() -> None:
    total = Sha256()
    total.update(b"first")

    assert total.digest() == total.digest() == hashlib.sha256(b"first").digest()
    total.update(b" and second")
    assert total.digest() == hashlib.sha256(b"first and second").digest()
