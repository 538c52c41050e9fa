"""The requests about the account and the catalogue. All are free, and repeated as a GET is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from neuralbox_async._account_types import Balance, HistoryEntry, Model, Price
from neuralbox_async._call.executor import Call
from neuralbox_async._call.pages import PageReader
from neuralbox_async._clock import time_after
from neuralbox_async._errors import NotFoundError
from neuralbox_async._wire import endpoints
from neuralbox_async._wire.account import Page, decode_page, decode_value

if TYPE_CHECKING:
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._options import CallOptions
    from neuralbox_async._wire.requests import Request

T = TypeVar("T")


async def get_value(executor: Executor, request: Request, options: CallOptions, cls: type[T]) -> T:
    """Return the *cls* that *request* gets. Raises the errors of a call."""
    return await executor.execute(Call(request, options), functools.partial(decode_value, cls))


async def get_balance(executor: Executor, options: CallOptions, headers: Mapping[str, str]) -> Balance:
    """
    Return the balance: from one documented path, after a 404 from the other.

    The path that worked is tried first the next time. Raises the errors of a call.
    """
    deadline = time_after(options.timeout)
    paths = executor.shared.balance_paths or endpoints.BALANCE_PATHS
    not_found: NotFoundError | None = None
    for path in paths:
        call = Call(endpoints.balance(path, headers), options, deadline)
        try:
            balance = await executor.execute(call, functools.partial(decode_value, Balance))
        except NotFoundError as error:
            not_found = not_found or error
            continue
        executor.shared.balance_paths = (path, *(other for other in paths if other != path))
        return balance
    raise not_found or AssertionError  # there is always a path


async def get_price(
    executor: Executor,
    options: CallOptions,
    headers: Mapping[str, str],
    model: str,
    params: Mapping[str, Any] | None,
    *,
    count: int,
    deadline: float | None = None,
) -> Price:
    """Return the price of *count* generations, at the latest at the *deadline*. Raises the errors of a call."""
    request = endpoints.price(model, headers, params, count)
    call = Call(request, options) if deadline is None else Call(request, options, deadline)
    return await executor.execute(call, functools.partial(decode_value, Price))


def _identity_of_model(model: Model) -> Hashable:
    return model.slug


async def list_models(executor: Executor, options: CallOptions, headers: Mapping[str, str]) -> list[Model]:
    """Return the models of all pages. Raises the errors of a call."""
    deadline = time_after(options.timeout)

    async def fetch(number: int) -> Page[Model]:
        call = Call(endpoints.models(number, headers), options, deadline)
        return await executor.execute(call, functools.partial(decode_page, Model))

    reader = PageReader(fetch, _identity_of_model, until_empty=False)
    models: list[Model] = []
    while page := await reader.next():
        models += page
    return models


def history_reader(
    executor: Executor, options: CallOptions, request: Callable[[int], Request], *, first: int
) -> PageReader[HistoryEntry]:
    """Return the reader of the history; *request* makes the request of a page."""

    async def fetch(number: int) -> Page[HistoryEntry]:
        return await executor.execute(Call(request(number), options), functools.partial(decode_page, HistoryEntry))

    return PageReader(fetch, _identity_of_entry, first=first, until_empty=True)


def _identity_of_entry(entry: HistoryEntry) -> Hashable:
    return entry if entry.id is None else entry.id
