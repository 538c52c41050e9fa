"""The index of keys, of a journal and of the command's output."""

from __future__ import annotations

import random

import pytest

from neuralbox_async._batch.key_index import KeyIndex, digest_of

pytestmark = pytest.mark.usefixtures("no_task_left")


def test_the_index():
    """An index has the last number of each key, and 0 for other keys."""
    states = {}
    index = KeyIndex()
    rng = random.Random(5)
    for number in range(30_000):
        digest = digest_of(str(number % 20_000).encode())
        states[digest] = index[digest] = rng.randrange(1, 256)
    assert all(index[digest] == state for digest, state in states.items())
    assert 0 == sum(index[digest_of(f"other {number}".encode())] for number in range(5000))


def test_colliding_slots():
    """Digests of the same slot are all kept, 0 among them."""
    index = KeyIndex()
    digests = [number << 40 for number in range(200)]
    for number, digest in enumerate(digests, 1):
        index[digest] = number
    assert list(range(1, 201)) == [index[digest] for digest in digests]


@pytest.mark.parametrize("typecode, highest", [("B", 255), ("I", 4_294_967_295)])
def test_the_range_of_numbers(typecode, highest):
    """The typecode determines the range of the numbers; a number beyond it raises an error and changes nothing."""
    index = KeyIndex(typecode)
    index[1] = highest
    with pytest.raises(OverflowError):
        index[1] = highest + 1

    assert (highest, 0, 1) == (index[1], index[2], len(index))


@pytest.mark.long
def test_line_numbers():
    """With the typecode ``"I"`` an index has a line number for each key, over all its growth."""
    index = KeyIndex("I")
    for line in range(1, 100_001):
        index[digest_of(str(line).encode())] = line * 1000

    assert 100_000 == len(index)
    assert all(index[digest_of(str(line).encode())] == line * 1000 for line in range(1, 100_001, 7))


def test_marks():
    """Marking a key returns the number before, and keeps its other bits."""
    index = KeyIndex()
    index[5] = 3

    assert [3, 0x83, 0] == [index.mark(5, 0x80), index.mark(5, 0x80), index.mark(6, 0x80)]
    assert [0x83, 0x80] == [index[5], index[6]]
