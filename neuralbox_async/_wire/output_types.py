"""`OutputType`: what `AsyncNeuralBox.parse` needs to know of a type, made once for each type."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import attrs

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire import json as json_values
from neuralbox_async._wire import json_extraction
from neuralbox_async._wire.output_kinds import as_written, json_type
from neuralbox_async._wire.output_schema import REFERENCE, schema_of
from neuralbox_async._wire.output_structuring import Structuring

T = TypeVar("T")

_MAX_DEPTH: Final = 8  # of combinations and references in the root of a schema


@attrs.frozen(kw_only=True, eq=False)
class OutputType(Generic[T]):
    """
    A type of values that are parsed from text.

    * *schema*: its JSON Schema, draft 2020-12.
    * *structure*: returns the value that a JSON value stands for. Raises `InvalidOutputError`.
    * *attempt*: the same, but it raises any exception: it is for where the problems are not read.
    * *exact*: numbers with a fraction are passed to it as `ExactFloat`.
    """

    schema: Mapping[str, Any]
    structure: Callable[[Any], T] = attrs.field(repr=False)
    exact: bool = False
    attempt: Callable[[Any], T] = attrs.field(
        repr=False, default=attrs.Factory(lambda self: self.structure, takes_self=True)
    )

    @functools.cached_property
    def _kinds(self) -> frozenset[str]:
        """Which of array and object the value may be."""
        return json_extraction.CONTAINERS & _types_in(self.schema, self.schema, 0)

    @functools.cached_property
    def schema_text(self) -> str:
        """The schema as compact JSON."""
        return json.dumps(self.schema, ensure_ascii=False, separators=(",", ":"))

    def parse(self, text: str, *, cut: bool = False) -> T:
        """
        Return the value in *text*: the last one that fits, those in code fences before others.

        *cut*: the text was cut off, such as at *max_tokens*. Raises `InvalidOutputError` with the problems of the
        longest JSON value, or that of the text if it has none.
        """
        try:
            value = json_extraction.plain_value(text, exact=self.exact)
        except (ValueError, RecursionError):
            return self._parse_found(text, cut=cut)
        if cut and isinstance(value, int | float) and text[-1].isdigit():
            return self._parse_found(text, cut=cut)
        return self.structure(value)

    def _parse_found(self, text: str, *, cut: bool) -> T:
        search = json_extraction.values_in(text, exact=self.exact, kinds=self._kinds, cut=cut)
        longest: json_extraction.FoundValue | None = None
        length = search.malformed_length
        for found in search.found:
            try:
                return self.attempt(found.value)
            except Exception:  # noqa: BLE001 - of cattrs, or of the user's own class
                if found.end - found.start > length:
                    longest, length = found, found.end - found.start
        if longest is None:
            raise InvalidOutputError(() if search.problem is None else (search.problem,))
        return self.structure(longest.value)

    def parse_partial(self, text: str) -> Any | None:
        """Return the JSON value in *text* as far as it has arrived, not validated; None while there is none."""
        return json_extraction.growing_value(text, kinds=self._kinds, fits=self._fits)

    def _fits(self, value: Any) -> bool:
        try:
            self.attempt(value)
        except Exception:  # noqa: BLE001 - of cattrs, or of the user's own class
            return False
        return True


def _types_in(schema: Any, root: Mapping[str, Any], depth: int) -> frozenset[str]:
    """Return the JSON types of the values that *schema*, a part of *root*, accepts; perhaps more."""
    if depth > _MAX_DEPTH or not json_values.is_object(schema):
        return json_extraction.CONTAINERS
    if (names := schema.get("type")) is not None:
        names = [names] if isinstance(names, str) else names
        # Draft 3 has schemas as types.
        return frozenset(names) if all(isinstance(name, str) for name in names) else json_extraction.CONTAINERS
    reference, definitions = schema.get("$ref"), root.get("$defs")
    if isinstance(reference, str) and reference.startswith(REFERENCE) and json_values.is_object(definitions):
        return _types_in(definitions.get(reference.removeprefix(REFERENCE)), root, depth + 1)
    for keyword in ("anyOf", "oneOf"):
        if json_values.is_array(members := schema.get(keyword)):
            return frozenset[str]().union(*(_types_in(member, root, depth + 1) for member in members))
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return frozenset(map(json_type, values)) if json_values.is_array(values) else json_extraction.CONTAINERS


def output_type_of(tp: Any) -> OutputType[Any]:
    """Return *tp* as an output type. Raises `InvalidParameterError` if it is not supported."""
    if type(tp) is type:
        return _made(tp, None)
    if isinstance(tp, OutputType):
        return tp  # pyright: ignore[reportUnknownVariableType] - its type argument is not known at run time
    # Unions that differ only in the order of their members are equal, and both orders have a meaning.
    try:
        hash(written := as_written(tp))
    except (TypeError, RecursionError):  # as of a list in the metadata of an annotation; or it is nested too deeply
        return _make(tp)
    return _made(tp, written)


def _make(tp: Any) -> OutputType[Any]:
    try:
        schema, exact = schema_of(tp)
    except RecursionError:
        raise InvalidParameterError("output_type", tp, "a type that is not nested so deeply") from None
    structuring = Structuring(tp)
    return OutputType(schema=schema, structure=structuring, attempt=structuring.attempt, exact=exact)


@functools.lru_cache(maxsize=256)
def _made(tp: Any, _written: Any) -> OutputType[Any]:
    return _make(tp)
