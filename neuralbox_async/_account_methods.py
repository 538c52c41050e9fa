"""
`AccountMethods`: the methods of the client about the account, the catalogue of models, and prices.

All are free: they are retried after every transient failure, and no error of theirs is of a bill.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from neuralbox_async._account_types import Account, AccountStats, Balance, Estimate, Model, Price
from neuralbox_async._batch.inputs import RequestDefaults, Requests, check_requests
from neuralbox_async._call.pages import AsyncHistory
from neuralbox_async._call.rate_limit_status import RateLimitStatus, snapshot_of
from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._lazy_imports import lazy_module
from neuralbox_async._options import NOT_GIVEN, CallOptions, NotGiven
from neuralbox_async._usage import ClientUsage
from neuralbox_async._validation import check_count, check_flag, check_nonempty_text, is_mapping

if TYPE_CHECKING:
    from neuralbox_async._batch import estimate
    from neuralbox_async._call import account_requests
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._wire import endpoints
else:
    estimate = lazy_module("neuralbox_async._batch.estimate")
    account_requests = lazy_module("neuralbox_async._call.account_requests")
    endpoints = lazy_module("neuralbox_async._wire.endpoints")

_MAX_PAGE = 100  # entries, by the vendor's pages "History"


class AccountMethods:
    """The part of `AsyncNeuralBox` that generates nothing and costs nothing."""

    _executor: Executor
    _options: CallOptions

    @property
    def usage(self) -> ClientUsage:
        """
        The generations that this client and those derived from it requested, and their cost, by model.

        Counted by the client, without a request; a derived client counts its own. From any thread.
        """
        return self._executor.monitor.usage.snapshot()

    def reset_usage(self) -> ClientUsage:
        """Return `usage`, and reset it to 0; a client that this one is derived from keeps its count."""
        return self._executor.monitor.usage.snapshot(reset=True)

    @property
    def rate_limits(self) -> RateLimitStatus:
        """
        The rate limits of the key's account, as the latest responses reported them, without a request.

        Source: the vendor's page "Rate limits" (``X-RateLimit-*``).
        """
        return snapshot_of(self._executor.account_state.rate_limits)

    async def get_balance(
        self,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Balance:
        """
        Return the NeuralBox tokens that the account can spend. Costs nothing.

        Tries one of the two documented paths, after a 404 the other, and remembers the one that worked. *timeout*,
        *max_retries*, *extra_headers*: as for `AsyncNeuralBox.generate`, also for the other methods here. Raises
        `APIStatusError`, `APIConnectionError`, `APITimeoutError`, and `ResponseError` if there is no balance in the
        response; none is billed.

        Source: the vendor's pages "Balance" and "Profile" (GET /balance, GET /user/balance).
        """
        options = self._options.replace(timeout=timeout, max_retries=max_retries)
        return await account_requests.get_balance(self._executor, options, options.get_headers(extra_headers))

    async def get_account(
        self,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Account:
        """
        Return the account that the API key belongs to, with its plan and rate limits. Costs nothing.

        Parameters and errors: those of `get_balance`. Source: the vendor's page "Profile" (GET /user/me).
        """
        options = self._options.replace(timeout=timeout, max_retries=max_retries)
        request = endpoints.account(options.get_headers(extra_headers))
        return await account_requests.get_value(self._executor, request, options, Account)

    async def get_stats(
        self,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> AccountStats:
        """
        Return how much the account has generated and spent, in all, by category and recently. Costs nothing.

        Parameters and errors: those of `get_balance`. Source: the vendor's page "Statistics" (GET /user/stats).
        """
        options = self._options.replace(timeout=timeout, max_retries=max_retries)
        request = endpoints.stats(options.get_headers(extra_headers))
        return await account_requests.get_value(self._executor, request, options, AccountStats)

    async def list_models(
        self,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> list[Model]:
        """
        Return the models of the catalogue. Costs nothing.

        The vendor links to the page of this endpoint (GET /models), which was never seen: a JSON array is accepted as
        well as an object with one, in pages or whole, and entries that are objects or slugs. Parameters and errors:
        those of `get_balance`; *timeout* is for all pages together.
        """
        options = self._options.replace(timeout=timeout, max_retries=max_retries)
        return await account_requests.list_models(self._executor, options, options.get_headers(extra_headers))

    async def get_model(
        self,
        model: str,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Model:
        """
        Return the model with the slug *model*. Costs nothing.

        Raises `NotFoundError` if there is none; `InvalidParameterError`; further parameters and errors: those of
        `get_balance`. Source: the vendor's page "Get model" (GET /models/{slug}).
        """
        options = self._options.replace(timeout=timeout, max_retries=max_retries)
        request = endpoints.model(_check_slug(model), options.get_headers(extra_headers))
        return await account_requests.get_value(self._executor, request, options, Model)

    async def get_price(
        self,
        model: str,
        params: Mapping[str, Any] | None = None,
        count: int = 1,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Price:
        """
        Return the price of *count* generations (at least 1) of *model*. Costs nothing.

        *params*: the options of a generation that the price depends on, such as ``{"quality": "hd"}``. The vendor does
        not document whether `Price.token_cost` is that of one generation or of all of them. Raises `NotFoundError` if
        there is no such model; `InvalidParameterError`; further parameters and errors: those of `get_balance`.

        Source: the vendor's page "Calculate price" (POST /models/{slug}/calculate-price).
        """
        if params is not None and not is_mapping(params):
            raise InvalidParameterError("params", params, "a mapping from strings to JSON values, or None")
        slug, count = _check_slug(model), check_count("count", count, minimum=1)
        options = self._options.replace(timeout=timeout, max_retries=max_retries)
        headers = options.get_headers(extra_headers)
        return await account_requests.get_price(self._executor, options, headers, slug, params, count=count)

    def list_generations(
        self,
        *,
        category: str | None = None,
        model: str | None = None,
        status: str | None = None,
        favorites_only: bool = False,
        page: int = 1,
        limit: int = _MAX_PAGE,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> AsyncHistory:
        """
        Return the generations of the account, newest first: ``async for entry in client.list_generations():``.

        Pages are requested one by one, each when it is needed; leave the loop when you have enough. Costs nothing.

        * *category* (``"text"``, ``"image"``, ``"video"``, ``"audio"``, ``"tts"``, ``"stt"``, ``"tool"``), *model* (a
          slug), *status* (``"completed"``, ``"pending"``, ``"failed"``), *favorites_only*: only such generations.
        * *page*: the page to begin with, at least 1. *limit*: entries of a page, 1 to 100; the list has all of them.
        * *timeout*: seconds for each page.

        An invalid parameter raises here; the errors of `get_balance` are raised by the loop.

        Source: the vendor's two pages "History" (GET /user/history), with filters of different names: both are sent.
        """
        for name, value in {"category": category, "model": model, "status": status}.items():
            if value is not None:
                check_nonempty_text(name, value, "a non-empty string, or None")
        first, size = check_count("page", page, minimum=1), check_count("limit", limit, minimum=1)
        if size > _MAX_PAGE:
            raise InvalidParameterError("limit", limit, f"an integer of at most {_MAX_PAGE}")
        favorites_only = check_flag("favorites_only", favorites_only)
        options = self._options.replace(timeout=timeout, max_retries=max_retries)
        headers = options.get_headers(extra_headers)
        filters = endpoints.history_filters(category, model, status, favorites_only=favorites_only)
        request = functools.partial(endpoints.history, filters, limit=size, headers=headers)
        return AsyncHistory(account_requests.history_reader(self._executor, options, request, first=first))

    async def estimate(
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
        """
        Return what a batch of *requests* will cost by the API's prices. Sends no generation and costs nothing.

        *requests*, *model*, *system*, *temperature*, *max_tokens*: as for `AsyncNeuralBox.generate_many`; an iterator
        is used up. There is one price request for each different combination of model and options (*temperature*,
        *max_tokens* and the members of *extra_body*), for one generation each; the result is multiplied. *timeout*:
        seconds for all of it.

        Raises `InvalidParameterError` for the first item that is not a valid request, `NotFoundError` if there is no
        such model, and the errors of `get_balance`.
        """
        defaults = RequestDefaults(model=model, system=system, temperature=temperature, max_tokens=max_tokens)
        check_requests(requests, defaults)
        options = self._options.replace(timeout=timeout, max_retries=max_retries)
        return await estimate.estimate(self._executor, options, requests, defaults)


def _check_slug(model: object) -> str:
    slug = check_nonempty_text("model", model, "a model slug, such as 'gpt-5'")
    if slug in {".", ".."}:  # a URL with such a segment is another URL
        raise InvalidParameterError("model", model, "a model slug, such as 'gpt-5'")
    return slug
