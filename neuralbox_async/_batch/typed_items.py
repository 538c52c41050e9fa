"""The items of a batch with an output type: their requests, their values, and the repairs of invalid texts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs

from neuralbox_async._batch.journal_lines import total_of, usable_tokens
from neuralbox_async._call import parsing
from neuralbox_async._errors import NO_HEADERS, NeuralBoxError
from neuralbox_async._parsed import InvalidOutputError, ParsingError, Problem
from neuralbox_async._validation import check_count
from neuralbox_async._wire import endpoints
from neuralbox_async._wire.output_types import output_type_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuralbox_async._call.executor import Call
    from neuralbox_async._types import GenerateRequest, Generation
    from neuralbox_async._wire.output_types import OutputType
    from neuralbox_async._wire.requests import Request


@attrs.frozen(kw_only=True, eq=False)
class TypedOutput:
    """The *output_type* of a batch; an item has at most *max_repairs* further requests."""

    output_type: OutputType[Any]
    max_repairs: int
    _schema: bytes = attrs.field(
        default=attrs.Factory(lambda self: _canonical(self.output_type.schema), takes_self=True), init=False
    )

    @classmethod
    def of(cls, output_type: Any, max_repairs: int) -> TypedOutput:
        """Return the output type for these. Raises `InvalidParameterError`."""
        max_repairs = check_count("max_repairs", max_repairs, minimum=0)
        return cls(output_type=output_type_of(output_type), max_repairs=max_repairs)

    def encode(self, request: GenerateRequest, headers: Mapping[str, str]) -> Request:
        """Return POST /generate for *request* with instructions about the type. Raises `InvalidParameterError`."""
        return endpoints.generate(self._with_instructions(request), headers)

    def identity(self, request: GenerateRequest) -> bytes:
        """
        Return the bytes by whose hash a journal identifies *request*: its own body, and the schema of the type.

        Without the instructions, whose wording differs between versions of the SDK: rows would be paid for again.
        """
        return (endpoints.generate(request, NO_HEADERS).body or b"") + self._schema

    def item(self, request: GenerateRequest) -> TypedItem:
        """Return the state of the item of *request*."""
        return TypedItem(self.output_type, self.max_repairs, self._with_instructions(request))

    def _with_instructions(self, request: GenerateRequest) -> GenerateRequest:
        return attrs.evolve(request, system=parsing.instructions(self.output_type, request.system))


def _canonical(schema: Any) -> bytes:
    return json.dumps(schema, sort_keys=True, separators=(",", ":")).encode()


@attrs.frozen
class Parsed:
    """A *value* of the output type, which may be None."""

    value: Any


@attrs.define(eq=False)
class TypedItem:
    """
    The generations of an item, of all runs, that were not of the output type.

    *request*: the one to send next, which reports the problems of the last of them.
    """

    output_type: OutputType[Any]
    max_repairs: int
    request: GenerateRequest
    invalid: list[Generation] = attrs.field(factory=list["Generation"])
    _problems: tuple[Problem, ...] = ()  # of the last

    def parse(self, generation: Generation, call: Call | None = None) -> Parsed | None:
        """Return the value in *generation*, None if it is one more that is invalid; *call*: what generated it."""
        max_tokens = parsing.token_limit(self.request.max_tokens, self.request.extra_body)
        try:
            return Parsed(
                parsing.value_of(self.output_type, generation, max_tokens, None if call is None else call.mask)
            )
        except InvalidOutputError as error:
            self.invalid.append(generation)
            self._problems = error.problems
            messages = parsing.repair_messages(self.request.messages, generation.content, error.problems)
            self.request = attrs.evolve(self.request, messages=messages)
            return None

    @property
    def may_repair(self) -> bool:
        """Whether another request may be sent after the invalid ones."""
        return len(self.invalid) <= self.max_repairs

    def repair(self, headers: Mapping[str, str]) -> Request:
        """Return the POST of *request*, a repair; *headers*: of the request before it."""
        # Another key: a server that honours it would respond with the invalid text again.
        key = f"{headers['Idempotency-Key']}-{len(self.invalid)}"
        return endpoints.generate(self.request, {**headers, "Idempotency-Key": key})

    @property
    def tokens_of_invalid(self) -> list[int | None]:
        """The NeuralBox tokens of each invalid generation, None where they are unknown."""
        return [usable_tokens(generation.tokens_used) for generation in self.invalid]

    def total_tokens(self, tokens_used: int | None) -> int | None:
        """Return the tokens of all generations, with one more that cost *tokens_used*; None if one is unknown."""
        return total_of((*self.tokens_of_invalid, tokens_used))

    def error(self, elapsed: float, cause: BaseException | None = None) -> ParsingError:
        """Return the error of an item whose last text is invalid; *cause*: of a repair that failed, or was not sent."""
        repairs = len(self.invalid) - 1
        if cause is not None:
            ending = f"and no repair followed: {cause}" if str(cause) else "and no repair followed: the batch has ended"
        else:
            ending = f"after {repairs} repair{'s' if repairs > 1 else ''}" if repairs else ""
        known = cause if isinstance(cause, NeuralBoxError) else None
        return parsing.parsing_error(tuple(self.invalid), self._problems, elapsed, ending, cause=known)
