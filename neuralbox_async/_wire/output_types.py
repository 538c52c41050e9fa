"""`OutputType`: what `AsyncNeuralBox.parse` needs to know of a type, made once for each type."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire import json_extraction
from neuralbox_async._wire.output_schema import schema_of
from neuralbox_async._wire.output_structuring import Structuring

T = TypeVar("T")


@attrs.frozen(kw_only=True, eq=False)
class OutputType(Generic[T]):
    """
    A type of values that are parsed from text.

    * *schema*: its JSON Schema, draft 2020-12.
    * *structure*: returns the value that a JSON value stands for. Raises `InvalidOutputError`.
    * *exact*: numbers with a fraction are passed to it as `ExactFloat`.
    """

    schema: Mapping[str, Any]
    structure: Callable[[Any], T] = attrs.field(repr=False)
    exact: bool = False

    @functools.cached_property
    def schema_text(self) -> str:
        """The schema as compact JSON."""
        return json.dumps(self.schema, ensure_ascii=False, separators=(",", ":"))

    def parse(self, text: str) -> T:
        """
        Return the value in *text*: the last one that fits, those in code fences before others.

        Raises `InvalidOutputError` with the problems of the longest JSON value, or that of the text if it has none.
        """
        problems: tuple[Problem, ...] = ()
        longest = -1
        for found in reversed(json_extraction.values_in(text, exact=self.exact)):
            try:
                return self.structure(found.value)
            except InvalidOutputError as error:
                if found.length > longest:
                    problems, longest = error.problems, found.length
        raise InvalidOutputError(problems)

    def parse_partial(self, text: str) -> Any | None:
        """Return the JSON value that *text* begins, as far as it has arrived; None while there is none."""
        return json_extraction.growing_value(text)


def output_type_of(tp: Any) -> OutputType[Any]:
    """Return *tp* as an output type. Raises `InvalidParameterError` if it is not supported."""
    if isinstance(tp, OutputType):
        return tp  # pyright: ignore[reportUnknownVariableType] - its type argument is not known at run time
    try:
        hash(tp)
    except TypeError:  # as of a list in the metadata of an annotation
        return _make(tp)
    # Unions that differ only in the order of their members are equal, and both orders have a meaning.
    return _made(tp, "" if type(tp) is type else repr(tp))


def _make(tp: Any) -> OutputType[Any]:
    try:
        schema, exact = schema_of(tp)
    except RecursionError:
        raise InvalidParameterError("output_type", tp, "a type that is not nested so deeply") from None
    return OutputType(schema=schema, structure=Structuring(tp), exact=exact)


@functools.lru_cache(maxsize=256)
def _made(tp: Any, _repr: str) -> OutputType[Any]:
    return _make(tp)
