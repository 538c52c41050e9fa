"""The preparation of requests: from an item of the input to a request that may be sent."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._batch import earlier_results
from neuralbox_async._batch.batch_request import BatchRequest
from neuralbox_async._batch.changed_requests import changed_error
from neuralbox_async._batch.inputs import content_key, key_of, plain
from neuralbox_async._batch.key_status import KeyStatus
from neuralbox_async._batch.results import BatchResult
from neuralbox_async._call.executor import Call
from neuralbox_async._clock import time_after
from neuralbox_async._errors import InvalidParameterError, NeuralBoxError
from neuralbox_async._logging import logger
from neuralbox_async._validation import check_idempotency_key, key_text
from neuralbox_async._wire import endpoints
from neuralbox_async._wire.responses import decode_price

if TYPE_CHECKING:
    from neuralbox_async._batch.claim import Claim
    from neuralbox_async._batch.coordinator import Coordinator
    from neuralbox_async._batch.inputs import RequestDefaults
    from neuralbox_async._batch.options import BatchOptions
    from neuralbox_async._batch.typed_items import TypedOutput
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._options import CallOptions
    from neuralbox_async._types import GenerateRequest
    from neuralbox_async._wire.requests import Request

_PRICE_TIMEOUT = 30.0
_NEW = KeyStatus.NEW  # in Python 3.11 the lookup takes as long as a call


class RequestPreparer:
    """Makes requests of items, claims their keys, and waits until they may be sent."""

    def __init__(
        self,
        *,
        executor: Executor,
        options: CallOptions,
        defaults: RequestDefaults,
        coordinator: Coordinator,
        batch_options: BatchOptions,
        idempotency_prefix: str,
        output: TypedOutput | None = None,
    ) -> None:
        self._executor, self._options, self._defaults = executor, options, defaults
        self._coordinator, self._choose_retry = coordinator, batch_options.choose_retry
        self._on_changed, self._include_done = batch_options.on_changed, batch_options.include_done
        self._idempotency_prefix = idempotency_prefix
        self._has_budget, self._has_journal = coordinator.has_budget, coordinator.has_journal
        self._output = output
        self._encode = endpoints.generate if output is None else output.encode
        self._quoted_models: set[str] = set()

    async def prepare(self, index: int, item: object) -> BatchRequest | BatchResult | None:
        """
        Return the request that *item* describes, once it may be sent, or its result if it has one; None if it is done.

        Raises `InvalidParameterError` when the first item shows that the batch lacks a model, `RequestChangedError`
        with ``on_changed="raise"``, `BudgetReachedError` when the budget does not cover it, and `NotAdmittedError` when
        nothing more is to be sent.
        """
        headers = {**self._options.headers, "Idempotency-Key": f"{self._idempotency_prefix}-{index}"}
        if index == 0:
            self._defaults.check_model(item)
        try:
            request = self._defaults.request(item)
            wire = self._encode(request, headers)
        except Exception as error:  # noqa: BLE001 - of methods of the user's own values
            refused = error if isinstance(error, InvalidParameterError) else _unusable(item, error)
            given = key_of(item)
            key = f"#{index}" if given is None else given
            return BatchResult(index=index, key=key, item=item, error=refused, tokens_used=0)
        try:
            claim = await self._claim(request, wire)
        except InvalidParameterError as error:
            return BatchResult(index=index, key=request.key, item=item, request=request, error=error, tokens_used=0)
        batch_request = BatchRequest(index, claim, request, wire, item=item)
        if self._output is not None:
            batch_request.typed = self._output.item(request)
        if claim.status is not _NEW:
            resumed = await self._resume(batch_request, headers)
            if resumed is not batch_request:
                return resumed
        if self._has_budget and not batch_request.claim.is_pending:
            await self._quote_prices(claim.model)
        batch_request.reserved = await self._coordinator.admit(batch_request.claim)
        return batch_request

    async def _claim(self, request: GenerateRequest, wire: Request) -> Claim:
        """Claim the key of *request*. Raises `InvalidParameterError` when another one of this batch has it."""
        model = plain(request.model)
        body = wire.body or b"" if self._output is None else self._output.identity(request)
        if request.key is None:
            return await self._coordinator.claim(content_key(body), model, may_number=True)
        request_hash = content_key(body) if self._has_journal else None
        return await self._coordinator.claim(key_text(request.key), model, may_number=False, request_hash=request_hash)

    # -------------------------------------------------------------------------------------- requests of earlier runs

    async def _resume(self, batch_request: BatchRequest, headers: dict[str, str]) -> BatchResult | BatchRequest | None:
        """
        Return the result of *batch_request*, which earlier runs sent; None if it is done; itself if it is to be sent.

        If earlier runs got texts that were not of the output type, its next repair is what is sent.
        """
        if batch_request.claim.changed:
            self._settle_change(batch_request)
        claim = batch_request.claim
        if claim.status is KeyStatus.DONE:
            return await earlier_results.done_result(batch_request, self._coordinator) if self._include_done else None
        if claim.status is KeyStatus.UNRESOLVED and not await self._sends_again(batch_request, headers):
            return await earlier_results.unknown_result(batch_request, self._coordinator)
        if claim.invalid:
            if (result := await earlier_results.invalid_result(batch_request, self._coordinator)) is not None:
                return result
            if batch_request.typed is not None:
                batch_request.wire = endpoints.generate(batch_request.typed.request, headers)
        return batch_request

    def _settle_change(self, batch_request: BatchRequest) -> None:
        """Settle *batch_request*, with whose key earlier runs sent another request, as *on_changed* has it."""
        if self._on_changed == "raise":
            raise changed_error((batch_request.request.key,))
        if self._on_changed == "retry":
            batch_request.claim = attrs.evolve(
                batch_request.claim, status=KeyStatus.NEW, unresolved=None, changed=False, invalid=()
            )
        elif batch_request.typed is not None:
            batch_request.typed.max_repairs = 0  # the text to repair is of another request

    # -------------------------------------------------------------------------------------- before a request is sent

    async def _sends_again(self, batch_request: BatchRequest, headers: dict[str, str]) -> bool:
        """Return whether a request that may have been billed is sent again, and set its idempotency key."""
        claim = batch_request.claim
        if claim.changed:
            return False  # it would be another request
        if not self._coordinator.sending:
            return True  # it will not be admitted: no decision is needed
        if claim.unresolved is not None:
            # Should the API honour this header after all, it will not bill a second time.
            with suppress(InvalidParameterError):  # the journal may have none, or one that a user has edited
                headers["Idempotency-Key"] = check_idempotency_key(claim.unresolved.idempotency_key)
        decision = self._choose_retry(batch_request.key)
        return await decision if isinstance(decision, Awaitable) else decision

    async def _quote_prices(self, model: str) -> None:
        """Get the prices that the budget needs before a request of *model*, each once."""
        if not self._coordinator.sending:
            return
        for name in await self._coordinator.models_to_price(model):
            if name not in self._quoted_models:
                self._quoted_models.add(name)
                await self._quote(name)

    async def _quote(self, model: str) -> None:
        call = Call(endpoints.price(model, self._options.headers), self._options, time_after(_PRICE_TIMEOUT))
        try:
            price = await self._executor.execute(call, decode_price)
        except NeuralBoxError as error:
            logger.info("the price of %s is unknown (%s): its first bill sets it", model, type(error).__name__)
        else:
            await self._coordinator.quote(model, price)


def _unusable(item: object, error: Exception) -> InvalidParameterError:
    refused = InvalidParameterError("requests[]", item, "a request made of plain strings, numbers, lists and dicts")
    refused.__cause__ = error
    return refused
