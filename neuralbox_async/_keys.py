"""An index of a million keys in some 20 MiB: what is known of each in one byte, by a 64-bit hash of the key."""

from __future__ import annotations

from array import array

from neuralbox_async._loading import hashlib

# In many small tables no growth holds up the event loop, and none needs the room of the whole index once more.
_TABLES = 256
_FIRST_SLOTS = 16


def digest_of(key: bytes) -> int:
    """Return the 64-bit hash of *key*; two of a million keys have the same one with a chance of 3 in 100 million."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


class KeyIndex:
    """A state from 1 to 255 for each digest; 0 for one that is not there."""

    def __init__(self) -> None:
        self._tables = [_Table() for _ in range(_TABLES)]

    def __getitem__(self, digest: int) -> int:
        return self._tables[digest % _TABLES].get(digest)

    def __setitem__(self, digest: int, state: int) -> None:
        self._tables[digest % _TABLES].set(digest, state)

    def mark(self, digest: int, bit: int) -> int:
        """Return the state of *digest*, and add *bit* to it."""
        return self._tables[digest % _TABLES].mark(digest, bit)


class _Table:
    """A hash table with open addressing; the states tell which slots are taken."""

    __slots__ = ("_count", "_digests", "_states")

    def __init__(self, slots: int = _FIRST_SLOTS) -> None:
        self._digests = array("Q", bytes(8 * slots))
        self._states = bytearray(slots)
        self._count = 0

    def get(self, digest: int) -> int:
        return self._states[self._slot(digest)]

    def mark(self, digest: int, bit: int) -> int:
        slot = self._slot(digest)
        state = self._states[slot]
        self._put(slot, digest, state | bit)
        return state

    def set(self, digest: int, state: int) -> None:
        self._put(self._slot(digest), digest, state)

    def _put(self, slot: int, digest: int, state: int) -> None:
        if not self._states[slot]:
            self._count += 1
            if 4 * self._count > 3 * len(self._states):
                self._grow()
                slot = self._slot(digest)
            self._digests[slot] = digest
        self._states[slot] = state

    def _slot(self, digest: int) -> int:
        """Return where *digest* is, or where it belongs."""
        digests, states, mask = self._digests, self._states, len(self._states) - 1
        slot = digest // _TABLES & mask
        while states[slot] and digests[slot] != digest:
            slot = slot + 1 & mask
        return slot

    def _grow(self) -> None:
        old = zip(self._digests, self._states, strict=True)
        self._digests, self._states = array("Q", bytes(16 * len(self._states))), bytearray(2 * len(self._states))
        for digest, state in old:
            if state:
                slot = self._slot(digest)
                self._digests[slot], self._states[slot] = digest, state
