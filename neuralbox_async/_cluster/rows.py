"""The rows of one worker process: each is claimed, sent if that is the decision, and settled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs

from neuralbox_async._batch import earlier_results
from neuralbox_async._batch.batch_request import BatchRequest
from neuralbox_async._batch.changed_requests import changed_error
from neuralbox_async._batch.claim import Claim
from neuralbox_async._batch.coordinator import NotAdmittedError
from neuralbox_async._batch.errors import BatchStateError, JournalError
from neuralbox_async._batch.inputs import content_key, plain
from neuralbox_async._batch.key_status import KeyStatus, Unresolved
from neuralbox_async._batch.notifier import Notifier
from neuralbox_async._batch.request_status import RequestStatus
from neuralbox_async._batch.results import BatchResult, last_error
from neuralbox_async._call.executor import Call
from neuralbox_async._clock import time_after
from neuralbox_async._cluster.messages import Decision
from neuralbox_async._cluster.row_claims import RowClaims
from neuralbox_async._cluster.row_results import failure_of, result_of
from neuralbox_async._cluster.session import ClaimLostError
from neuralbox_async._errors import (
    AuthenticationError,
    ClientClosedError,
    InsufficientTokensError,
    InvalidParameterError,
    NeuralBoxError,
    PermissionDeniedError,
)
from neuralbox_async._lazy_imports import anyio
from neuralbox_async._logging import logger
from neuralbox_async._validation import key_text
from neuralbox_async._wire import endpoints
from neuralbox_async._wire.responses import decode_price

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neuralbox_async._batch.typed_items import TypedOutput
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._cluster.messages import Grant
    from neuralbox_async._cluster.row_results import RowResult
    from neuralbox_async._cluster.session import WorkerSession
    from neuralbox_async._cluster.settings import WorkerSettings
    from neuralbox_async._options import CallOptions
    from neuralbox_async._types import GenerateRequest

_PRICE_TIMEOUT = 30.0
_FATAL_ERRORS = (AuthenticationError, ClientClosedError, InsufficientTokensError)
_STATUS = {
    Decision.SEND: KeyStatus.NEW,
    Decision.DONE: KeyStatus.DONE,
    Decision.ASK: KeyStatus.PENDING,
    Decision.UNRESOLVED: KeyStatus.UNRESOLVED,
    Decision.INVALID: KeyStatus.INVALID,
}


class RowRunner:
    """Runs rows over one session, at most *width* requests in flight for all partitions of this process together."""

    def __init__(
        self,
        session: WorkerSession,
        executor: Executor,
        options: CallOptions,
        settings: WorkerSettings,
        output: TypedOutput | None,
    ) -> None:
        self._session, self._executor, self._options = session, executor, options
        self._settings, self._output = settings, output
        self._encode = endpoints.generate if output is None else output.encode
        self._width = settings.width
        self._places = anyio.Semaphore(settings.width, fast_acquire=True)
        self._active = 0  # rows
        self._changed = Notifier()
        self._quoted: set[str] = set()
        self._pricing = anyio.Lock()

    async def run(self, rows: Sequence[object], on_last_started: Callable[[], object]) -> list[RowResult]:
        """
        Return the results of *rows* in their order, once the coordinator has confirmed their outcomes.

        *on_last_started* is called when no row waits any more for others of this process.
        """
        results: list[RowResult | None] = [None] * len(rows)
        async with anyio.create_task_group() as group:
            for index, row in enumerate(rows):
                while self._active - self._session.busy >= self._width + self._session.ahead:
                    await self._changed.wait(1.0)
                self._active += 1
                group.start_soon(self._run_row, index, row, results)
            on_last_started()
        try:
            await self._session.flush()
        except NeuralBoxError as error:
            # The results are paid for, and all that the user gets.
            logger.warning("the journal lacks outcomes of this worker: %s", error)
        return [result for result in results if result is not None]

    async def _run_row(self, index: int, row: object, results: list[RowResult | None]) -> None:
        try:
            results[index] = await self._result(index, row)
        finally:
            self._active -= 1
            self._changed.notify_all()

    # ----------------------------------------------------------------------------------------------------------- a row

    async def _result(self, index: int, row: object) -> RowResult:
        item: object = None
        try:
            item = self._settings.row_format.item(row)
            request = self._settings.defaults.request(item)
            self._encode(request, self._options.headers)
            key, request_hash = self._identity(request)
        except BaseException as error:  # noqa: BLE001 - of the user's values and functions; nothing is awaited here
            given = self._settings.row_format.key_of(row)
            return failure_of(row, f"#{index}" if given is None else key_text(given), _refused(item, error))
        claims = RowClaims(self._session, self._places, key, plain(request.model), request_hash)
        try:
            if self._settings.needs_prices:
                await self._quote_prices(plain(request.model))
            result = await self._last_result(index, request, claims, key)
        except NeuralBoxError as error:  # nothing more can be claimed
            return failure_of(row, key, error)
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - of the user's functions: not that of all rows of the task
            # Not its text, which may have a key that the program uses.
            failure = failure_of(row, key, NeuralBoxError(f"a function of the program raised {type(error).__name__}"))
            if claims.batch_request is None or claims.batch_request.status is not RequestStatus.UNRESOLVED:
                return failure
            return attrs.evolve(failure, billed="unknown", tokens_used=None)
        finally:
            claims.release()
        return result_of(row, result, keeps_outcome=self._settings.keeps_outcomes)

    def _identity(self, request: GenerateRequest) -> tuple[str, str | None]:
        """Return the key of *request*, and the hash of its body, None if that is the key."""
        if self._output is None:
            body = endpoints.generate(request, self._options.headers).body or b""
        else:
            body = self._output.identity(request)
        request_hash = content_key(body)
        return (request_hash, None) if request.key is None else (key_text(request.key), request_hash)

    async def _last_result(self, index: int, request: GenerateRequest, claims: RowClaims, key: str) -> BatchResult:
        """Return the result of *request*, which is claimed anew each time that its claim was lost."""
        paid: BatchResult | None = None  # an invalid text of a claim that was lost
        while True:
            claims.batch_request = None
            try:
                return await self._claim_and_run(index, request, claims, key)
            except ClaimLostError:
                lost: BatchRequest | None = claims.batch_request
                if lost is not None:
                    paid = lost.unread_result or paid
            except NeuralBoxError:
                if paid is None:
                    raise
                return paid

    async def _claim_and_run(self, index: int, request: GenerateRequest, claims: RowClaims, key: str) -> BatchResult:
        """Return the result of *request*. Raises `ClaimLostError` when it is to be claimed anew."""
        grant = await claims.claim()
        if grant.decision is Decision.STOPPED:
            raise self._not_sent()
        if grant.decision is Decision.CHANGED:
            raise changed_error((key,))
        batch_request = self._batch_request(index, request, key, grant)
        claims.batch_request = batch_request
        if grant.decision is Decision.DONE:
            return await earlier_results.done_result(batch_request, claims)
        if grant.decision is Decision.UNRESOLVED:
            return await earlier_results.unknown_result(batch_request, claims)
        if grant.lines:
            if (result := await earlier_results.invalid_result(batch_request, claims)) is not None:
                return result
            if grant.decision is Decision.INVALID:
                further = await self._claim_repair(batch_request, claims)
                if isinstance(further, BatchResult):
                    return further
                grant = further
            if batch_request.typed is not None:
                batch_request.wire = endpoints.generate(batch_request.typed.request, self._headers(grant))
        return await self._run(batch_request, claims)

    async def _claim_repair(self, batch_request: BatchRequest, claims: RowClaims) -> Grant | BatchResult:
        """Return the grant of the repair of an earlier text, or the result with that text if it may not start."""
        try:
            grant = await claims.claim_further("repair")
        except ClaimLostError:
            raise
        except NeuralBoxError as error:  # without a coordinator
            return earlier_results.unrepaired_result(batch_request, error)
        if grant.decision is not Decision.SEND:
            return earlier_results.unrepaired_result(batch_request, self._not_sent())
        batch_request.reserved = grant.reserved
        return grant

    def _batch_request(self, index: int, request: GenerateRequest, key: str, grant: Grant) -> BatchRequest:
        unresolved = grant.unresolved or (Unresolved(key) if grant.decision is Decision.UNRESOLVED else None)
        claim = Claim(key, plain(request.model), _STATUS[grant.decision], unresolved)
        batch_request = BatchRequest(index, claim, request, self._encode(request, self._headers(grant)), grant.reserved)
        if self._output is not None:
            batch_request.typed = self._output.item(request)
        return batch_request

    def _headers(self, grant: Grant) -> dict[str, str]:
        return {**self._options.headers, "Idempotency-Key": grant.idempotency_key or grant.id}

    async def _run(self, batch_request: BatchRequest, claims: RowClaims) -> BatchResult:
        await claims.take_place()
        try:
            await self._wait_for_limit(batch_request)
            result = await batch_request.run(self._executor, self._options, claims)
        except NotAdmittedError as not_admitted:
            cause = not_admitted.__cause__
            raise (cause if isinstance(cause, NeuralBoxError) else self._not_sent()) from None
        finally:
            claims.give_up_place()
        if result.error is not None:
            error = last_error(result.error)
            if isinstance(error, ClaimLostError):
                if error is not result.error:  # that of a repair
                    batch_request.unread_result = result
                raise error
            self._stop_after(error)
        return result

    async def _wait_for_limit(self, batch_request: BatchRequest) -> None:
        """Wait while a limit that another request has reached lets nothing be sent, unless this one will not be."""
        while (delay := self._executor.account_state.rate_limits.closed_until - time.monotonic()) > 0:
            if self._session.stopped_by is not None and not batch_request.claim.is_pending:
                return
            await anyio.sleep(min(delay, 1.0))

    def _stop_after(self, error: NeuralBoxError) -> None:
        """Report *error* if each request would end with it."""
        no_plan = isinstance(error, PermissionDeniedError) and error.code == "insufficient_plan"
        if isinstance(error, _FATAL_ERRORS) or (no_plan or isinstance(error, JournalError)):
            self._session.fail(error)

    def _not_sent(self) -> NeuralBoxError:
        """Return the error of a row that was not sent, because nothing more is."""
        error = self._session.stopped_by
        return BatchStateError("the batch was closed before this request was sent") if error is None else error

    # ---------------------------------------------------------------------------------------------------------- prices

    async def _quote_prices(self, model: str) -> None:
        """Get the prices that the budget needs before a request of *model*, each once in this process."""
        if model in self._quoted and not self._session.unpriced:
            return
        async with self._pricing:
            for name in (*self._session.unpriced, model):
                if name not in self._quoted:
                    await self._quote(name)
                    self._quoted.add(name)

    async def _quote(self, model: str) -> None:
        call = Call(endpoints.price(model, self._options.headers), self._options, time_after(_PRICE_TIMEOUT))
        try:
            price = await self._executor.execute(call, decode_price)
        except NeuralBoxError as error:
            logger.info("the price of %s is unknown (%s): its first bill sets it", model, type(error).__name__)
        else:
            self._session.quote(model, price)


def _refused(item: Any, error: BaseException) -> NeuralBoxError:
    if isinstance(error, NeuralBoxError):
        return error
    # Not its text, which may have a key that the program uses.
    rule = f"a request made of plain strings, numbers, lists and dicts; it raised {type(error).__name__}"
    refused = InvalidParameterError("rows[]", item, rule, show=False)
    refused.__cause__ = error
    return refused
