"""Streams with an output type: the value so far, and the value at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, Generic, Self

from neuralbox_async._async_only import AsyncIterationOnly
from neuralbox_async._clock import now
from neuralbox_async._errors import StreamStateError
from neuralbox_async._lazy_imports import lazy_module
from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._type_parameters import T

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._call import parsing
    from neuralbox_async._call.executor import Call
    from neuralbox_async._types import Generation, StreamEvent
    from neuralbox_async._wire.output_types import OutputType
else:
    parsing = lazy_module("neuralbox_async._call.parsing")

# A text is parsed again once it has grown by this part of its length: each parse reads all of it.
_GROWTH: Final = 1 / 64
_NOT_THERE: Final = object()


class TypedStream(Generic[T]):
    """The methods of `AsyncStream` for the *output_type*."""

    _output_type: OutputType[T] | None
    _max_tokens: int | None
    _call: Call | None
    _texts: list[str]  # that were delivered
    _started: float  # by `now`, when it was entered

    if TYPE_CHECKING:

        def __aiter__(self) -> Self: ...
        async def __anext__(self) -> StreamEvent: ...
        async def read_batch(self) -> list[StreamEvent]: ...
        async def get_final_generation(self) -> Generation: ...

    def partials(self) -> AsyncIterator[Any]:
        """
        Return an async iterator over the value as it grows: dicts or lists of JSON values, not validated.

        Members that have not arrived are absent, and a string may go on. Each value has more than the one before it; in
        a long text, some of them are passed over. It reads the same stream as its other iterators. After the last
        value, `get_final_value` validates the whole. Raises the errors of reading, and `StreamStateError` without an
        *output_type*.
        """
        return Partials(self, self._texts, self._checked_type().parse_partial)

    async def get_final_value(self) -> T:
        """
        Read to the end and return the value, validated.

        Raises `ParsingError`, which has the text, when it is not of the *output_type*: nothing is sent again; the
        errors of reading; `StreamStateError` without an *output_type*.
        """
        output_type = self._checked_type()
        generation = await self.get_final_generation()
        try:
            mask = None if self._call is None else self._call.mask
            return parsing.value_of(output_type, generation, self._max_tokens, mask)
        except InvalidOutputError as error:
            problems = error.problems
        raise parsing.parsing_error((generation,), problems, now() - self._started, "")

    def _checked_type(self) -> OutputType[T]:
        if self._output_type is None:
            raise StreamStateError("the stream has no type: use `client.stream(..., output_type=...)`")
        return self._output_type


class Partials(AsyncIterator[Any], AsyncIterationOnly):
    """The values of the growing text of *stream*, whose *texts* were delivered; see `TypedStream.partials`."""

    def __init__(
        self, stream: TypedStream[Any], texts: list[str], parse_partial: Callable[[str], object | None]
    ) -> None:
        self._stream, self._texts, self._parse_partial = stream, texts, parse_partial
        self._taken = self._length = self._parsed_length = 0
        self._value: object = _NOT_THERE
        self._ended = False

    def __aiter__(self) -> Self:
        aiter(self._stream)
        return self

    async def __anext__(self) -> Any:
        while not self._ended:
            self._ended = not await self._stream.read_batch()
            if self._is_long_enough():
                self._parsed_length = self._length
                # Joined here: a text to which each event is appended is copied each time.
                value = self._parse_partial("".join(self._texts))
                if value is not None and value != self._value:
                    self._value = value
                    return value
        raise StopAsyncIteration

    def _is_long_enough(self) -> bool:
        new = self._texts[self._taken :]
        self._taken += len(new)
        self._length += sum(map(len, new))
        grown = self._length - self._parsed_length
        return grown > 0 and (self._ended or grown >= self._parsed_length * _GROWTH)
