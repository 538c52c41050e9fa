"""The index of a journal's keys."""

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
