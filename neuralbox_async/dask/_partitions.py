"""The rows of each task: fewer towards the end, so that no worker waits for the last large task of another one."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

_PARTS_OF_REST = 2  # tasks for each thread, of what is left
_LEAST_PART = 8  # of the size


def partitions(rows: Iterable[Any], size: int, threads: Callable[[], int]) -> Iterator[list[Any]]:
    """
    Yield *rows* in lists of *size*, and in smaller ones when fewer rows are left than that for each of *threads*.

    Where an iterable without a length ends is known when it is read. It is read ahead, by as many rows as were yielded,
    and at most *size* for each thread.
    """
    source = iter(rows)
    length = len(rows) if isinstance(rows, Sized) else None
    ahead: deque[Any] = deque()
    yielded = 0
    while True:
        width = threads()
        most = size * width
        if length is None:
            wanted = size + min(yielded, most) - len(ahead)
            read = list(itertools.islice(source, max(0, wanted)))
            ahead.extend(read)
            if len(read) < wanted:
                length = yielded + len(ahead)
        left = math.inf if length is None else length - yielded
        count = size if left > most else max(math.ceil(size / _LEAST_PART), int(left) // (_PARTS_OF_REST * width))
        part = list(itertools.islice(itertools.chain(_drained(ahead), source), count))
        if not part:
            return
        yielded += len(part)
        yield part


def _drained(items: deque[Any]) -> Iterator[Any]:
    while items:
        yield items.popleft()
