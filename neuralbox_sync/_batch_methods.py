"""The method of `NeuralBox` that generates many texts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from neuralbox_async import (
    NOT_GIVEN,
    AsyncNeuralBox,
    BatchProgress,
    NotGiven,
    OnChanged,
    OnUnknown,
    Requests,
    _options,
)
from neuralbox_async._batch.caller_thread import CallerThread
from neuralbox_async._type_parameters import T
from neuralbox_sync._blocking import View, documented_by
from neuralbox_sync._stream import Batch

if TYPE_CHECKING:
    from typing_extensions import TypeForm


class BatchMethods(View[AsyncNeuralBox]):
    """The part of `NeuralBox` about batches."""

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
    ) -> Batch[T]: ...

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
    ) -> Batch[T]: ...

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
    ) -> Batch[Any]: ...

    @documented_by(AsyncNeuralBox.generate_many)
    def generate_many(
        self,
        requests: Requests,
        *,
        model: str | None = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        max_concurrency: int = _options.DEFAULT_MAX_CONCURRENCY,
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
    ) -> Batch[Any]:
        """Return a batch that generates for each of *requests*, many at a time, and yields results as they arrive."""
        caller = CallerThread(requests, on_progress, on_unknown)
        batch = self._subject.generate_many(
            caller.requests,
            model=model,
            system=system,
            temperature=temperature,
            max_tokens=max_tokens,
            max_concurrency=max_concurrency,
            ordered=ordered,
            journal=journal,
            on_unknown=caller.on_unknown,
            on_changed=on_changed,
            include_done=include_done,
            budget=budget,
            limit_to_balance=limit_to_balance,
            max_rate=max_rate,
            on_progress=caller.on_progress,
            output_type=output_type,
            max_repairs=max_repairs,
            timeout=timeout,
            max_retries=max_retries,
        )
        return Batch(batch, self._loop, self, caller)
