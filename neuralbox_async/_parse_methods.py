"""`ParseMethods`: the method of the client that returns a validated value instead of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from neuralbox_async._call.executor import Call
from neuralbox_async._lazy_imports import lazy_module
from neuralbox_async._options import NOT_GIVEN, CallOptions, NotGiven
from neuralbox_async._parsed import ParsedGeneration
from neuralbox_async._types import Messages, messages_from

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from neuralbox_async._call import parsing
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._wire import endpoints
else:
    endpoints = lazy_module("neuralbox_async._wire.endpoints")
    parsing = lazy_module("neuralbox_async._call.parsing")

T = TypeVar("T")


class ParseMethods:
    """The part of `AsyncNeuralBox` about typed answers."""

    _executor: Executor
    _options: CallOptions

    # Overloads: type checkers that do not know `TypeForm` (PEP 747) take a union or a Literal for no `type`.

    @overload
    async def parse(
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
    async def parse(
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

    async def parse(
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
        """
        Generate JSON and return it as a validated value of *output_type*.

        The API has no response format. So the JSON Schema of the type is sent in the system message, after *system*;
        the text is parsed; and if it is invalid, the conversation goes on with it and its problems: a repair, which
        costs another generation.

        * *output_type*: a class with annotated fields (attrs, dataclass, TypedDict, NamedTuple, pydantic), Enum,
          Literal, a union, ``list[...]``, ``tuple[...]``, ``set[...]``, ``dict[str, ...]``, str, int, float, bool,
          `Decimal`, `datetime`, `date`, `UUID`, or Annotated with bounds.
        * *max_repairs*: at least 0. *max_tokens_used*: no repair that could bring the NeuralBox tokens of all
          generations above it, by what they cost so far; the first one is sent in any case. None for no limit.
        * *timeout*: seconds for everything, the repairs included. A generation that is ``pending`` is waited for.
        * *idempotency_key*: that of the first generation; the repairs have others, made from it.

        *model*, *messages*, *temperature*, *max_tokens*, *max_retries*, *extra_headers*, *extra_body*: as for
        `AsyncNeuralBox.generate`. Raises its errors for the first generation, `InvalidParameterError` also for a type
        that JSON cannot represent; and `ParsingError`, which has the text, its problems and all generations, when the
        last one is invalid or a repair fails.

        Source: the vendor's page "Text Generation" (POST /generate); JSON Schema, draft 2020-12.
        """
        wanted = parsing.output_type_of(output_type)
        repairs = parsing.Repairs.of(max_repairs, max_tokens_used)
        options = self._options
        if timeout is not NOT_GIVEN or max_retries is not NOT_GIVEN:
            options = options.replace(timeout=timeout, max_retries=max_retries)
        prompt = parsing.instructions(wanted, system)
        conversation = messages if isinstance(messages, str) else messages_from(messages)

        def call_with(messages: Messages, number: int) -> Call:
            key = f"{idempotency_key}-{number}" if idempotency_key and number else idempotency_key
            headers = options.post_headers(extra_headers, key)
            request = endpoints.generate_from(
                model, messages, prompt, temperature, max_tokens, extra_body=extra_body, headers=headers
            )
            return Call(request, options)

        limit = parsing.token_limit(max_tokens, extra_body)
        return await parsing.parse(self._executor, call_with, conversation, wanted, repairs, max_tokens=limit)
