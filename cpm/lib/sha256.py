"""SHA-256 whose state can be stored (FIPS 180-4). For a few bytes at a time: hashlib is a thousand times faster.

hashlib keeps its state to itself, so what is hashed by several processes one after the other, such as the checksums of
a snapshot's blocks, needs this.
"""

from itertools import count, islice
from math import isqrt
from typing import Any, Self

_CHUNK = 64
_WORD = 0xFFFFFFFF


def _cube_root(number: int) -> int:
    """The largest whole number whose cube is not larger."""
    guess = 1 << -(-number.bit_length() // 3)
    while True:
        better = (2 * guess + number // guess**2) // 3
        if better >= guess:
            return guess
        guess = better


_PRIMES = list(islice((n for n in count(2) if all(n % d for d in range(2, isqrt(n) + 1))), 64))
# The first 32 bits behind the point of the primes' square and cube roots.
_FIRST = tuple(isqrt(prime << 64) & _WORD for prime in _PRIMES[:8])
_ROUNDS = tuple(_cube_root(prime << 96) & _WORD for prime in _PRIMES)


class Sha256:
    """Like hashlib's; not to be shared between threads."""

    def __init__(self) -> None:
        self._words = _FIRST
        self._rest = b""
        self._length = 0

    def update(self, data: bytes) -> None:
        self._length += len(data)
        self._rest += data
        whole = len(self._rest) - len(self._rest) % _CHUNK
        for start in range(0, whole, _CHUNK):
            self._words = _compressed(self._words, self._rest[start : start + _CHUNK])
        self._rest = self._rest[whole:]

    def digest(self) -> bytes:
        padding = b"\x80" + bytes((55 - self._length) % _CHUNK)
        last = self._rest + padding + (8 * self._length).to_bytes(8, "big")
        words = self._words
        for start in range(0, len(last), _CHUNK):
            words = _compressed(words, last[start : start + _CHUNK])
        return b"".join(word.to_bytes(4, "big") for word in words)

    def state(self) -> dict[str, Any]:
        """What `resumed` goes on from, of JSON values."""
        return {"words": list(self._words), "rest": self._rest.hex(), "length": self._length}

    @classmethod
    def resumed(cls, state: dict[str, Any]) -> Self:
        hashing = cls()
        hashing._words = tuple(state["words"])
        hashing._rest = bytes.fromhex(state["rest"])
        hashing._length = state["length"]
        return hashing


def _compressed(words: tuple[int, ...], chunk: bytes) -> tuple[int, ...]:
    # A word doubled to 64 bits is rotated by one shift.
    w = [int.from_bytes(chunk[at : at + 4], "big") for at in range(0, _CHUNK, 4)]
    for at in range(16, 64):
        x, y = w[at - 15], w[at - 2]
        xx, yy = x << 32 | x, y << 32 | y
        low = (xx >> 7 ^ xx >> 18 ^ x >> 3) & _WORD
        high = (yy >> 17 ^ yy >> 19 ^ y >> 10) & _WORD
        w.append(w[at - 16] + low + w[at - 7] + high & _WORD)
    a, b, c, d, e, f, g, h = words
    for k, word in zip(_ROUNDS, w, strict=True):
        ee, aa = e << 32 | e, a << 32 | a
        first = h + ((ee >> 6 ^ ee >> 11 ^ ee >> 25) & _WORD) + (e & f ^ ~e & g) + k + word
        second = ((aa >> 2 ^ aa >> 13 ^ aa >> 22) & _WORD) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = first + second & _WORD, a, b, c, d + first & _WORD, e, f, g
    return tuple(one + other & _WORD for one, other in zip(words, (a, b, c, d, e, f, g, h), strict=True))
