"""pydantic models as output types: their own schema, and their own validation, which is strict."""

from __future__ import annotations

import functools
import itertools
import json
import math
import sys
from collections.abc import Iterator
from typing import Any, Final

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire.json import is_array, is_object
from neuralbox_async._wire.json_paths import json_path

_MAX_PROBLEMS: Final = 100  # as of other types


def is_model(tp: object) -> bool:
    """Return whether *tp* is a pydantic model or dataclass; pydantic is not imported for that."""
    if not isinstance(tp, type) or sys.modules.get("pydantic") is None:
        return False
    return hasattr(tp, "__pydantic_validator__") and hasattr(tp, "__pydantic_core_schema__")


@functools.lru_cache(maxsize=256)
def _adapter(tp: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(tp)


def schema_of(tp: Any) -> dict[str, Any]:
    """Return the JSON Schema that pydantic makes of *tp*. Raises `InvalidParameterError` if it cannot."""
    try:
        schema: dict[str, Any] = _adapter(tp).json_schema(schema_generator=_generator())
    except Exception as error:  # of pydantic, or of the user's own hooks
        raise InvalidParameterError("output_type", tp, f"a model with a JSON Schema ({error})") from error
    return schema


@functools.cache
def _generator() -> Any:
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        """Sets whose items may be repeated, which pydantic accepts."""

        def set_schema(self, schema: Any) -> dict[str, Any]:
            return _without_unique_items(super().set_schema(schema))

        def frozenset_schema(self, schema: Any) -> dict[str, Any]:
            return _without_unique_items(super().frozenset_schema(schema))

    return Generator


def _without_unique_items(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "uniqueItems"}


def structure(value: Any, tp: Any) -> Any:
    """
    Return the JSON *value* as a *tp*. Raises `InvalidOutputError`.

    In pydantic's strict mode, in which "5" is no integer, unless the configuration of the model has ``strict=False``.
    """
    from pydantic import ValidationError

    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        raise InvalidOutputError(tuple(itertools.islice(_not_finite(value, ()), _MAX_PROBLEMS))) from None
    config: dict[str, Any] = getattr(tp, "model_config", None) or getattr(tp, "__pydantic_config__", None) or {}
    # As JSON: in strict mode Python's own values must have the exact types, so that no string is a date.
    validate = functools.partial(_adapter(tp).validate_json, strict=None if config.get("strict") is False else True)
    try:
        try:
            return validate(text)
        except ValidationError:
            if (other := json.dumps(_with_integers(value))) == text:
                raise
            return validate(other)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidOutputError(tuple(_problem(problem) for problem in found[:_MAX_PROBLEMS])) from None


def _not_finite(value: Any, path: tuple[str | int, ...]) -> Iterator[Problem]:
    """Yield a problem for each number in *value* that is none in JSON, or too large."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield Problem(json_path(path), f"expected a finite number, got {value}")
    elif is_object(value):
        for name, member in value.items():
            yield from _not_finite(member, (*path, name))
    elif is_array(value):
        for index, item in enumerate(value):
            yield from _not_finite(item, (*path, index))


def _with_integers(value: Any) -> Any:
    """Return *value* with 5 for 5.0, which is an integer in JSON Schema, but none for pydantic."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if is_object(value):
        return {name: _with_integers(member) for name, member in value.items()}
    return [_with_integers(item) for item in value] if is_array(value) else value


def _problem(error: Any) -> Problem:
    return Problem(json_path(error["loc"]), str(error["msg"]))
