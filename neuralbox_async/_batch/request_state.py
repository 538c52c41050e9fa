"""
The life of one request of a batch: each transition is one method, and the only place where its facts change.

Each transition informs the `Coordinator` of journal, budget and limits.
"""

from __future__ import annotations

import enum
import time
from typing import TYPE_CHECKING, Any

import attrs

from neuralbox_async._batch.coordinator import NotAdmittedError, ServerSignal
from neuralbox_async._batch.errors import JournalError
from neuralbox_async._batch.journal_lines import usable_id
from neuralbox_async._batch.results import BatchResult
from neuralbox_async._call import masking, polling
from neuralbox_async._call.executor import Call
from neuralbox_async._call.record import CallRecord
from neuralbox_async._clock import time_after
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
    from collections.abc import Mapping

    from neuralbox_async._batch.coordinator import Claim, Coordinator
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._options import CallOptions
    from neuralbox_async._types import GenerateRequest, GenerationId
    from neuralbox_async._wire.requests import Request


class RequestStatus(enum.IntEnum):  # integers, because their hashes are fast
    r"""
    The states of a request.

        CLAIMED --sent--> SENT --response--> COMPLETED, FAILED
           |              |  \--pending--> ACCEPTED --status requests--> COMPLETED, FAILED
           |              +--429--> REFUSED --sent again--> SENT
           +--pending since an earlier run--> ACCEPTED

    SENT becomes FAILED as well when the journal cannot record it: then nothing is sent. SENT and ACCEPTED become
    UNRESOLVED when the outcome stays unknown: the request may be billed. CLAIMED, SENT and REFUSED become WITHDRAWN
    when the batch ends before the request leaves this machine (again).
    """

    CLAIMED = enum.auto()
    SENT = enum.auto()
    ACCEPTED = enum.auto()
    REFUSED = enum.auto()
    COMPLETED = enum.auto()
    FAILED = enum.auto()
    UNRESOLVED = enum.auto()
    WITHDRAWN = enum.auto()


# Unpacked: in Python 3.11 each lookup of a member in its class takes as long as a call.
_CLAIMED, _SENT, _ACCEPTED, _REFUSED, _COMPLETED, _FAILED, _UNRESOLVED, _WITHDRAWN = RequestStatus
_ADMITTED = ServerSignal.ADMITTED

TRANSITIONS: dict[RequestStatus, frozenset[RequestStatus]] = {
    _CLAIMED: frozenset({_SENT, _ACCEPTED, _WITHDRAWN}),
    _SENT: frozenset({_ACCEPTED, _REFUSED, _COMPLETED, _FAILED, _UNRESOLVED, _WITHDRAWN}),
    _ACCEPTED: frozenset({_COMPLETED, _FAILED, _UNRESOLVED}),
    _REFUSED: frozenset({_SENT, _WITHDRAWN}),
}
"""The states that may follow each state; none follows the others."""


