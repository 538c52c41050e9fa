"""Sending one request of a batch: written down before it leaves, waited for when the API only accepts it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from neuralbox_async import _protocol
from neuralbox_async._calls import POLL_INTERVAL, Call, deadline_after
from neuralbox_async._errors import (
    APIConnectionError,
    ClientClosedError,
    GenerationFailedError,
    JournalError,
    ModelUnavailableError,
    NeuralBoxError,
    NotFoundError,
    RateLimitError,
)
from neuralbox_async._logging import logger
from neuralbox_async._types import Generation

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._calls import Caller
    from neuralbox_async._jobs import Job
    from neuralbox_async._journal import Journal
    from neuralbox_async._options import CallOptions
    from neuralbox_async._pacing import Pace

_PRICE_TIME = 30.0


class Sender:
    """
    Sends jobs with *caller* and *options*, and tells *journal* and *pace* what comes of it.

    Each job has been counted by `Pace.start`. *changed* is called when another may start.
    """

    def __init__(
        self, caller: Caller, options: CallOptions, journal: Journal | None, pace: Pace, changed: Callable[[], None]
    ) -> None:
        self._caller, self._options, self._journal, self._pace, self._changed = caller, options, journal, pace, changed

    @property
    def closed(self) -> bool:
        """Whether the client was closed."""
        return self._caller.shared.closed

    async def price(self, model: str) -> int | None:
        """Return the most that a generation of *model* costs, in NeuralBox tokens; None when that is not told."""
        call = Call(_protocol.price(model, self._options.headers), self._options, deadline_after(_PRICE_TIME))
        try:
            return await self._caller.answer(call, _protocol.load_price)
        except NeuralBoxError as error:
            logger.info("the price of %s is not told (%s): its first request will tell", model, type(error).__name__)
            return None

    async def generation(self, job: Job) -> Generation:
        """Return what *job* generates. Raises `NeuralBoxError`; `RateLimitError` when it was refused, and not tried."""
        deadline = deadline_after(self._options.timeout)
        if job.generation_id is not None:  # of an earlier run
            state = Generation(id=job.generation_id, status="pending")
            return await self._wait_for(job, state, deadline, at_once=True)
        generation = await self._post(job, deadline)
        if generation.finished or generation.id is None:
            return generation
        job.generation_id, job.body = generation.id, b""
        if self._journal is not None:
            self._journal.pending(job.key, generation.id)
        return await self._wait_for(job, generation, deadline)

    async def _post(self, job: Job, deadline: float) -> Generation:
        job.call = Call(job.wire, self._options, deadline)
        started = time.monotonic()
        try:
            if self._journal is not None:
                self._journal.start(job.key, job.wire.headers["Idempotency-Key"], job.request.model, job.reserved)
            generation = await self._caller.answer(job.call, job.load)
        except BaseException as error:
            self._slow_down(error, started)
            raise
        finally:
            job.attempts += job.call.attempts
        self._pace.admitted()
        self._changed()
        return generation

    def _slow_down(self, error: BaseException, started: float) -> None:
        """Tell the pace what *error*, of a request *started* then, says of the server."""
        now = time.monotonic()
        if isinstance(error, RateLimitError):
            self._pace.pushed_back(now, started)
        elif isinstance(error, APIConnectionError | ModelUnavailableError):
            self._pace.failed(now, started)
        elif isinstance(error, NeuralBoxError) and not isinstance(error, JournalError | ClientClosedError):
            self._pace.admitted()
        else:
            self._pace.dropped()

    async def _wait_for(self, job: Job, state: Generation, deadline: float, *, at_once: bool = False) -> Generation:
        try:
            return await self._caller.wait(state, self._options, deadline, interval=POLL_INTERVAL, at_once=at_once)
        except GenerationFailedError:
            raise
        except NeuralBoxError as error:
            # Of the questions, which cost nothing; but what they ask for may be billed when it is completed.
            error.billed, error.generation_id = "unknown", state.id
            if isinstance(error, NotFoundError):
                job.generation_id = error.generation_id = None  # it leads nowhere
            raise
