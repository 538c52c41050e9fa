"""The values that a batch reports (results, progress, the final report), and the buffer of results."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic

import attrs

from neuralbox_async._errors import NeuralBoxError
from neuralbox_async._parsed import ParsingError
from neuralbox_async._type_parameters import T
from neuralbox_async._types import GenerateRequest, Generation, GenerationId


@attrs.frozen(kw_only=True, slots=False)  # without slots it is made in half the time
class BatchResult(Generic[T]):
    """
    The result of one request of a batch.

    * *index*: its place among the requests, from 0. *item*: the request as you passed it, such as a dict with all its
      members, also those that are not sent.
    * *key*: the key of the request as you passed it or, without one, a hash of its body; with a journal, repetitions
      are numbered.
    * *request*: the valid request; None when the input is not a valid request.
    * *generation*, *error*: one of them is None. *error.billed* has the billing status.
    * *value*: the text of the generation as a value of the *output_type*; None without one, and with an error. A text
      that is not of that type, also after its repairs, is in a `ParsingError`.
    * *attempts*: how many attempts were made. *elapsed*: seconds from the first attempt to the end, waits included.
    * *tokens_used*: NeuralBox tokens billed, for repairs as well; None when it is unknown.
    * *from_journal*: whether an earlier run generated it, which then also paid for it; see *include_done*.
    """

    index: int
    key: Any
    item: Any = attrs.field(default=None, eq=False, repr=False)  # of any class: a row of a table has odd methods
    request: GenerateRequest | None = None
    generation: Generation | None = None
    error: NeuralBoxError | None = None
    value: T | None = None
    attempts: int = 0
    elapsed: float = 0.0
    tokens_used: int | None = None
    from_journal: bool = False

    def unwrap(self) -> Generation:
        """Return the generation, or raise the error."""
        if self.generation is None:
            raise self.error or AssertionError("a result has a generation or an error")
        return self.generation


def last_error(error: NeuralBoxError) -> NeuralBoxError:
    """Return the error of the last request behind *error*: that of a repair, if it failed."""
    cause = error.__cause__
    return cause if isinstance(error, ParsingError) and isinstance(cause, NeuralBoxError) else error


@attrs.frozen(kw_only=True)
class BatchProgress:
    """
    The progress of a batch at one moment.

    * *completed*, *failed*: requests with a generation, with an error; *failed_by_type*: by the name of its class.
      *skipped*: requests that the journal has as done.
    * *in_flight*: sent, without a response yet. *total*: number of requests, None while it is unknown.
    * *tokens_used*: NeuralBox tokens billed. *rate*: results per second. *eta_seconds*: to the end, None if unknown.
    * *elapsed*: seconds since the start.
    * *waiting_until*: the end of a rate limit that delays the batch; None while none does.
    """

    completed: int
    failed: int
    failed_by_type: Mapping[str, int]
    skipped: int
    in_flight: int
    total: int | None
    tokens_used: int
    rate: float
    eta_seconds: float | None
    elapsed: float
    waiting_until: datetime | None


@attrs.frozen(kw_only=True)
class BatchReport:
    """
    The final report of a batch; while it runs, the report so far.

    * *completed*: requests with a generation. *failed*: requests with an error; *failed_by_type*: by the name of its
      class. *skipped*: requests that the journal has as done.
    * *unknown*: requests that may have been billed without a response; *unknown_keys*: their keys, the first 10,000;
      *unknown_ids*: the ids of their generations by key, as far as they are known, to `retrieve` them.
    * *cancelled_keys*: requests in flight when the batch was closed; part of *unknown* unless they were never sent.
    * *not_started*: requests that were not sent; None when their number is unknown.
    * *stopped_by*: the error after which nothing more was sent, or None.
    * *rate_limited*: responses with status 429; each such request was sent again.
    * *tokens_used*: NeuralBox tokens billed, as the API reported; *tokens_used_before*: by earlier runs, according to
      the journal; *tokens_used_total*: both. *tokens_possibly_billed*: the price, as far as it is known, of requests of
      all runs that may have been billed without a response.
    * *elapsed*: seconds.
    """

    completed: int
    failed: int
    failed_by_type: Mapping[str, int]
    skipped: int
    unknown: int
    unknown_keys: tuple[Any, ...]
    unknown_ids: Mapping[Any, GenerationId]
    cancelled_keys: tuple[Any, ...]
    not_started: int | None
    stopped_by: NeuralBoxError | None
    rate_limited: int
    tokens_used: int
    tokens_used_before: int
    tokens_possibly_billed: int
    elapsed: float

    @property
    def tokens_used_total(self) -> int:
        """NeuralBox tokens billed by all runs of the journal, this one included; without a journal, by this one."""
        return self.tokens_used_before + self.tokens_used


class ResultBuffer:
    """
    Results that are ready to be read; if *ordered*, each after those before it.

    *capacity* bounds the requests that were taken and whose results have not been read, so that a slow reader delays
    the reading of requests.

    Not a memory object stream: `receive` can lose an item when its task is cancelled (`asyncio.Task.cancel`) after the
    item was assigned to it, and results are paid for.
    """

    def __init__(self, capacity: int, *, ordered: bool) -> None:
        self.ready: deque[BatchResult[Any]] = deque()
        self._early: dict[int, BatchResult | None] | None = {} if ordered else None
        self._next = 0
        self._capacity = capacity

    @property
    def full(self) -> bool:
        """Whether no further request may be taken."""
        return self._capacity <= 0

    @property
    def has_results(self) -> bool:
        """Whether a result is ready. From any thread."""
        return bool(self.ready)

    def reserve(self) -> None:
        """Reserve room for the result of a request."""
        self._capacity -= 1

    def put(self, index: int, result: BatchResult | None) -> None:
        """Add the result of the request at *index*; None if it has no result."""
        if result is None:
            self._capacity += 1
        elif self._early is None:
            self.ready.append(result)
        if self._early is not None:
            self._early[index] = result
            while self._next in self._early:
                self._append(self._early.pop(self._next))
                self._next += 1

    def pop(self) -> BatchResult | None:
        """Remove and return the next result that is ready, if any."""
        if not self.ready:
            return None
        self._capacity += 1
        return self.ready.popleft()

    def pop_all(self) -> list[BatchResult]:
        """Remove and return all results that are ready."""
        results = list(self.ready)
        self.ready.clear()
        self._capacity += len(results)
        return results

    def finish(self) -> None:
        """Make all results ready, in order, though some before them will never come."""
        for index in sorted(self._early or ()):
            self._append((self._early or {})[index])
        self._early = None

    def _append(self, result: BatchResult | None) -> None:
        if result is not None:
            self.ready.append(result)
