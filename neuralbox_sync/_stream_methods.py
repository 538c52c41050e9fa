"""The method of `NeuralBox` that returns text as it is generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

from neuralbox_async import NOT_GIVEN, AsyncNeuralBox, Messages, NotGiven
from neuralbox_async._type_parameters import T
from neuralbox_sync._blocking import View, documented_by
from neuralbox_sync._stream import Stream

if TYPE_CHECKING:
    from typing_extensions import TypeForm


class StreamMethods(View[AsyncNeuralBox]):
    """The part of `NeuralBox` about streams."""

    # Overloads: type checkers that do not know `TypeForm` (PEP 747) take a union or a Literal for no `type`.

    @overload
    def stream(
        self,
        model: str,
        messages: Messages,
        *,
        system: str | None = ...,
        temperature: float | None = ...,
        max_tokens: int | None = ...,
        recover: bool = ...,
        output_type: type[T],
        timeout: float | NotGiven | None = ...,
        first_event_timeout: float | NotGiven | None = ...,
        stall_timeout: float | NotGiven | None = ...,
        max_retries: int | NotGiven = ...,
        idempotency_key: str | None = ...,
        extra_headers: Mapping[str, str] | None = ...,
        extra_body: Mapping[str, Any] | None = ...,
    ) -> Stream[T]: ...

    @overload
    def stream(
        self,
        model: str,
        messages: Messages,
        *,
        system: str | None = ...,
        temperature: float | None = ...,
        max_tokens: int | None = ...,
        recover: bool = ...,
        output_type: TypeForm[T],
        timeout: float | NotGiven | None = ...,
        first_event_timeout: float | NotGiven | None = ...,
        stall_timeout: float | NotGiven | None = ...,
        max_retries: int | NotGiven = ...,
        idempotency_key: str | None = ...,
        extra_headers: Mapping[str, str] | None = ...,
        extra_body: Mapping[str, Any] | None = ...,
    ) -> Stream[T]: ...

    @overload
    def stream(
        self,
        model: str,
        messages: Messages,
        *,
        system: str | None = ...,
        temperature: float | None = ...,
        max_tokens: int | None = ...,
        recover: bool = ...,
        output_type: None = ...,
        timeout: float | NotGiven | None = ...,
        first_event_timeout: float | NotGiven | None = ...,
        stall_timeout: float | NotGiven | None = ...,
        max_retries: int | NotGiven = ...,
        idempotency_key: str | None = ...,
        extra_headers: Mapping[str, str] | None = ...,
        extra_body: Mapping[str, Any] | None = ...,
    ) -> Stream[Any]: ...

    @documented_by(AsyncNeuralBox.stream)
    def stream(
        self,
        model: str,
        messages: Messages,
        *,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        recover: bool = True,
        output_type: Any = None,
        timeout: float | NotGiven | None = NOT_GIVEN,
        first_event_timeout: float | NotGiven | None = NOT_GIVEN,
        stall_timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        idempotency_key: str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> Stream[Any]:
        """Return a stream of the text as it is generated."""
        stream = self._subject.stream(
            model,
            messages,
            system=system,
            temperature=temperature,
            max_tokens=max_tokens,
            recover=recover,
            output_type=output_type,
            timeout=timeout,
            first_event_timeout=first_event_timeout,
            stall_timeout=stall_timeout,
            max_retries=max_retries,
            idempotency_key=idempotency_key,
            extra_headers=extra_headers,
            extra_body=extra_body,
        )
        return Stream(stream, self._loop, self)
