"""
One request of a batch, from its claim to its outcome.

Each transition is one method. It alone changes the facts, and informs the `Coordinator` of journal, budget and limits.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs

from neuralbox_async._batch.coordinator import NotAdmittedError, ServerSignal
from neuralbox_async._batch.errors import BudgetReachedError, JournalError
from neuralbox_async._batch.journal_lines import usable_id, usable_tokens
from neuralbox_async._batch.key_status import KeyStatus
from neuralbox_async._batch.request_status import TRANSITIONS, RequestStatus
from neuralbox_async._batch.results import BatchResult, last_error
from neuralbox_async._call import masking, polling
from neuralbox_async._call.executor import Call
from neuralbox_async._call.record import CallRecord
from neuralbox_async._errors import (
    APIConnectionError,
    ClientClosedError,
    GenerationFailedError,
    ModelUnavailableError,
    NeuralBoxError,
    NotFoundError,
    RateLimitError,
    ResponseError,
)
from neuralbox_async._lazy_imports import anyio
from neuralbox_async._types import Generation
from neuralbox_async._wire.responses import decode_generation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neuralbox_async._batch.claim import Claim
    from neuralbox_async._batch.request_coordinator import RequestCoordinator
    from neuralbox_async._batch.typed_items import TypedItem
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._options import CallOptions
    from neuralbox_async._types import GenerateRequest, GenerationId
    from neuralbox_async._wire.requests import Request


# Unpacked: in Python 3.11 each lookup of a member in its class takes as long as a call.
_CLAIMED, _SENT, _ACCEPTED, _REFUSED, _COMPLETED, _FAILED, _UNRESOLVED, _WITHDRAWN, _INVALID = RequestStatus
_ADMITTED = ServerSignal.ADMITTED


@attrs.define(eq=False)
class BatchRequest:
    """
    One request of a batch, from its claim to its outcome. Its *status* changes as `RequestStatus` describes.

    *item*: as the user passed it. *claim*: of its key. *reserved*: tokens of the budget, None without a budget or
    when the price is unknown. *typed*: of an item with an output type; with a generation of an earlier run that is not
    of that type, *wire* is a repair.
    """

    index: int
    claim: Claim
    request: GenerateRequest
    wire: Request
    reserved: int | None = None
    item: object = None
    typed: TypedItem | None = None
    status: RequestStatus = _CLAIMED
    cancelled_in_flight: bool = False  # after it had been recorded as sent, and before an outcome
    journal_error: JournalError | None = None  # the journal does not have all that is known
    budget_error: BudgetReachedError | None = None  # the budget did not cover a repair
    tokens_billed: int = 0  # by this run, as far as it is known
    unread_result: BatchResult | None = None  # of a request that was cancelled, with an invalid text that is paid for
    _call: Call | None = None  # the one that runs or ran last
    _body: bytes = b""  # of the response with the generation
    attempts_before: int = 0  # of earlier runs, of generations that were not of the output type
    _attempts: int = 0
    _started: float = 0.0

    @property
    def key(self) -> Any:
        """The key of the request; without one, that of the claim."""
        return self.claim.key if self.request.key is None else self.request.key

    @property
    def possibly_billed(self) -> bool:
        """Whether it may be billed if it ends now."""
        return self.status is _ACCEPTED or (self._call is not None and self._call.possibly_billed)

    @property
    def generation_id(self) -> GenerationId | None:
        """The id of its generation, once the API has accepted it."""
        return None if self._call is None else self._call.generation_id

    async def run(self, executor: Executor, options: CallOptions, coordinator: RequestCoordinator) -> BatchResult:
        """
        Carry the request, and its repairs, to an outcome and return the result.

        Raises `NotAdmittedError` when it was refused and the batch ends before it may be sent again.
        """
        self._started = time.monotonic()
        try:
            while (result := await self._try(executor, options, coordinator)) is None:
                pass
        except NotAdmittedError as error:
            await self._withdraw(coordinator)
            if self.typed is None or not self.typed.invalid:
                raise
            return self._invalid_result(self.typed, error)
        except GeneratorExit:  # its loop was closed: no coordinator can be reached any more
            raise
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._cancel(coordinator)
            if self.typed is not None and self.typed.invalid and self.status not in {_COMPLETED, _FAILED}:
                self.cancelled_in_flight = False
                cancelled = APIConnectionError("the batch was closed", request_sent=self.status is _UNRESOLVED)
                self.unread_result = self._invalid_result(self.typed, cancelled)
            raise
        else:
            return result

    # ------------------------------------------------------------------------------------------------------- requests

    async def _try(
        self, executor: Executor, options: CallOptions, coordinator: RequestCoordinator
    ) -> BatchResult | None:
        """Send the request and return its result, or None when it, or its repair, was admitted to be sent again."""
        try:
            generation = await self._generate(executor, options, coordinator)
        except RateLimitError as error:
            if self.status is not _SENT or error.headers.get("x-should-retry") == "false":
                return await self._fail(error, coordinator)
            await self._refuse(error, coordinator)
        except _NotRecordedError as error:
            return await self._give_back(error.journal_error, coordinator)
        except NeuralBoxError as error:
            return await self._fail(error, coordinator)
        else:
            if self.typed is None:
                return await self._complete(generation, coordinator)
            return await self._complete_typed(self.typed, generation, coordinator)
        await coordinator.admit_again()
        return None

    async def _generate(self, executor: Executor, options: CallOptions, coordinator: RequestCoordinator) -> Generation:
        """Return the generation. Raises `NeuralBoxError`; `RateLimitError` when the request was refused, not run."""
        self._call = call = Call(self.wire, options)
        if self.claim.unresolved is not None and self.claim.is_pending:
            generation = Generation(id=self.claim.unresolved.generation_id, status="pending")
            await self._accept(call, generation, coordinator)
            return await self._wait(executor, generation, call, immediately=True)
        call.record = record = CallRecord(executor.monitor, self.wire, executor.base_url, started=call.started)
        with record:
            generation = await self._post(executor, call, coordinator)
            if not generation.finished:
                with record.as_parent():
                    generation = await self._accept_and_wait(generation, executor, call, coordinator)
        record.complete(generation)
        return generation

    async def _accept_and_wait(
        self, generation: Generation, executor: Executor, call: Call, coordinator: RequestCoordinator
    ) -> Generation:
        if usable_id(generation.id) is None:
            msg = "a pending generation without an id cannot be waited for"
            raise call.annotate(ResponseError(msg, path="$.id", body=self._body, text=generation.content))
        await self._accept(call, generation, coordinator)
        return await self._wait(executor, generation, call)

    async def _post(self, executor: Executor, call: Call, coordinator: RequestCoordinator) -> Generation:
        started = time.monotonic()
        try:
            await self._send(coordinator)
            generation = await executor.execute(call, self._decode)
        except BaseException as error:
            self._attempts += call.attempts
            await coordinator.observe(_signal_of(error), started)
            raise
        self._attempts += call.attempts
        await coordinator.observe(_ADMITTED, started)
        return generation

    def _decode(self, status_code: int, headers: Mapping[str, str], body: bytes) -> Generation:
        self._body = body  # for the journal
        return decode_generation(status_code, headers, body)

    @staticmethod
    async def _wait(executor: Executor, generation: Generation, call: Call, *, immediately: bool = False) -> Generation:
        try:
            return await polling.wait(executor, generation, call.options, call.deadline, immediately=immediately)
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

    async def _send(self, coordinator: RequestCoordinator) -> None:
        self._move(_SENT)
        if not coordinator.has_journal:
            return
        try:
            await coordinator.record_sent(self.claim, self.wire.headers["Idempotency-Key"], self.reserved)
        except JournalError as error:
            raise _NotRecordedError(error) from None

    async def _accept(self, call: Call, generation: Generation, coordinator: RequestCoordinator) -> None:
        self._move(_ACCEPTED)
        self._body = b""
        call.accept(generation.id)
        if generation.id is not None and not self.claim.is_pending:
            # It is paid for: it is waited for even if the journal cannot be written.
            self.journal_error = await coordinator.record_accepted(self.claim, generation.id)

    async def _complete(self, generation: Generation, coordinator: RequestCoordinator) -> BatchResult:
        self._move(_COMPLETED)
        return await self._record(generation, coordinator)

    async def _complete_typed(
        self, typed: TypedItem, generation: Generation, coordinator: RequestCoordinator
    ) -> BatchResult | None:
        """Return the result of *generation*, or None if it is not of the output type and a repair was admitted."""
        if (parsed := typed.parse(generation, self._call)) is not None:
            self._move(_COMPLETED)
            result = await self._record(generation, coordinator, tokens_of_invalid=typed.tokens_of_invalid)
            return attrs.evolve(result, value=parsed.value, tokens_used=typed.total_tokens(result.tokens_used))
        self._move(_INVALID)
        await self._record(generation, coordinator, is_valid=False)
        if not typed.may_repair or self.journal_error is not None:
            return self._invalid_result(typed, self.journal_error)
        return await self._repair(typed, coordinator)

    async def _repair(self, typed: TypedItem, coordinator: RequestCoordinator) -> BatchResult | None:
        """Make the next request of *typed* the one to send, or return the result when it is not admitted."""
        # Its next request is a new one, whatever an earlier run had left.
        self.claim = attrs.evolve(self.claim, status=KeyStatus.INVALID, unresolved=None)
        try:
            self.reserved = await coordinator.admit_repair(self.claim)
        except BudgetReachedError as error:
            self.budget_error = error
            return self._invalid_result(typed, error)
        except NotAdmittedError as error:
            return self._invalid_result(typed, error)
        self._move(_CLAIMED)
        self._call, self._body, self.wire = None, b"", typed.repair(self.wire.headers)
        return None

    async def _record(
        self,
        generation: Generation,
        coordinator: RequestCoordinator,
        *,
        is_valid: bool = True,
        tokens_of_invalid: Sequence[int | None] = (),
    ) -> BatchResult:
        """Record *generation*, and return its result, with its own tokens."""
        tokens_used = usable_tokens(generation.tokens_used)
        self.tokens_billed += tokens_used or 0
        result = self._result(generation, None, tokens_used)
        recorded, body = result, self._body
        if coordinator.has_journal and self._call is not None:
            masked, body = masking.mask_generation(generation, body, self._call.mask)
            recorded = result if masked is generation else attrs.evolve(result, generation=masked)
        error = await coordinator.record_completed(
            self.claim, recorded, body, is_valid=is_valid, tokens_of_invalid=tokens_of_invalid
        )
        if error is not None:
            self._note(error)
        return result

    async def _fail(self, error: NeuralBoxError, coordinator: RequestCoordinator) -> BatchResult:
        not_billed = error.billed == "no"
        self._move(_FAILED if not_billed else _UNRESOLVED)
        result = self._result(None, error, 0 if not_billed else None)
        self._note(await coordinator.record_failed(self.claim, result, self._generation_id(error)))
        return self._failed_result(result, error)

    async def _give_back(self, error: JournalError, coordinator: RequestCoordinator) -> BatchResult:
        """Return the result of a request that is not sent because the journal could not record that: with *error*."""
        self._move(_FAILED)
        self._note(error)
        # No line in the journal: it would settle an earlier run's request with the same key.
        await coordinator.record_withdrawn(self.claim)
        return self._failed_result(self._result(None, error, 0), error)

    async def _refuse(self, error: RateLimitError, coordinator: RequestCoordinator) -> None:
        # It will be sent again, perhaps in hours: until then it is not unresolved.
        self._move(_REFUSED)
        generation_id, self._call = self._generation_id(error), None
        self._note(await coordinator.record_refused(self.claim, self._result(None, error, 0), generation_id))

    async def _withdraw(self, coordinator: RequestCoordinator) -> None:
        """Record that the request will not be sent; the journal knows nothing of it, or that it was refused."""
        self._move(_WITHDRAWN)
        await coordinator.record_withdrawn(self.claim)

    async def _cancel(self, coordinator: RequestCoordinator) -> None:
        """Record that the request was cancelled on its way."""
        if self.status not in TRANSITIONS or self.status is _INVALID:
            return  # it has its outcome
        self.cancelled_in_flight = self.status is _SENT or self.status is _ACCEPTED
        if self.possibly_billed:
            self._move(_UNRESOLVED)
            await coordinator.record_unresolved(self.claim)
        elif self.cancelled_in_flight:
            self._move(_WITHDRAWN)
            unsent = APIConnectionError("the request was cancelled before it was sent")
            self._note(await coordinator.record_failed(self.claim, self._result(None, unsent, 0), None))
        else:
            await self._withdraw(coordinator)

    def _note(self, error: JournalError | None) -> None:
        self.journal_error = self.journal_error or error

    # --------------------------------------------------------------------------------------------------------- result

    def _generation_id(self, error: NeuralBoxError) -> GenerationId | None:
        return error.generation_id if self.generation_id is None else self.generation_id

    def _failed_result(self, result: BatchResult, error: NeuralBoxError) -> BatchResult:
        """Return *result*, with *error*; if it was the repair that failed, the result with the invalid text."""
        if self.typed is None or not self.typed.invalid:
            return result
        return self._invalid_result(self.typed, error)

    def _invalid_result(self, typed: TypedItem, cause: Exception | None) -> BatchResult:
        """Return the result with the invalid text; *cause*: the reason why no repair replaced it."""
        error = typed.error(time.monotonic() - self._started, cause)
        return self._result(None, error, typed.total_tokens(None if last_error(error).billed == "unknown" else 0))

    def _result(
        self, generation: Generation | None, error: NeuralBoxError | None, tokens_used: int | None
    ) -> BatchResult:
        return BatchResult(
            index=self.index,
            key=self.key,
            item=self.item,
            request=self.request,
            generation=generation,
            error=error,
            attempts=self.attempts_before + self._attempts,
            elapsed=time.monotonic() - self._started,
            tokens_used=tokens_used,
        )


class _NotRecordedError(Exception):
    """The journal could not record that a request is sent, because of *journal_error*."""

    def __init__(self, journal_error: JournalError) -> None:
        super().__init__(journal_error)
        self.journal_error = journal_error


def _signal_of(error: BaseException) -> ServerSignal:
    """Return the information about the server in the *error* that ended a request."""
    if isinstance(error, RateLimitError):
        return ServerSignal.PUSHED_BACK
    if isinstance(error, APIConnectionError | ModelUnavailableError):
        return ServerSignal.FAILED
    if not isinstance(error, NeuralBoxError) or isinstance(error, ClientClosedError):
        return ServerSignal.NONE
    return ServerSignal.ADMITTED
