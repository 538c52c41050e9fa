"""
The start of a batch: its journal, its budget and its runner.

Imported late: it imports the rest of the package, which only a running batch needs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._batch.budget import Budget
from neuralbox_async._batch.changed_requests import check_unchanged
from neuralbox_async._batch.coordinator import Coordinator
from neuralbox_async._batch.errors import outcome_unknown_error
from neuralbox_async._batch.journal import Journal
from neuralbox_async._batch.observation import BatchObservation
from neuralbox_async._batch.pacer import Pacer
from neuralbox_async._batch.preparation import RequestPreparer
from neuralbox_async._batch.results import ResultBuffer
from neuralbox_async._batch.runner import BatchRunner
from neuralbox_async._batch.stats import BatchStats
from neuralbox_async._call.account_requests import get_balance
from neuralbox_async._lazy_imports import anyio, asyncio

if TYPE_CHECKING:
    from neuralbox_async._batch.inputs import InputReader, RequestDefaults
    from neuralbox_async._batch.options import BatchOptions
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._options import CallOptions

_MAX_RESERVED_CONNECTIONS = 10


async def open_batch(
    executor: Executor, call_options: CallOptions, inputs: InputReader, defaults: RequestDefaults, options: BatchOptions
) -> BatchRunner:
    """
    Open the journal, get the balance if *limit_to_balance*, and return the runner.

    Raises the errors of entering an `AsyncBatch`.
    """
    journal = None if options.journal is None else Journal(options.journal, keep_offsets=options.include_done)
    try:
        if journal is not None:
            await _open_journal(journal, options)
            if options.on_changed == "raise" and journal.has_hashes and inputs.collection is not None:
                await check_unchanged(journal, inputs.collection, defaults, options.output)
        balance = None
        if options.limit_to_balance:
            balance = (await get_balance(executor, call_options, call_options.headers)).token_balance
        budget = _budget(options, balance, journal)
        return _make_runner(executor, call_options, inputs, defaults, options, journal=journal, budget=budget)
    except BaseException:
        if journal is not None:
            journal.close()
        raise


async def _open_journal(journal: Journal, options: BatchOptions) -> None:
    for _ in journal.open():
        await anyio.sleep(0)  # a long one takes seconds to read
    keys = journal.unresolved_keys if options.on_unknown == "raise" else ()
    if keys:
        raise outcome_unknown_error(keys)


def _budget(options: BatchOptions, balance: int | None, journal: Journal | None) -> Budget:
    """Return the budget, less the spending of earlier runs and the requests that they may have been billed for."""
    if journal is None:
        return Budget(options.budget, balance)
    budget = Budget(options.budget, balance, journal.spent)
    for model, price in journal.prices.items():
        budget.quote(model, price)
    for unresolved in journal.unresolved:
        budget.add_unresolved(unresolved.model, unresolved.reserved)
    return budget


def _max_in_flight(executor: Executor, options: BatchOptions) -> int:
    """Return the maximum of requests in flight: calls that are not part of the batch need a connection, too."""
    shared = executor.shared
    if shared.custom_transport is not None:
        return options.max_concurrency
    connections = shared.connections.max_connections
    reserved = max(1, min(_MAX_RESERVED_CONNECTIONS, connections // 50))
    return min(options.max_concurrency, max(1, connections - reserved))


def _make_runner(
    executor: Executor,
    call_options: CallOptions,
    inputs: InputReader,
    defaults: RequestDefaults,
    options: BatchOptions,
    *,
    journal: Journal | None,
    budget: Budget,
) -> BatchRunner:
    max_in_flight = _max_in_flight(executor, options)
    pacer = Pacer(
        executor.account_state.rate_limits,
        max_in_flight=max_in_flight,
        rate=options.max_rate,
        is_over=asyncio.get_running_loop().is_closed,
    )
    # The batch itself waits for rate limits: one refusal delays all requests, and costs none an attempt.
    call_options = attrs.evolve(call_options, retry=attrs.evolve(call_options.retry, retry_rate_limits=False))
    observation = BatchObservation(executor.monitor.observers, options.budget)
    executor = observation.begin(executor)
    stats = BatchStats(inputs, options.on_progress, observation)
    coordinator = Coordinator(journal, budget, pacer, on_limit=stats.wait_for_limit)
    preparer = RequestPreparer(
        executor=executor,
        options=call_options,
        defaults=defaults,
        coordinator=coordinator,
        batch_options=options,
        output=options.output,
        idempotency_prefix=os.urandom(16).hex(),  # once: for each request, it would cost 3 %
    )
    # In order, a slow request delays those behind it: more of them may wait.
    buffer = ResultBuffer((4 if options.ordered else 2) * max_in_flight, ordered=options.ordered)
    inputs.start(buffer, max_in_flight)
    return BatchRunner(
        executor=executor,
        options=call_options,
        inputs=inputs,
        preparer=preparer,
        coordinator=coordinator,
        stats=stats,
        buffer=buffer,
        max_in_flight=max_in_flight,
    )
