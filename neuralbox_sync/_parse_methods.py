"""The method of `NeuralBox` that returns a validated value instead of text."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from neuralbox_async import NOT_GIVEN, AsyncNeuralBox, Messages, NotGiven, ParsedGeneration
from neuralbox_sync._blocking import View, documented_by, read_here

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")


class ParseMethods(View[AsyncNeuralBox]):
    """The part of `NeuralBox` about typed answers."""

    # Overloads: type checkers that do not know `TypeForm` (PEP 747) take a union or a Literal for no `type`.

    @overload
    def parse(
        self,
        model: str,
        messages: Messages,
        output_type: type[T],
        *,
        max_repairs: int = ...,
        max_tokens_used: int | None = ...,
        system: str | None = ...,
        temperature: float | None = ...,
        max_tokens: int | None = ...,
        timeout: float | NotGiven | None = ...,
        max_retries: int | NotGiven = ...,
        idempotency_key: str | None = ...,
        extra_headers: Mapping[str, str] | None = ...,
        extra_body: Mapping[str, Any] | None = ...,
    ) -> ParsedGeneration[T]: ...

    @overload
    def parse(
        self,
        model: str,
        messages: Messages,
        output_type: TypeForm[T],
        *,
        max_repairs: int = ...,
        max_tokens_used: int | None = ...,
        system: str | None = ...,
        temperature: float | None = ...,
        max_tokens: int | None = ...,
        timeout: float | NotGiven | None = ...,
        max_retries: int | NotGiven = ...,
        idempotency_key: str | None = ...,
        extra_headers: Mapping[str, str] | None = ...,
        extra_body: Mapping[str, Any] | None = ...,
    ) -> ParsedGeneration[T]: ...

    @documented_by(AsyncNeuralBox.parse)
    def parse(
        self,
        model: str,
        messages: Messages,
        output_type: Any,
        *,
        max_repairs: int = 1,
        max_tokens_used: int | None = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        idempotency_key: str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> ParsedGeneration[Any]:
        """Generate JSON and return it as a validated value of *output_type*."""
        call = functools.partial(
            self._subject.parse,
            model,
            read_here(messages),
            output_type,
            max_repairs=max_repairs,
            max_tokens_used=max_tokens_used,
            system=system,
            temperature=temperature,
            max_tokens=max_tokens,
            timeout=timeout,
            max_retries=max_retries,
            idempotency_key=idempotency_key,
            extra_headers=extra_headers,
            extra_body=extra_body,
        )
        return self._loop.call(call)
