"""The estimate of what a batch will cost: one price request for all requests with the same model and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from neuralbox_async._account_types import Estimate
from neuralbox_async._batch.inputs import END, InputReader
from neuralbox_async._call.account_requests import get_price
from neuralbox_async._clock import time_after
from neuralbox_async._lazy_imports import anyio
from neuralbox_async._validation import is_mapping
from neuralbox_async._wire import json

if TYPE_CHECKING:
    from neuralbox_async._batch.inputs import RequestDefaults, Requests
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._options import CallOptions
    from neuralbox_async._types import GenerateRequest

_ITEMS_PER_TURN: Final = 100  # are read before other tasks run


@attrs.define(eq=False)
class _Group:
    """The requests with the same *model* and the same options."""

    model: str
    params: Mapping[str, Any]
    count: int = 0


async def estimate(executor: Executor, options: CallOptions, requests: Requests, defaults: RequestDefaults) -> Estimate:
    """Return what *requests* will cost. Raises the errors of `AsyncNeuralBox.estimate`."""
    deadline = time_after(options.timeout)
    groups = await _group(InputReader(requests), defaults)
    by_model: dict[str, int] = {}
    max_token_cost = 0
    for group in groups:
        # For one: it is not documented whether the price of several is that of all of them.
        price = await get_price(
            executor, options, options.headers, group.model, group.params, count=1, deadline=deadline
        )
        by_model[group.model] = by_model.get(group.model, 0) + group.count * price.token_cost
        max_token_cost += group.count * max(price.token_cost, price.max_token_cost or 0)
    return Estimate(
        requests=sum(group.count for group in groups),
        token_cost=sum(by_model.values()),
        max_token_cost=max_token_cost,
        by_model=by_model,
    )


async def _group(reader: InputReader, defaults: RequestDefaults) -> list[_Group]:
    groups: dict[tuple[str, bytes], _Group] = {}
    try:
        while (item := await reader.next()) is not END:
            request = defaults.request(item)
            params = _params(request)
            key = (request.model, json.dumps(dict(sorted(params.items())), parameter="extra_body"))
            groups.setdefault(key, _Group(request.model, params)).count += 1
            if reader.taken % _ITEMS_PER_TURN == 0:
                await anyio.sleep(0)
    finally:
        await reader.aclose(timeout=1.0)
    return list(groups.values())


def _params(request: GenerateRequest) -> dict[str, Any]:
    """Return the options of *request* as the price's ``params``; the documented second form has them nested."""
    extra = dict(request.extra_body)
    nested = extra.pop("params", None)
    options = {"temperature": request.temperature, "max_tokens": request.max_tokens}
    set_options = {name: value for name, value in options.items() if value is not None}
    return {**set_options, **extra, **(nested if is_mapping(nested) else {})}
