"""The methods of `NeuralBox` about the account, the catalogue of models, and prices."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from neuralbox_async import (
    NOT_GIVEN,
    Account,
    AccountStats,
    AsyncNeuralBox,
    Balance,
    ClientUsage,
    Estimate,
    Model,
    NotGiven,
    Price,
    RateLimitStatus,
    Requests,
)
from neuralbox_sync._blocking import View, documented_by
from neuralbox_sync._history import History


class AccountMethods(View[AsyncNeuralBox]):
    """The part of `NeuralBox` that generates nothing and costs nothing."""

    @property
    def usage(self) -> ClientUsage:
        """The generations that this client and those derived from it requested, and their cost, by model."""
        return self._subject.usage

    @documented_by(AsyncNeuralBox.reset_usage)
    def reset_usage(self) -> ClientUsage:
        """Return `usage`, and reset it to 0; a client that this one is derived from keeps its count."""
        return self._subject.reset_usage()

    @property
    def rate_limits(self) -> RateLimitStatus:
        """The rate limits of the key's account, as the latest responses reported them, without a request."""
        return self._subject.rate_limits

    @documented_by(AsyncNeuralBox.get_balance)
    def get_balance(
        self,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Balance:
        """Return the NeuralBox tokens that the account can spend. Costs nothing."""
        call = functools.partial(
            self._subject.get_balance, timeout=timeout, max_retries=max_retries, extra_headers=extra_headers
        )
        return self._loop.call(call)

    @documented_by(AsyncNeuralBox.get_account)
    def get_account(
        self,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Account:
        """Return the account that the API key belongs to, with its plan and rate limits. Costs nothing."""
        call = functools.partial(
            self._subject.get_account, timeout=timeout, max_retries=max_retries, extra_headers=extra_headers
        )
        return self._loop.call(call)

    @documented_by(AsyncNeuralBox.get_stats)
    def get_stats(
        self,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> AccountStats:
        """Return how much the account has generated and spent, in all, by category and recently. Costs nothing."""
        call = functools.partial(
            self._subject.get_stats, timeout=timeout, max_retries=max_retries, extra_headers=extra_headers
        )
        return self._loop.call(call)

    @documented_by(AsyncNeuralBox.list_models)
    def list_models(
        self,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> list[Model]:
        """Return the models of the catalogue. Costs nothing."""
        call = functools.partial(
            self._subject.list_models, timeout=timeout, max_retries=max_retries, extra_headers=extra_headers
        )
        return self._loop.call(call)

    @documented_by(AsyncNeuralBox.get_model)
    def get_model(
        self,
        model: str,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Model:
        """Return the model with the slug *model*. Costs nothing."""
        call = functools.partial(
            self._subject.get_model, model, timeout=timeout, max_retries=max_retries, extra_headers=extra_headers
        )
        return self._loop.call(call)

    @documented_by(AsyncNeuralBox.get_price)
    def get_price(
        self,
        model: str,
        params: Mapping[str, Any] | None = None,
        count: int = 1,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Price:
        """Return the price of *count* generations (at least 1) of *model*. Costs nothing."""
        call = functools.partial(
            self._subject.get_price,
            model,
            params,
            count,
            timeout=timeout,
            max_retries=max_retries,
            extra_headers=extra_headers,
        )
        return self._loop.call(call)

    @documented_by(AsyncNeuralBox.list_generations)
    def list_generations(
        self,
        *,
        category: str | None = None,
        model: str | None = None,
        status: str | None = None,
        favorites_only: bool = False,
        page: int = 1,
        limit: int = 100,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> History:
        """Return the generations of the account, newest first: ``for entry in client.list_generations():``."""
        history = self._subject.list_generations(
            category=category,
            model=model,
            status=status,
            favorites_only=favorites_only,
            page=page,
            limit=limit,
            timeout=timeout,
            max_retries=max_retries,
            extra_headers=extra_headers,
        )
        return History(history, self._loop, self)

    @documented_by(AsyncNeuralBox.estimate)
    def estimate(
        self,
        requests: Requests,
        *,
        model: str | None = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
    ) -> Estimate:
        """Return what a batch of *requests* will cost by the API's prices. Sends no generation and costs nothing."""
        call = functools.partial(
            self._subject.estimate,
            # The caller's code, such as a database cursor, runs in the caller's thread.
            list(requests) if isinstance(requests, Iterator) else requests,
            model=model,
            system=system,
            temperature=temperature,
            max_tokens=max_tokens,
            timeout=timeout,
            max_retries=max_retries,
        )
        return self._loop.call(call)
