"""`BatchMethods`: the method of the client that generates many texts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from neuralbox_async._batch.batch import AsyncBatch
from neuralbox_async._batch.inputs import RequestDefaults, Requests
from neuralbox_async._batch.options import BatchOptions, OnChanged, OnUnknown
from neuralbox_async._batch.results import BatchProgress
from neuralbox_async._lazy_imports import lazy_module
from neuralbox_async._options import DEFAULT_MAX_CONCURRENCY, NOT_GIVEN, CallOptions, NotGiven
from neuralbox_async._type_parameters import T

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from neuralbox_async._batch import typed_items
    from neuralbox_async._call.executor import Executor
else:
    typed_items = lazy_module("neuralbox_async._batch.typed_items")


class BatchMethods:
    """The part of `AsyncNeuralBox` about batches."""

    _executor: Executor
    _options: CallOptions

    # Overloads: type checkers that do not know `TypeForm` (PEP 747) take a union or a Literal for no `type`.

    @overload
    def generate_many(
        self,
        requests: Requests,
        *,
        model: str | None = ...,
        system: str | None = ...,
        temperature: float | None = ...,
        max_tokens: int | None = ...,
        max_concurrency: int = ...,
        ordered: bool = ...,
        journal: str | os.PathLike[str] | None = ...,
        on_unknown: OnUnknown = ...,
        on_changed: OnChanged = ...,
        include_done: bool = ...,
        budget: int | None = ...,
        limit_to_balance: bool = ...,
        max_rate: float | None = ...,
        on_progress: Callable[[BatchProgress], object] | None = ...,
        output_type: type[T],
        max_repairs: int = ...,
        timeout: float | NotGiven | None = ...,
        max_retries: int | NotGiven = ...,
    ) -> AsyncBatch[T]: ...

    @overload
    def generate_many(
        self,
        requests: Requests,
        *,
        model: str | None = ...,
        system: str | None = ...,
        temperature: float | None = ...,
        max_tokens: int | None = ...,
        max_concurrency: int = ...,
        ordered: bool = ...,
        journal: str | os.PathLike[str] | None = ...,
        on_unknown: OnUnknown = ...,
        on_changed: OnChanged = ...,
        include_done: bool = ...,
        budget: int | None = ...,
        limit_to_balance: bool = ...,
        max_rate: float | None = ...,
        on_progress: Callable[[BatchProgress], object] | None = ...,
        output_type: TypeForm[T],
        max_repairs: int = ...,
        timeout: float | NotGiven | None = ...,
        max_retries: int | NotGiven = ...,
    ) -> AsyncBatch[T]: ...

    @overload
    def generate_many(
        self,
        requests: Requests,
        *,
        model: str | None = ...,
        system: str | None = ...,
        temperature: float | None = ...,
        max_tokens: int | None = ...,
        max_concurrency: int = ...,
        ordered: bool = ...,
        journal: str | os.PathLike[str] | None = ...,
        on_unknown: OnUnknown = ...,
        on_changed: OnChanged = ...,
        include_done: bool = ...,
        budget: int | None = ...,
        limit_to_balance: bool = ...,
        max_rate: float | None = ...,
        on_progress: Callable[[BatchProgress], object] | None = ...,
        output_type: None = ...,
        max_repairs: int = ...,
        timeout: float | NotGiven | None = ...,
        max_retries: int | NotGiven = ...,
    ) -> AsyncBatch[Any]: ...

    def generate_many(
        self,
        requests: Requests,
        *,
        model: str | None = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        max_concurrency: int = DEFAULT_MAX_CONCURRENCY,
        ordered: bool = False,
        journal: str | os.PathLike[str] | None = None,
        on_unknown: OnUnknown = "skip",
        on_changed: OnChanged = "raise",
        include_done: bool = False,
        budget: int | None = None,
        limit_to_balance: bool = False,
        max_rate: float | None = None,
        on_progress: Callable[[BatchProgress], object] | None = None,
        output_type: Any = None,
        max_repairs: int = 1,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
    ) -> AsyncBatch[Any]:
        """
        Return a batch that generates for each of *requests*, many concurrently, and yields results as they arrive.

        ``async with client.generate_many(...) as results:``, then ``async for result in results:``. A failure is a
        result with an *error*.

        * *requests*: an iterable or async iterable, read as far as needed, of `GenerateRequest` values, strings, or
          dicts with ``messages`` or ``prompt``, optionally ``key`` and other fields; further members are not sent.
        * *model*, *system*, *temperature*, *max_tokens*: for strings, and for dicts that do not have them.
        * *max_concurrency*: the maximum of requests in flight; a batch leaves 2 % of the client's *max_connections*, 10
          at most, to other calls.
        * *ordered*: yield the results in the order of the requests.
        * *journal*: a file that records the requests that were sent and their outcomes. With the same file again, done
          requests are skipped (with *include_done*, their results are yielded), and pending ones are waited for.
        * *on_unknown*: for requests that may have been billed without a response: ``"skip"`` (an
          `OutcomeUnknownError`), ``"retry"``, ``"raise"`` (when entering), or a function that returns for a key whether
          to retry.
        * *on_changed*: for keys with which earlier runs sent other requests: ``"raise"``, ``"skip"`` or ``"retry"``.
        * *budget*: the maximum of NeuralBox tokens to spend, with a journal by all its runs together;
          *limit_to_balance*: get the balance first, and spend no more than that in this run.
        * *max_rate*: requests per second; None adapts the number of requests in flight to what the server accepts.
          Either way the rate limits of the account are respected: the batch waits when one is reached.
        * *on_progress*: called with a `BatchProgress`, at most some 10 times a second.
        * *output_type*, *max_repairs*: as for `parse`: a result has a *value*, or a `ParsingError`. Repairs are further
          requests of an item: the budget covers each, and a rerun continues with the texts that are paid for.
        * *timeout*, *max_retries*: of each request; waits for rate limits do not count.

        After 401, 402, 403 ``insufficient_plan``, at the end of the budget, or when the journal cannot be written,
        nothing more is sent: `AsyncBatch.report` has the error in *stopped_by*. Raises `InvalidParameterError` at once.
        """
        defaults = RequestDefaults(model=model, system=system, temperature=temperature, max_tokens=max_tokens)
        batch_options = BatchOptions(
            max_concurrency=max_concurrency,
            ordered=ordered,
            journal=journal,
            on_unknown=on_unknown,
            on_changed=on_changed,
            include_done=include_done,
            budget=budget,
            limit_to_balance=limit_to_balance,
            max_rate=max_rate,
            on_progress=on_progress,
            output=None if output_type is None else typed_items.TypedOutput.of(output_type, max_repairs),
        )
        call_options = self._options.replace(timeout=timeout, max_retries=max_retries)
        return AsyncBatch(self._executor, call_options, requests, defaults, batch_options)
