"""The bounds of numbers and lengths: from annotations and attrs validators, to JSON Schema and to a check of values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sized
from decimal import Decimal
from fractions import Fraction
from typing import Any, cast

import attrs

from neuralbox_async._validation import is_number
from neuralbox_async._wire.output_kinds import unsupported

_NUMBER_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
# They change the value, or restrict it in a way of their own.
_OTHERS = ("strip_whitespace", "to_upper", "to_lower", "ascii_only", "max_digits", "decimal_places")
_LENGTHS = {"string": "Length", "array": "Items", "object": "Properties"}


@attrs.frozen
class Bounds:
    """The limits of an annotation, under the names of annotated_types; lengths are those of the JSON value."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    multiple_of: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None

    def problem_of(self, value: Any) -> str | None:
        """Return the reason why the JSON *value* is out of bounds, or None; values of other types have no bounds."""
        if isinstance(value, str | list | dict):
            length = len(cast("Sized", value))
            if self.min_length is not None and length < self.min_length:
                return f"expected a length of at least {self.min_length}, got {length}"
            if self.max_length is not None and length > self.max_length:
                return f"expected a length of at most {self.max_length}, got {length}"
            if self.pattern is not None and isinstance(value, str) and re.search(self.pattern, value) is None:
                return f"expected text with the pattern {self.pattern!r}"
        elif isinstance(value, int | float) and not isinstance(value, bool):
            return self._problem_of_number(value)
        return None

    def _problem_of_number(self, value: float) -> str | None:
        if self.ge is not None and not value >= self.ge:
            return f"expected at least {self.ge}, got {value}"
        if self.gt is not None and not value > self.gt:
            return f"expected more than {self.gt}, got {value}"
        if self.le is not None and not value <= self.le:
            return f"expected at most {self.le}, got {value}"
        if self.lt is not None and not value < self.lt:
            return f"expected less than {self.lt}, got {value}"
        if self.multiple_of is not None and not _is_multiple(value, self.multiple_of):
            return f"expected a multiple of {self.multiple_of}, got {value}"
        return None

    def keywords(self, json_types: frozenset[str]) -> dict[str, Any]:
        """Return the keywords of JSON Schema for these bounds on values of *json_types*."""
        found: dict[str, Any] = {}
        if json_types & {"integer", "number"}:
            for name, keyword in _NUMBER_BOUNDS.items():
                if (limit := getattr(self, name)) is not None:
                    found[keyword] = limit
            if self.multiple_of is not None:
                found["multipleOf"] = self.multiple_of
        if self.pattern is not None and "string" in json_types:
            found["pattern"] = self.pattern
        for json_type, noun in _LENGTHS.items():
            if json_type in json_types:
                if self.min_length:
                    found[f"min{noun}"] = self.min_length
                if self.max_length is not None:
                    found[f"max{noun}"] = self.max_length
        return found


NO_BOUNDS = Bounds()


def _is_multiple(value: float, divisor: float) -> bool:
    return math.isfinite(value) and _as_written(value) % _as_written(divisor) == 0


def _as_written(number: float) -> Fraction:
    """Return the *number* by the digits that were written: 0.3 is a multiple of 0.1."""
    return Fraction(number if isinstance(number, int) else repr(float(number)))


def bounds_of(metadata: Iterable[Any]) -> Bounds:
    """Return the bounds in the *metadata* of an annotation: attributes such as ``ge``, of objects of any class."""
    found: dict[str, Any] = {}
    for item in _flat(metadata):
        limits = _limits_in(item)
        if any(getattr(item, name, None) for name in _OTHERS) or (
            not limits and type(item).__module__ == "annotated_types" and _restricts(item)
        ):
            raise unsupported(item, "JSON Schema cannot express this restriction")
        found |= {name: _limit(name, limit) for name, limit in limits.items()}
    return Bounds(**found)


def _limits_in(item: object) -> dict[str, Any]:
    if isinstance(item, re.Pattern):
        return {"pattern": item}  # with its flags
    names = {name: getattr(item, name, None) for name in attrs.fields_dict(Bounds)}
    return {name: limit for name, limit in names.items() if limit is not None}


def _restricts(item: object) -> bool:
    return not any(hasattr(item, name) for name in (*attrs.fields_dict(Bounds), "documentation", "unit"))


def _limit(name: str, limit: Any) -> int | float | str:
    if name == "pattern":
        return _pattern(limit)
    if isinstance(limit, Decimal) and limit.is_finite():
        limit = float(limit)
    lengths = name.endswith("length")
    if isinstance(limit, bool) or not isinstance(limit, int if lengths else int | float) or not math.isfinite(limit):
        raise unsupported(limit, f"{name} must be {'an integer' if lengths else 'a finite number'}")
    if name == "multiple_of" and limit <= 0:
        raise unsupported(limit, "multiple_of must be above 0")
    return limit


def _pattern(pattern: Any) -> str:
    """Return the text of a *pattern*, that of a regular expression without flags."""
    try:
        compiled = re.compile(pattern)
    except (TypeError, ValueError, re.error, RecursionError):
        compiled = None
    if compiled is None or not isinstance(compiled.pattern, str) or compiled.flags != re.UNICODE:
        raise unsupported(pattern, "a pattern is a regular expression for text, without flags")
    return compiled.pattern


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    for item in metadata:
        yield item
        inner: Any = getattr(item, "metadata", ())  # of pydantic's FieldInfo
        if isinstance(inner, list | tuple):
            yield from _flat(cast("Iterable[Any]", inner))


def bounds_of_validator(validator: Any) -> Bounds:
    """Return the bounds in an attrs validator that compares with a number or a length; others run all the same."""
    found: dict[str, Any] = {}
    parts: Iterable[Any] = getattr(validator, "_validators", (validator,))
    for part in parts:
        name = type(part).__name__
        if name == "_NumberValidator" and is_number(part.bound):
            operators = {">=": "ge", ">": "gt", "<=": "le", "<": "lt"}
            found[operators.get(part.compare_op, "")] = part.bound
        elif name == "_MinLengthValidator":
            found["min_length"] = part.min_length
        elif name == "_MaxLengthValidator":
            found["max_length"] = part.max_length
    found.pop("", None)
    return Bounds(**found)
