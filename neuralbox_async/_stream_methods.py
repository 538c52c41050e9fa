"""`StreamMethods`: the method of the client that returns text as it is generated."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

from neuralbox_async._call.stream import AsyncStream
from neuralbox_async._call.stream_reader import StreamLimits
from neuralbox_async._lazy_imports import lazy_module
from neuralbox_async._options import NOT_GIVEN, CallOptions, NotGiven
from neuralbox_async._type_parameters import T
from neuralbox_async._types import GenerateRequest, Messages

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from neuralbox_async._call import generating, parsing, polling
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._wire import endpoints
else:
    generating = lazy_module("neuralbox_async._call.generating")
    parsing = lazy_module("neuralbox_async._call.parsing")
    polling = lazy_module("neuralbox_async._call.polling")
    endpoints = lazy_module("neuralbox_async._wire.endpoints")


class StreamMethods:
    """The part of `AsyncNeuralBox` about streams."""

    _executor: Executor
    _options: CallOptions
    _max_event_bytes: int

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
    ) -> AsyncStream[T]: ...

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
    ) -> AsyncStream[T]: ...

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
    ) -> AsyncStream[Any]: ...

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
    ) -> AsyncStream[Any]:
        """
        Return a stream of the text as it is generated.

        ``async with client.stream(...) as stream:``, then ``async for text in stream.text_stream:``.

        *model*, *messages*, *system*, *temperature*, *max_tokens*, *idempotency_key*, *extra_headers*, *extra_body*: as
        for `generate`. The request is sent when the stream is entered, which raises the errors of `generate`; an
        invalid parameter raises here.

        * *timeout*: seconds for the whole stream; by default the client's if one was set, otherwise no limit.
          *first_event_timeout*: seconds from the request to the first event. *stall_timeout*: seconds of waiting
          without content (heartbeats are not content). None for no limit.
        * *recover*: when the stream breaks, get the finished generation from the API and continue with the rest of its
          text, if it begins with the text that was delivered. Nothing is generated again.
        * *max_retries*: of the request; a stream that has begun is never requested again.
        * *output_type*: as for `parse`, for the *partials* and the final value of the stream.

        Source: the vendor's "Streaming Guide" (POST /generate with ``"stream": true``); after a 404, POST
        /generate/stream, which accepts no images.
        """
        wanted = None if output_type is None else parsing.output_type_of(output_type)
        if wanted is not None:
            system = parsing.instructions(wanted, system)
        generate_request = GenerateRequest(
            model, messages, system=system, temperature=temperature, max_tokens=max_tokens, extra_body=extra_body or {}
        )
        options = self._options.replace(
            timeout=timeout,
            first_event_timeout=first_event_timeout,
            stall_timeout=stall_timeout,
            max_retries=max_retries,
        )
        limits = StreamLimits.of(options, self._max_event_bytes, self._executor.max_response_bytes)
        request = endpoints.stream(generate_request, options.post_headers(extra_headers, idempotency_key))
        fallback = functools.partial(endpoints.stream_fallback, generate_request, request.headers)
        recovery = options.replace(timeout=self._options.timeout, headers=extra_headers)
        return AsyncStream(
            functools.partial(generating.open_stream, self._executor, request, fallback, options),
            limits,
            functools.partial(polling.recover, self._executor, recovery) if recover else None,
            wanted,
            None if wanted is None else parsing.token_limit(max_tokens, extra_body),
        )
