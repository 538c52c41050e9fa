"""What of the requests given to a batch is to be sent: their keys, and what a journal knows of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from neuralbox_async import _protocol
from neuralbox_async._errors import InvalidParameterError, OutcomeUnknownError
from neuralbox_async._items import END, content_key, key_of
from neuralbox_async._journal import DONE, IN_DOUBT, PENDING
from neuralbox_async._results import BatchResult

if TYPE_CHECKING:
    from neuralbox_async._calls import Call
    from neuralbox_async._items import Defaults, Items
    from neuralbox_async._journal import Doubt, Journal
    from neuralbox_async._types import GenerateRequest, Generation, GenerationId

_UNKNOWN = "it was sent by an earlier run, which ended before the answer; it may have been billed"


@attrs.define(eq=False)
class Job:
    """One request on its way, and what is known of it."""

    index: int
    key: str
    request: GenerateRequest
    wire: _protocol.Request
    generation_id: GenerationId | None = None  # once the API has accepted it
    doubt: Doubt | None = None  # of an earlier run, which sent it; the API has accepted it then
    reserved: int | None = None  # tokens of the budget, for what is sent by this run
    call: Call | None = None  # what is or was under way
    body: bytes = b""  # the answer that has its generation
    attempts: int = 0
    started: float = attrs.field(factory=time.monotonic)

    @property
    def maybe_billed(self) -> bool:
        """Whether it may be billed if nothing more is done about it."""
        return self.generation_id is not None or (self.call is not None and self.call.maybe_billed)

    def load(self, status: int, headers: Mapping[str, str], body: bytes) -> Generation:
        """Return the generation in the answer to it, and keep the answer for the journal."""
        self.body = body
        return _protocol.load_generation(status, headers, body)

    def result(self, **outcome: Any) -> BatchResult:
        """Return its result."""
        return BatchResult(
            index=self.index,
            key=self.key,
            request=self.request,
            attempts=self.attempts,
            seconds=time.monotonic() - self.started,
            **outcome,
        )


@attrs.frozen
class Done:
    """The request at *index* needs nothing: the journal has its generation."""

    index: int


class Jobs:
    """
    Makes jobs of *items*, one by one, under the keys that *journal* knows them by.

    *defaults* make requests of them; *retries* decides, by its key, whether what may have been billed is sent again.
    *headers* go out with each. When *closed*, nothing new is to be sent, and nothing is decided any more.
    """

    def __init__(
        self,
        items: Items,
        defaults: Defaults,
        journal: Journal | None,
        retries: Callable[[str], bool],
        headers: Mapping[str, str],
    ) -> None:
        self._items, self._defaults, self._journal = items, defaults, journal
        self._retries, self._headers = retries, headers
        self._run = os.urandom(16).hex()  # drawn once: for each request, it is some 3 % of the CPU
        self.closed = False

    @property
    def any_paid_for(self) -> bool:
        """Whether requests that were not read yet may be among those that earlier runs had done or accepted."""
        if self._journal is None:
            return False
        # What is done need not be found, but for counting; requests of no known number may never end.
        return self._journal.pending_left > 0 or (self._items.total is not None and self._journal.done_left > 0)

    async def next(self) -> Job | Done | BatchResult | None:
        """Return what the next request is: to be sent, done, or with a result already; None when there is no more."""
        given = await self._items.next()
        return None if given is END else self._sorted_out(self._items.taken - 1, given)

    def _sorted_out(self, index: int, given: object) -> Job | Done | BatchResult:
        headers = {**self._headers, "Idempotency-Key": f"{self._run}-{index}"}
        try:
            request = self._defaults.request(given)
            wire = _protocol.generate(request, headers)
        except InvalidParameterError as error:
            return BatchResult(index=index, key=key_of(given) or f"#{index}", error=error, tokens=0)
        key = request.key or content_key(wire.body or b"")
        if self._journal is None:
            return Job(index, key, request, wire)
        claim = self._journal.claim(key)
        if claim is None and request.key is None:
            key = self._journal.number(key)
            claim = self._journal.claim(key)
        job = Job(index, key, request, wire)
        if claim is None:
            return job.result(error=InvalidParameterError("key", key, "another for each request of a batch"), tokens=0)
        return self._by_its_past(job, *claim, headers)

    def _by_its_past(
        self, job: Job, state: int, doubt: Doubt | None, headers: dict[str, str]
    ) -> Job | Done | BatchResult:
        """Return what *job* is, given how an earlier run left it."""
        if state == DONE:
            return Done(job.index)
        if doubt is not None and state == PENDING:
            job.doubt, job.generation_id = doubt, doubt.generation_id
        elif doubt is not None and state == IN_DOUBT and not self.closed:
            if not self._retries(job.key):
                return job.result(error=OutcomeUnknownError(_UNKNOWN, keys=(job.key,)))
            # Should the API know this header after all, it will not bill a second time.
            headers["Idempotency-Key"] = doubt.idempotency_key or headers["Idempotency-Key"]
        return job
