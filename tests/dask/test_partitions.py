"""The sizes of tasks, without a cluster."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("distributed")

from neuralbox_async.dask._partitions import partitions


@pytest.mark.parametrize("make", [list, iter])
@given(count=st.integers(0, 2000), size=st.integers(1, 120), threads=st.integers(1, 20))
def test_all_rows(make, count, size, threads):
    """Each row is in one task, in order; no task is larger than it may be, or empty."""
    parts = list(partitions(make(range(count)), size, lambda: threads))

    assert list(range(count)) == list(itertools.chain.from_iterable(parts))
    assert all(1 <= len(part) <= size for part in parts)


@pytest.mark.parametrize("make", [list, iter])
def test_the_last_tasks_are_small(make):
    """When less is left than a task for each thread, tasks become smaller, and no worker has a large one alone."""
    sizes = [len(part) for part in partitions(make(range(2000)), 100, lambda: 3)]

    assert [100] * 17 == sizes[:17]
    assert sizes[17:] == sorted(sizes[17:], reverse=True)
    assert 50 == sizes[17]
    assert 13 >= sizes[-1]


def test_rows_are_read_as_far_as_needed():
    """The first task needs its own rows alone; later ones a few more, however many there are."""
    read = itertools.count()
    tasks = partitions(read, 10, lambda: 4)
    assert 10 == len(next(tasks))
    assert 10 == next(read)
    for _ in range(100):
        next(tasks)
    assert next(read) <= 11 + 1000 + 40


def test_clusters_that_grow():
    """The number of threads is that of the moment."""
    threads = itertools.chain([1], itertools.repeat(8))
    sizes = [len(part) for part in partitions(list(range(100)), 10, lambda: next(threads))]

    assert [10, 10, 5] == sizes[:3]
    assert 100 == sum(sizes)
