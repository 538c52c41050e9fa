"""
The life of one request of a batch: each transition is one method, and the only place where its facts change.

A transition informs the `Coordinator` (journal, budget, limits) in the one right order.
"""

from __future__ import annotations

import enum
import time
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._batch.coordinator import NotAdmittedError, Outcome, Sent, ServerSignal
from neuralbox_async._batch.journal import KeyStatus
from neuralbox_async._batch.results import BatchResult
from neuralbox_async._call import polling
from neuralbox_async._call.executor import Call
from neuralbox_async._clock import time_after
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
from neuralbox_async._lazy_imports import anyio
from neuralbox_async._types import Generation
from neuralbox_async._wire.responses import decode_generation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuralbox_async._batch.coordinator import Claim, Coordinator
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._options import CallOptions
    from neuralbox_async._types import GenerateRequest
    from neuralbox_async._wire.requests import Request


class RequestStatus(enum.IntEnum):  # an int, whose hash is fast: each transition is looked up
    """
    The states of a request.

        CLAIMED --sent--> SENT --response--> COMPLETED, FAILED
           |              |  \\--pending--> ACCEPTED --status requests--> COMPLETED, FAILED
           |              +--429--> REFUSED --sent again--> SENT
           +--pending since an earlier run--> ACCEPTED

    SENT and ACCEPTED become UNRESOLVED when the outcome stays unknown: the request may be billed. CLAIMED, SENT and
    REFUSED become WITHDRAWN when the batch ends before the request leaves this machine.
    """

    CLAIMED = enum.auto()
    SENT = enum.auto()
    ACCEPTED = enum.auto()
    REFUSED = enum.auto()
    COMPLETED = enum.auto()
    FAILED = enum.auto()
    UNRESOLVED = enum.auto()
    WITHDRAWN = enum.auto()


_S = RequestStatus
TRANSITIONS: dict[RequestStatus, frozenset[RequestStatus]] = {
    _S.CLAIMED: frozenset({_S.SENT, _S.ACCEPTED, _S.WITHDRAWN}),
    _S.SENT: frozenset({_S.ACCEPTED, _S.REFUSED, _S.COMPLETED, _S.FAILED, _S.UNRESOLVED, _S.WITHDRAWN}),
    _S.ACCEPTED: frozenset({_S.REFUSED, _S.COMPLETED, _S.FAILED, _S.UNRESOLVED}),
    _S.REFUSED: frozenset({_S.SENT, _S.ACCEPTED, _S.WITHDRAWN}),
}
"""The states that may follow each state; none follows the others."""


