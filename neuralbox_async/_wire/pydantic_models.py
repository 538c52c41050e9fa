"""pydantic models as output types: their own schema, and their own validation, which is strict."""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire import output_memory
from neuralbox_async._wire.json import is_array, is_object
from neuralbox_async._wire.json_paths import json_path
from neuralbox_async._wire.output_memory import TOO_DEEP, once, unless_refused

_MAX_PROBLEMS: Final = 100  # as of other types
_encode = json.JSONEncoder(allow_nan=False).encode
_decoder = json.JSONDecoder()
_MAX_STEPS: Final = 500_000  # values that are checked in one, where unions are nested: the event loop waits for it
_MAX_REFERENCES: Final = 8  # from one definition to another


def is_model(tp: object) -> bool:
    """Return whether *tp* is a pydantic model or dataclass; pydantic is not imported for that."""
    if not isinstance(tp, type) or sys.modules.get("pydantic") is None:
        return False
    return hasattr(tp, "__pydantic_validator__") and hasattr(tp, "__pydantic_core_schema__")


def parameters_of(tp: Any) -> tuple[Any, ...]:
    """Return the type variables that are left in a pydantic model."""
    metadata: Mapping[str, Any] = getattr(tp, "__pydantic_generic_metadata__", {})
    return tuple(metadata.get("parameters", ()))


def with_arguments(tp: Any, arguments: tuple[Any, ...]) -> Any:
    """Return the pydantic model *tp* with type *arguments*. Raises `InvalidParameterError` if it cannot have them."""
    try:
        return tp[arguments]
    except Exception as error:  # of pydantic
        raise InvalidParameterError("output_type", tp, f"a model for these type arguments ({error})") from error


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
    # Not one whose own validator returns another, such as one that chooses a class.
    if inspect.isabstract(tp) and _adapter(tp).core_schema.get("type") in {"model", "dataclass"}:
        raise InvalidParameterError("output_type", tp, "a model that is not abstract")
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
    if is_array(value) or is_object(value):
        # Not the models: an alternative of a union that fails may have changed them.
        return unless_refused((id(value), tp), lambda: _structure(value, tp))
    return _structure(value, tp)


def _structure(value: Any, tp: Any) -> Any:
    from pydantic import ValidationError

    if (choices := _choices(tp)) and not once((id(value), *choices.values()), lambda: _is_bounded(value, choices)):
        raise InvalidOutputError((TOO_DEEP,))
    text, other = _texts_of(value)
    config: dict[str, Any] = getattr(tp, "model_config", None) or getattr(tp, "__pydantic_config__", None) or {}
    # As JSON: in strict mode Python's own values must have the exact types, so that no string is a date.
    validate = functools.partial(_adapter(tp).validate_json, strict=None if config.get("strict") is False else True)
    try:
        try:
            return validate(text)
        except ValidationError:
            if other == text:
                raise
            return validate(other)
    except ValidationError as error:
        count = min(error.error_count(), _MAX_PROBLEMS)
        raise InvalidOutputError((), count, functools.partial(_problems, error.with_traceback(None), value)) from None


def _texts_of(value: Any) -> tuple[str, str]:
    """
    Return the JSON *value* as text, and with 5 for 5.0; those of the last value are kept for other types.

    Raises `InvalidOutputError` for numbers that JSON has not.
    """
    memory = output_memory.memory()
    if memory.last_texts is None or memory.last_texts[0] is not value:
        memory.last_texts = (value, _texts(value))
    return memory.last_texts[1]


def _texts(value: Any) -> tuple[str, str]:
    try:
        text = _encode(value)
    except ValueError:
        raise InvalidOutputError(tuple(itertools.islice(_not_finite(value, ()), _MAX_PROBLEMS))) from None
    # As Python writes the numbers that are integers.
    return text, _encode(_with_integers(value)) if ".0" in text or "e+" in text else text


