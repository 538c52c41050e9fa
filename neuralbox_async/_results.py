"""What a batch tells: the result of each request, its progress, and in the end what was done and what was left."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime

import attrs

from neuralbox_async._errors import NeuralBoxError
from neuralbox_async._types import GenerateRequest, Generation


@attrs.frozen(kw_only=True, slots=False)  # made in half the time
class BatchResult:
    """
    What became of one request of a batch.

    * *index*: its place among the requests, from 0.
    * *key*: its own key or, without one, a hash of what is sent; with a journal, repetitions are numbered.
    * *request*: as it was sent; None when what was given makes none.
    * *generation*, *error*: one is None. *error* tells in *billed* whether it cost anything.
    * *attempts*: how often it was tried. *seconds*: from the first attempt to the end, waits included.
    * *tokens*: NeuralBox tokens billed; None when it is not known.
    """

    index: int
    key: str
    request: GenerateRequest | None = None
    generation: Generation | None = None
    error: NeuralBoxError | None = None
    attempts: int = 0
    seconds: float = 0.0
    tokens: int | None = None


@attrs.frozen(kw_only=True)
class BatchProgress:
    """
    How far a batch has come, at one moment.

    * *done*, *failed*: requests with a generation, with an error; *skipped*: those that the journal had as done.
    * *in_flight*: sent and not answered. *total*: how many there are, None when that is not known yet.
    * *tokens*: NeuralBox tokens billed. *rate*: results per second. *eta_seconds*: to the end, None when not known.
    * *waiting_until*: when a limit of the plan that holds the batch up ends; None while none does.
    """

    done: int
    failed: int
    skipped: int
    in_flight: int
    total: int | None
    tokens: int
    rate: float
    eta_seconds: float | None
    waiting_until: datetime | None


@attrs.frozen(kw_only=True)
class BatchReport:
    """
    What a batch did and what it left.

    * *completed*: requests with a generation. *failed*: requests with an error, by the name of its class.
    * *skipped*: requests that the journal had as done.
    * *unknown*: how many may have been billed without an answer; *unknown_keys*: their keys, the first 10,000.
    * *cancelled_keys*: what was in flight when the batch was left; part of *unknown* unless it was never sent.
    * *not_started*: how many were not sent; None when the requests have no length and were not read to their end.
    * *stopped_by*: the error after which no more was sent, or None.
    * *rate_limited*: answers with status 429; each such request was sent again.
    * *tokens*: NeuralBox tokens billed, as the API told; *tokens_before*: by earlier runs, according to the journal.
      *tokens_at_risk*: the price, as far as known, of what may have been billed without an answer, by any of the runs.
    * *seconds*: how long it took.
    """

    completed: int
    failed: Mapping[str, int]
    skipped: int
    unknown: int
    unknown_keys: tuple[str, ...]
    cancelled_keys: tuple[str, ...]
    not_started: int | None
    stopped_by: NeuralBoxError | None
    rate_limited: int
    tokens: int
    tokens_before: int
    tokens_at_risk: int
    seconds: float

    @property
    def tokens_in_all(self) -> int:
        """NeuralBox tokens billed by all runs of the journal, this one included; without a journal, by this one."""
        return self.tokens_before + self.tokens


class Buffer:
    """
    Results that are ready to be read; when *ordered*, each after those before it.

    *room* bounds the requests that were taken and whose results were not read yet, so that a slow reader holds up the
    reading of requests.
    """

    def __init__(self, room: int, *, ordered: bool) -> None:
        self._ready: deque[BatchResult] = deque()
        self._early: dict[int, BatchResult | None] | None = {} if ordered else None
        self._next = 0
        self._room = room

    @property
    def full(self) -> bool:
        """Whether no further request is to be taken."""
        return self._room <= 0

    def take(self) -> None:
        """Note that a request was taken."""
        self._room -= 1

    def put(self, index: int, result: BatchResult | None) -> None:
        """Add the result of the request at *index*; None when it has none."""
        if result is None:
            self._room += 1
        if self._early is not None:
            self._early[index] = result
            while self._next in self._early:
                self._move(self._early.pop(self._next))
                self._next += 1
        else:
            self._move(result)

    def pop(self) -> BatchResult | None:
        """Return, and forget, the next result that is ready, if any."""
        if not self._ready:
            return None
        self._room += 1
        return self._ready.popleft()

    def drain(self) -> list[BatchResult]:
        """Return, and forget, all results that are ready."""
        results = list(self._ready)
        self._ready.clear()
        self._room += len(results)
        return results

    def give_up_order(self) -> None:
        """Make ready what waits for results that will not come, in its order."""
        for index in sorted(self._early or ()):
            self._move((self._early or {})[index])
        self._early = None

    def _move(self, result: BatchResult | None) -> None:
        if result is not None:
            self._ready.append(result)