@attrs.define(eq=False)
class RequestState:
    """One request of a batch on its way, with the *claim* of its key, and what is known of it."""

    index: int
    claim: Claim
    request: GenerateRequest
    wire: Request
    status: RequestStatus = RequestStatus.CLAIMED
    reserved: int | None = None  # tokens of the budget
    cancelled_in_flight: bool = False  # after it had been recorded as sent, and before an outcome
    journal_error: JournalError | None = None  # the outcome could not be written
    _call: Call | None = None  # the one that runs or ran last
    _body: bytes = b""  # of the response with the generation
    _attempts: int = 0
    _started: float = attrs.field(factory=time.monotonic)

    @property
    def is_pending_before(self) -> bool:
        """Whether an earlier run left it pending: its outcome is retrieved, and it is not sent."""
        return self.claim.status is KeyStatus.PENDING and self.claim.unresolved is not None

    @property
    def possibly_billed(self) -> bool:
        """Whether it may be billed if it ends now."""
        return self.status is _S.ACCEPTED or (self._call is not None and self._call.possibly_billed)

    async def admit(self, coordinator: Coordinator) -> None:
        """
        Wait until budget and rate limits let the request start; a pending one need not wait.

        Raises `BudgetReachedError`, and `NotAdmittedError` when nothing more is to be sent.
        """
        if self.is_pending_before:
            await coordinator.admit_pending()
        else:
            self.reserved = await coordinator.admit(self.request.model)

    async def run(self, executor: Executor, options: CallOptions, coordinator: Coordinator) -> BatchResult | None:
        """
        Carry the request to its outcome and return the result.

        Raises `NotAdmittedError` when it was refused and the batch ends before it may be sent again.
        """
        try:
            while True:
                try:
                    generation = await self._generate(executor, options, coordinator)
                except RateLimitError as error:
                    if error.headers.get("x-should-retry") == "false":
                        return await self._fail(error, coordinator)
                    await self._refuse(error, coordinator)
                except NeuralBoxError as error:
                    return await self._fail(error, coordinator)
                else:
                    return await self._complete(generation, coordinator)
                await coordinator.admit_again()
        except NotAdmittedError:
            self._move(_S.WITHDRAWN)
            await self._settle(coordinator, tokens_used=0)
            raise
        except GeneratorExit:  # its loop was closed: no coordinator can be reached any more
            raise
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._cancel(coordinator)
            raise

    # ------------------------------------------------------------------------------------------------------- requests

    async def _generate(self, executor: Executor, options: CallOptions, coordinator: Coordinator) -> Generation:
        """Return the generation. Raises `NeuralBoxError`; `RateLimitError` when the request was refused, not run."""
        self._call = call = Call(self.wire, options, time_after(options.timeout))
        if self.is_pending_before and self.claim.unresolved is not None:
            call.accept(self.claim.unresolved.generation_id)
            self._move(_S.ACCEPTED)
            state = Generation(id=call.generation_id, status="pending")
            return await self._wait(executor, state, call, immediately=True)
        generation = await self._post(executor, call, coordinator)
        if generation.finished or generation.id is None:
            return generation
        call.accept(generation.id)
        self._move(_S.ACCEPTED)
        self._body = b""
        await coordinator.accepted(self.claim.key, generation.id)
        return await self._wait(executor, generation, call)

    async def _post(self, executor: Executor, call: Call, coordinator: Coordinator) -> Generation:
        started = time.monotonic()
        signal = ServerSignal.NONE
        try:
            idempotency_key = self.wire.headers["Idempotency-Key"]
            self._move(_S.SENT)
            await coordinator.sent(
                Sent(
                    key=self.claim.key,
                    idempotency_key=idempotency_key,
                    model=self.request.model,
                    reserved=self.reserved,
                )
            )
            generation = await executor.execute(call, self._decode)
            signal = ServerSignal.ADMITTED
        except NeuralBoxError as error:
            signal = _signal_of(error)
            raise
        finally:
            self._attempts += call.attempts
            await coordinator.observe(signal, started)
        return generation

    def _decode(self, status_code: int, headers: Mapping[str, str], body: bytes) -> Generation:
        self._body = body  # for the journal
        return decode_generation(status_code, headers, body)

    async def _wait(
        self, executor: Executor, state: Generation, call: Call, *, immediately: bool = False
    ) -> Generation:
        try:
            return await polling.wait(executor, state, call.options, call.deadline, immediately=immediately)
        except GenerationFailedError:
            raise
        except NeuralBoxError as error:
            if isinstance(error, NotFoundError):
                call.accept(None)  # its id cannot be found
            raise call.annotate(error) from error.__cause__

    # ---------------------------------------------------------------------------------------------------- transitions

    def _move(self, status: RequestStatus) -> None:
        if status not in TRANSITIONS.get(self.status, ()):
            msg = f"a request that is {self.status.name} cannot become {status.name}"
            raise AssertionError(msg)
        self.status = status

    async def _complete(self, generation: Generation, coordinator: Coordinator) -> BatchResult:
        self._move(_S.COMPLETED)
        used = generation.tokens_used
        tokens_used = None if used is None or used < 0 else used  # a negative number is not a number of tokens
        result = self._result(generation=generation, tokens_used=tokens_used)
        await self._settle(coordinator, generation=generation, elapsed=result.elapsed, tokens_used=tokens_used)
        return result

    async def _fail(self, error: NeuralBoxError, coordinator: Coordinator) -> BatchResult:
        not_billed = error.billed == "no"
        if self.status in {_S.SENT, _S.ACCEPTED}:
            self._move(_S.FAILED if not_billed else _S.UNRESOLVED)
        result = self._result(error=error, tokens_used=0 if not_billed else None)
        await self._settle(coordinator, error=error, elapsed=result.elapsed, tokens_used=result.tokens_used)
        return result

    async def _refuse(self, error: RateLimitError, coordinator: Coordinator) -> None:
        # It will be sent again, perhaps in hours: until then it is not unresolved.
        self._move(_S.REFUSED)
        self._call = None
        await self._settle(coordinator, error=error, final=False)

    async def _cancel(self, coordinator: Coordinator) -> None:
        """Record that the request was cancelled on its way."""
        if self.status not in TRANSITIONS:
            return
        self.cancelled_in_flight = self.status in {_S.SENT, _S.ACCEPTED}
        if self.possibly_billed:
            self._move(_S.UNRESOLVED)
            await self._settle(coordinator, tokens_used=None)
            return
        self._move(_S.WITHDRAWN)
        unsent = (
            APIConnectionError("the request was cancelled before it was sent") if self.cancelled_in_flight else None
        )
        await self._settle(coordinator, error=unsent, tokens_used=0)

    async def _settle(
        self,
        coordinator: Coordinator,
        *,
        generation: Generation | None = None,
        error: NeuralBoxError | None = None,
        elapsed: float | None = None,
        tokens_used: int | None = None,
        final: bool = True,
    ) -> None:
        call = self._call
        accepted_id = None if call is None else call.generation_id
        outcome = Outcome(
            claim=self.claim,
            model=self.request.model,
            generation=generation,
            body=self._body,
            error=error,
            generation_id=accepted_id if error is None else accepted_id or error.generation_id,
            attempts=self._attempts,
            elapsed=self._elapsed if elapsed is None else elapsed,
            tokens_used=tokens_used,
            final=final,
        )
        self.journal_error = await coordinator.settle(outcome) or self.journal_error

    # --------------------------------------------------------------------------------------------------------- result

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _result(
        self, *, tokens_used: int | None, generation: Generation | None = None, error: NeuralBoxError | None = None
    ) -> BatchResult:
        return BatchResult(
            index=self.index,
            key=self.claim.key,
            request=self.request,
            generation=generation,
            error=error,
            attempts=self._attempts,
            elapsed=self._elapsed,
            tokens_used=tokens_used,
        )


def _signal_of(error: NeuralBoxError) -> ServerSignal:
    """Return the information about the server in the *error* of a request."""
    if isinstance(error, RateLimitError):
        return ServerSignal.PUSHED_BACK
    if isinstance(error, APIConnectionError | ModelUnavailableError):
        return ServerSignal.FAILED
    if isinstance(error, JournalError | ClientClosedError):
        return ServerSignal.NONE
    return ServerSignal.ADMITTED