def _problems(error: Any, value: Any) -> tuple[Problem, ...]:
    # Of a long invalid text there are more than a hundred thousand: all of them as dicts take longer than the check.
    try:
        text = error.json(include_url=False, include_context=False, include_input=False)
    except Exception as unwritable:  # noqa: BLE001 - of what the user's validators put into their errors
        return (Problem("$", f"invalid ({type(unwritable).__name__})"),)
    problems: list[Problem] = []
    position = 1
    for _ in range(min(error.error_count(), _MAX_PROBLEMS)):
        found, end = _decoder.raw_decode(text, position)
        problems.append(_problem(found, value))
        position = end + 1  # after the comma
    return tuple(problems)


def _is_bounded(value: Any, choices: Mapping[str, int]) -> bool:
    """
    Return whether pydantic checks *value* in a bounded number of steps.

    It checks all in a value of a union once for each of the *choices* of that, and what is in that in the same way.
    """
    if not choices:
        return True
    steps, parts = 0, [(value, 1)]
    while parts:
        part, times = parts.pop()
        steps += times
        if is_object(part):
            times *= choices["object"]
            parts += ((member, times) for member in part.values())
        elif is_array(part):
            times *= choices["array"]
            parts += ((item, times) for item in part)
        if steps > _MAX_STEPS:
            return False
    return True


@functools.lru_cache(maxsize=256)
def _choices(tp: Any) -> Mapping[str, int]:
    """
    Return how many choices a union in *tp* has at most for an object, and for an array, that has such unions in it.

    Empty, if no union has more than one. Those with a discriminator have one.
    """
    schema = schema_of(tp)
    definitions: dict[str, Any] = schema.get("$defs", {})
    direct = {name: set(_references(definition)) for name, definition in definitions.items()}
    most = {"object": 1, "array": 1}
    for name, definition in definitions.items():
        for choices in _unions(definition):
            recursive = [choice for choice in choices if name in _reachable(_references(choice), direct)]
            kinds = [_containers(choice, definitions, 0) for choice in recursive]
            for kind, count in most.items():
                most[kind] = max(count, sum(kind in each for each in kinds))
    return most if max(most.values()) > 1 else {}


def _parts(schema: Any) -> Iterator[Any]:
    """Yield *schema* and all JSON in it."""
    yield schema
    for part in schema.values() if is_object(schema) else schema if is_array(schema) else ():
        yield from _parts(part)


def _references(schema: Any) -> set[str]:
    """Return the names of the definitions that *schema* refers to."""
    found = (part.get("$ref") for part in _parts(schema) if is_object(part))
    return {reference.rpartition("/")[2] for reference in found if isinstance(reference, str)}


def _reachable(names: set[str], direct: Mapping[str, set[str]]) -> set[str]:
    """Return *names* and those that they refer to, by what each refers to *direct*."""
    found, new = set[str](), names
    while new:
        found |= new
        new = set[str]().union(*(direct.get(name, ()) for name in new)) - found
    return found


def _unions(schema: Any) -> Iterator[list[Any]]:
    for part in _parts(schema):
        if is_object(part) and is_array(choices := part.get("anyOf")):
            yield choices


def _containers(schema: Any, definitions: Mapping[str, Any], depth: int) -> frozenset[str]:
    """Return which of array and object the values of *schema* may be."""
    both = frozenset({"array", "object"})
    if not is_object(schema) or depth > _MAX_REFERENCES:
        return both
    if isinstance(reference := schema.get("$ref"), str):
        return _containers(definitions.get(reference.rpartition("/")[2]), definitions, depth + 1)
    return both & {schema["type"]} if isinstance(schema.get("type"), str) else both


def _not_finite(value: Any, path: tuple[str | int, ...]) -> Iterator[Problem]:
    """Yield a problem for each number in *value* that JSON does not have, or that is too large."""
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


def _problem(error: Any, value: Any) -> Problem:
    """Return the problem of an *error* in *value*, in whose place pydantic also names the choices of unions."""
    path: list[str | int] = []
    for step in error["loc"]:
        inner: Any = value
        if (is_object(value) and step in value) or (is_array(value) and isinstance(step, int) and step < len(value)):
            value = inner[step]
            path.append(step)
    if error["type"] == "missing":
        path.append(error["loc"][-1])
    return Problem(json_path(path), str(error["msg"]))
