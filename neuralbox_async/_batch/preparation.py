"""The preparation of requests: from an item of the input to a request that may be sent."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING

from neuralbox_async._batch.errors import OutcomeUnknownError
from neuralbox_async._batch.inputs import content_key, key_of, plain
from neuralbox_async._batch.journal import KeyStatus
from neuralbox_async._batch.request_state import RequestState
from neuralbox_async._batch.results import BatchResult
from neuralbox_async._call.executor import Call
from neuralbox_async._clock import time_after
from neuralbox_async._errors import InvalidParameterError, NeuralBoxError
from neuralbox_async._logging import logger
from neuralbox_async._validation import check_idempotency_key
from neuralbox_async._wire import endpoints
from neuralbox_async._wire.responses import decode_price

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._batch.coordinator import Claim, Coordinator
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
        choose_retry: Callable[[str], bool | Awaitable[bool]],
        idempotency_prefix: str,
    ) -> None:
        self._executor, self._options, self._defaults = executor, options, defaults
        self._coordinator, self._choose_retry = coordinator, choose_retry
        self._idempotency_prefix = idempotency_prefix
        self._has_budget = coordinator.has_budget
        self._quoted_models: set[str] = set()

    async def prepare(self, index: int, item: object) -> RequestState | BatchResult | None:
        """
        Return the request that *item* describes, once it may be sent, or its result if it has one; None if it is done.

        Raises `BudgetReachedError` when the budget does not cover it, and `NotAdmittedError` when nothing more is to be
        sent.
        """
        headers = {**self._options.headers, "Idempotency-Key": f"{self._idempotency_prefix}-{index}"}
        try:
            request = self._defaults.request(item)
            wire = endpoints.generate(request, headers)
        except Exception as error:  # noqa: BLE001 - of methods of the user's own values
            refused = error if isinstance(error, InvalidParameterError) else _unusable(item, error)
            return BatchResult(index=index, key=key_of(item) or f"#{index}", error=refused, tokens_used=0)
        key = content_key(wire.body or b"") if request.key is None else plain(request.key)
        try:
            claim = await self._coordinator.claim(key, plain(request.model), may_number=request.key is None)
        except InvalidParameterError as error:
            return BatchResult(index=index, key=key, request=request, error=error, tokens_used=0)
        if claim.status is not KeyStatus.NEW:
            if claim.status is KeyStatus.DONE:
                return None
            if claim.status is KeyStatus.UNRESOLVED and not await self._sends_again(claim, headers):
                text, body = await self._coordinator.response_of(claim)
                unknown = OutcomeUnknownError(_UNRESOLVED, keys=(claim.key,), text=text, body=body)
                return BatchResult(index=index, key=claim.key, request=request, error=unknown)
        if self._has_budget and not claim.is_pending:
            await self._quote_prices(claim.model)
        return RequestState(index, claim, request, wire, await self._coordinator.admit(claim))

    async def _sends_again(self, claim: Claim, headers: dict[str, str]) -> bool:
        """Return whether a request that may have been billed is sent again, and set its idempotency key."""
        if not self._coordinator.sending:
            return True  # it will not be admitted: no decision is needed
        if claim.unresolved is not None:
            # Should the API honour this header after all, it will not bill a second time.
            with suppress(InvalidParameterError):  # the journal may have none, or one that a user has edited
                headers["Idempotency-Key"] = check_idempotency_key(claim.unresolved.idempotency_key)
        decision = self._choose_retry(claim.key)
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
    refused = InvalidParameterError("requests[]", item, "a request of plain values")
    refused.__cause__ = error
    return refused