@attrs.define(eq=False)
class RequestState:
    """
    One request of a batch on its way, and what is known of it.

    *item*: as it was given. *claim*: of its key. *reserved*: tokens of the budget, None without a budget or when the
    price is unknown.
    """

    index: int
    claim: Claim
    request: GenerateRequest
    wire: Request
    reserved: int | None = None
    item: object = None
    status: RequestStatus = _CLAIMED
    cancelled_in_flight: bool = False  # after it had been recorded as sent, and before an outcome
    journal_error: JournalError | None = None  # the journal does not have all that is known
    _call: Call | None = None  # the one that runs or ran last
    _body: bytes = b""  # of the response with the generation
    _attempts: int = 0
    _started: float = attrs.field(factory=time.monotonic)

    @property
    def key(self) -> Any:
        """The key as it was given; without one, that of the claim."""
        return self.claim.key if self.request.key is None else self.request.key

    @property
    def possibly_billed(self) -> bool:
        """Whether it may be billed if it ends now."""
        return self.status is _ACCEPTED or (self._call is not None and self._call.possibly_billed)

    @property
    def generation_id(self) -> GenerationId | None:
        """The id of its generation, once the API has accepted it."""
        return None if self._call is None else self._call.generation_id

    async def run(self, executor: Executor, options: CallOptions, coordinator: Coordinator) -> BatchResult:
        """
        Carry the request to its outcome and return the result.

        Raises `NotAdmittedError` when it was refused and the batch ends before it may be sent again.
        """
        try:
            while True:
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
                    return await self._complete(generation, coordinator)
                await coordinator.admit_again()
        except NotAdmittedError:
            await self._withdraw(coordinator)
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
        if self.claim.is_pending:
            return await self._run_call(executor, call, coordinator)
        call.record = record = CallRecord(executor.monitor, self.wire, executor.base_url)
        with record, record.as_parent():
            generation = await self._run_call(executor, call, coordinator)
        record.complete(generation)
        return generation

    async def _run_call(self, executor: Executor, call: Call, coordinator: Coordinator) -> Generation:
        if self.claim.unresolved is not None and self.claim.is_pending:
            generation = Generation(id=self.claim.unresolved.generation_id, status="pending")
            await self._accept(call, generation, coordinator)
            return await self._wait(executor, generation, call, immediately=True)
        generation = await self._post(executor, call, coordinator)
        if generation.finished:
            return generation
        if usable_id(generation.id) is None:
            msg = "a pending generation without an id cannot be waited for"
            raise call.annotate(ResponseError(msg, path="$.id", body=self._body, text=generation.content))
        await self._accept(call, generation, coordinator)
        return await self._wait(executor, generation, call)

    async def _post(self, executor: Executor, call: Call, coordinator: Coordinator) -> Generation:
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
    async def _wait(executor: Executor, state: Generation, call: Call, *, immediately: bool = False) -> Generation:
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

    async def _send(self, coordinator: Coordinator) -> None:
        self._move(_SENT)
        try:
            await coordinator.sent(self.claim, self.wire.headers["Idempotency-Key"], self.reserved)
        except JournalError as error:
            raise _NotRecordedError(error) from None

    async def _accept(self, call: Call, generation: Generation, coordinator: Coordinator) -> None:
        self._move(_ACCEPTED)
        self._body = b""
        call.accept(generation.id)
        if generation.id is not None and not self.claim.is_pending:
            # It is paid for: it is waited for even if the journal cannot be written.
            self.journal_error = await coordinator.accepted(self.claim, generation.id)

    async def _complete(self, generation: Generation, coordinator: Coordinator) -> BatchResult:
        self._move(_COMPLETED)
        used = generation.tokens_used
        # A negative number is not a number of tokens, and one that needs more than 64 bits is a mistake.
        tokens_used = None if used is None or not 0 <= used < 2**63 else used
        result = self._result(generation, None, tokens_used)
        recorded, body = result, self._body
        if coordinator.has_journal and self._call is not None:
            masked, body = masking.mask_generation(generation, body, self._call.mask)
            recorded = result if masked is generation else attrs.evolve(result, generation=masked)
        self._note(await coordinator.completed(self.claim, recorded, body))
        return result

    async def _fail(self, error: NeuralBoxError, coordinator: Coordinator) -> BatchResult:
        not_billed = error.billed == "no"
        self._move(_FAILED if not_billed else _UNRESOLVED)
        result = self._result(None, error, 0 if not_billed else None)
        self._note(await coordinator.failed(self.claim, result, self._generation_id(error)))
        return result

    async def _give_back(self, error: JournalError, coordinator: Coordinator) -> BatchResult:
        """Return the result of a request that is not sent because the journal could not record that: with *error*."""
        self._move(_FAILED)
        self._note(error)
        # No line in the journal: it would settle an earlier run's request with the same key.
        await coordinator.withdrawn(self.claim)
        return self._result(None, error, 0)

    async def _refuse(self, error: RateLimitError, coordinator: Coordinator) -> None:
        # It will be sent again, perhaps in hours: until then it is not unresolved.
        self._move(_REFUSED)
        generation_id, self._call = self._generation_id(error), None
        self._note(await coordinator.refused(self.claim, self._result(None, error, 0), generation_id))

    async def _withdraw(self, coordinator: Coordinator) -> None:
        """Record that the request will not be sent; the journal knows nothing of it, or that it was refused."""
        self._move(_WITHDRAWN)
        await coordinator.withdrawn(self.claim)

    async def _cancel(self, coordinator: Coordinator) -> None:
        """Record that the request was cancelled on its way."""
        if self.status not in TRANSITIONS:
            return  # it has its outcome
        self.cancelled_in_flight = self.status is _SENT or self.status is _ACCEPTED
        if self.possibly_billed:
            self._move(_UNRESOLVED)
            await coordinator.unresolved(self.claim)
        elif self.cancelled_in_flight:
            self._move(_WITHDRAWN)
            unsent = APIConnectionError("the request was cancelled before it was sent")
            self._note(await coordinator.failed(self.claim, self._result(None, unsent, 0), None))
        else:
            await self._withdraw(coordinator)

    def _note(self, error: JournalError | None) -> None:
        self.journal_error = self.journal_error or error

    # --------------------------------------------------------------------------------------------------------- result

    def _generation_id(self, error: NeuralBoxError) -> GenerationId | None:
        return error.generation_id if self.generation_id is None else self.generation_id

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
            attempts=self._attempts,
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
