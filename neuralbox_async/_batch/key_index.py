"""An index of a million keys in some 20 MiB: a small number for each, by a 64-bit hash of the key."""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING

from neuralbox_async._lazy_imports import hashlib

if TYPE_CHECKING:
    from collections.abc import Callable

# Many small tables: no growth blocks the event loop for long, or needs the memory of the whole index once more.
_TABLES = 256
_INITIAL_SLOTS = 16
# Python's own hash takes a seventh of the time of blake2b; on a machine of 32 bits it is too short.
_HAS_SIPHASH = sys.hash_info.algorithm.startswith("siphash") and sys.hash_info.width == 64
_64_BITS = 2**64 - 1


def digest_of(key: bytes) -> int:
    """
    Return the 64-bit hash of *key*; two of a million keys have the same one with a chance of 3 in 100 million.

    It is that of this process alone, unless it was forked: not to be stored.
    """
    if _HAS_SIPHASH:
        return hash(key) & _64_BITS
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def numbered_key(key: str, is_taken: Callable[[str], bool], *, last_taken: int = 1) -> tuple[str, int]:
    """
    Return the first of ``key-2``, ``key-3``, ... that is not taken, and its number.

    All numbers up to *last_taken* are taken, and of the others all below some number.
    """
    taken, free = last_taken, last_taken + 1
    while is_taken(f"{key}-{free}"):
        taken, free = free, 2 * free
    while free - taken > 1:
        middle = (taken + free) // 2
        taken, free = (middle, free) if is_taken(f"{key}-{middle}") else (taken, middle)
    return f"{key}-{free}", free


class KeyIndex:
    """
    A number above 0 for each digest; 0 for one that is absent.

    *typecode*: of `array.array`, for the range of the numbers: ``"B"`` up to 255, ``"I"`` up to 4,294,967,295.
    """

    def __init__(self, typecode: str = "B") -> None:
        self._tables = [_Table(typecode) for _ in range(_TABLES)]

    def __getitem__(self, digest: int) -> int:
        return self._tables[digest % _TABLES].get(digest)

    def __setitem__(self, digest: int, number: int) -> None:
        self._tables[digest % _TABLES].set(digest, number)

    def __len__(self) -> int:
        return sum(table.count for table in self._tables)

    def mark(self, digest: int, bit: int) -> int:
        """Return the number of *digest*, and set *bit* in it."""
        return self._tables[digest % _TABLES].mark(digest, bit)


class _Table:
    """A hash table with open addressing; a slot is free if its number is 0."""

    __slots__ = ("_digests", "_numbers", "_typecode", "count")

    def __init__(self, typecode: str) -> None:
        self._typecode = typecode
        self._digests, self._numbers = self._slots(_INITIAL_SLOTS)
        self.count = 0

    def _slots(self, size: int) -> tuple[array[int], array[int]]:
        return array("Q", [0]) * size, array(self._typecode, [0]) * size

    def get(self, digest: int) -> int:
        return self._numbers[self._slot(digest)]

    def mark(self, digest: int, bit: int) -> int:
        slot = self._slot(digest)
        if number := self._numbers[slot]:
            self._numbers[slot] = number | bit
        else:
            self._put(slot, digest, bit)
        return number

    def set(self, digest: int, number: int) -> None:
        self._put(self._slot(digest), digest, number)

    def _put(self, slot: int, digest: int, number: int) -> None:
        if not self._numbers[slot]:
            self.count += 1
            if 4 * self.count > 3 * len(self._numbers):
                self._grow()
                slot = self._slot(digest)
            self._digests[slot] = digest
        self._numbers[slot] = number

    def _slot(self, digest: int) -> int:
        """Return the slot of *digest*, or the free slot where it belongs."""
        digests, numbers, mask = self._digests, self._numbers, len(self._numbers) - 1
        slot = digest // _TABLES & mask
        while numbers[slot] and digests[slot] != digest:
            slot = slot + 1 & mask
        return slot

    def _grow(self) -> None:
        old = zip(self._digests, self._numbers, strict=True)
        self._digests, self._numbers = self._slots(2 * len(self._numbers))
        for digest, number in old:
            if number:
                slot = self._slot(digest)
                self._digests[slot], self._numbers[slot] = digest, number
