"""The preparation of requests: from an item of the input to a request that may be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralbox_async._batch.inputs import content_key, key_of
from neuralbox_async._batch.journal import KeyStatus
from neuralbox_async._batch.request_state import RequestState
from neuralbox_async._batch.results import BatchResult
from neuralbox_async._call.executor import Call
from neuralbox_async._clock import time_after
from neuralbox_async._errors import InvalidParameterError, NeuralBoxError, OutcomeUnknownError
from neuralbox_async._logging import logger
from neuralbox_async._wire import endpoints
from neuralbox_async._wire.responses import decode_price

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._batch.coordinator import Coordinator
    from neuralbox_async._batch.inputs import RequestDefaults
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._options import CallOptions

_UNRESOLVED = "an earlier run sent it and ended before the response; it may have been billed"
_PRICE_TIMEOUT = 30.0


class RequestPreparer:
    """
    Makes requests of items, claims their keys, and waits until they may be sent.

    *choose_retry* decides for a key, whose request may have been billed without a response, whether it is sent again.
    """

    def __init__(
        self,
        *,
        executor: Executor,
        options: CallOptions,
        defaults: RequestDefaults,
        coordinator: Coordinator,
        choose_retry: Callable[[str], bool],
        idempotency_prefix: str,
    ) -> None:
        self._executor, self._options, self._defaults = executor, options, defaults
        self._coordinator, self._choose_retry = coordinator, choose_retry
        self._idempotency_prefix = idempotency_prefix
        self._quoted_models: set[str] = set()

    async def prepare(self, index: int, item: object) -> RequestState | BatchResult | None:
        """Return the state of a request to send, or its result if it has one; None if it is done already."""
        headers = {**self._options.headers, "Idempotency-Key": f"{self._idempotency_prefix}-{index}"}
        try:
            request = self._defaults.request(item)
            wire = endpoints.generate(request, headers)
        except InvalidParameterError as error:
            return BatchResult(index=index, key=key_of(item) or f"#{index}", error=error, tokens_used=0)
        key = request.key or content_key(wire.body or b"")
        try:
            claim = await self._coordinator.claim(key, may_number=request.key is None)
        except InvalidParameterError as error:
            return BatchResult(index=index, key=key, request=request, error=error, tokens_used=0)
        if claim.status is KeyStatus.DONE:
            return None
        if claim.status is KeyStatus.UNRESOLVED and self._coordinator.sending:
            return self._decide(RequestState(index, claim, request, wire), headers)
        return RequestState(index, claim, request, wire)

    def _decide(self, state: RequestState, headers: dict[str, str]) -> RequestState | BatchResult:
        """Return *state* if its request is sent again although it may have been billed, otherwise its result."""
        claim = state.claim
        if not self._choose_retry(claim.key):
            unknown = OutcomeUnknownError(_UNRESOLVED, keys=(claim.key,))
            return BatchResult(index=state.index, key=claim.key, request=state.request, error=unknown)
        if claim.unresolved is not None:
            # Should the API honour this header after all, it will not bill a second time.
            headers["Idempotency-Key"] = claim.unresolved.idempotency_key or headers["Idempotency-Key"]
        return state

    async def admit(self, state: RequestState) -> None:
        """
        Wait until budget and rate limits let *state* start.

        Raises `BudgetReachedError`, and `NotAdmittedError` when nothing more is to be sent.
        """
        if not state.is_pending_before and self._coordinator.sending:
            for model in await self._coordinator.models_to_price(state.request.model):
                await self._quote(model)
        await state.admit(self._coordinator)

    async def _quote(self, model: str) -> None:
        """Get the price of *model* from the API, once."""
        if model in self._quoted_models:
            return
        self._quoted_models.add(model)
        call = Call(endpoints.price(model, self._options.headers), self._options, time_after(_PRICE_TIMEOUT))
        try:
            price = await self._executor.execute(call, decode_price)
        except NeuralBoxError as error:
            logger.info("the price of %s is unknown (%s): its first bill sets it", model, type(error).__name__)
        else:
            await self._coordinator.quote(model, price)
