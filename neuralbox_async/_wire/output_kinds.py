"""The kinds of types that an output type may consist of, and the JSON types of their values."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import math
import operator
import types
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NewType, TypeGuard, TypeVar, Union, get_args, get_origin
from uuid import UUID

import attrs

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._wire import pydantic_models

V = TypeVar("V")

_alias: Any = types.GenericAlias  # type checkers do not know it for Union and Annotated
_RULE = "a type that JSON can represent: a class with annotated fields, an Enum, Literal, list, dict[str, ...], ..."
ARRAYS: Mapping[Any, Any] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: tuple,
    collections.abc.Set: frozenset,
    collections.abc.MutableSequence: list,
    collections.abc.MutableSet: set,
}
"""The types of collections with the class of their values; `tuple` is apart."""
OBJECTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
"""The types of mappings, whose values are dicts."""
_SCALARS: Mapping[Any, Mapping[str, Any]] = {
    Any: {},
    object: {},
    None: {"type": "null"},
    type(None): {"type": "null"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    Decimal: {"type": "number"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
    UUID: {"type": "string", "format": "uuid"},
}
_JSON_TYPES = ((bool, "boolean"), (int, "integer"), (float, "number"), (list, "array"), (dict, "object"))
_ALL_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def unsupported(tp: object, reason: str = "") -> InvalidParameterError:
    """Return the error of an output type that contains *tp*."""
    return InvalidParameterError("output_type", tp, f"{_RULE}{f' ({reason})' if reason else ''}")


def scalar_schema(tp: Any) -> Mapping[str, Any] | None:
    """Return the JSON Schema of *tp*, None if it is no type without parts."""
    try:
        return _SCALARS.get(tp)
    except TypeError:  # not hashable, as a dict in the metadata of an annotation
        return None


def is_class(tp: object) -> TypeGuard[type]:
    """Return whether *tp* is a class, and no generic alias such as ``list[int]``."""
    return isinstance(tp, type) and get_origin(tp) is None


def is_enum(tp: object) -> TypeGuard[type[enum.Enum]]:
    """Return whether *tp* is an enumeration."""
    return is_class(tp) and issubclass(tp, enum.Enum)


def _is_subclass(tp: Any, cls: type) -> bool:
    return isinstance(tp, type) and issubclass(tp, cls)


def is_named_tuple(tp: Any) -> bool:
    """Return whether *tp* is a NamedTuple, perhaps with type arguments."""
    origin: Any = get_origin(tp) or tp
    return _is_subclass(origin, tuple) and hasattr(origin, "_fields")


def is_typed_dict(tp: Any) -> bool:
    """Return whether *tp* is a TypedDict, perhaps with type arguments."""
    # Not typing.is_typeddict: that of typing_extensions is another class.
    origin: Any = get_origin(tp) or tp
    return _is_subclass(origin, dict) and hasattr(origin, "__total__")


def has_fields(tp: object) -> bool:
    """Return whether *tp* is a class with annotated fields, perhaps with type arguments."""
    origin: Any = get_origin(tp) or tp
    if not _is_subclass(origin, object):
        return False
    return attrs.has(origin) or dataclasses.is_dataclass(origin) or is_named_tuple(origin) or is_typed_dict(origin)


def is_union(tp: object) -> bool:
    """Return whether *tp* is a union, in either notation."""
    return get_origin(tp) in {Union, types.UnionType}


def is_alias(tp: object) -> bool:
    """Return whether *tp* is an alias of the statement ``type``, also of typing_extensions, or with type arguments."""
    origin: object = get_origin(tp) or tp
    cls = type(origin)
    return cls.__name__ == "TypeAliasType" and cls.__module__ in {"typing", "typing_extensions"}


def value_of_alias(tp: Any) -> Any:
    """Return the type that an alias stands for. Raises `InvalidParameterError` if that cannot be evaluated."""
    alias, arguments = get_origin(tp) or tp, get_args(tp)
    try:
        value, parameters = alias.__value__, alias.__type_params__
    except Exception as error:  # of the user's own expression
        raise unsupported(tp, f"it cannot be evaluated: {error}") from error
    if not all(isinstance(parameter, TypeVar) for parameter in parameters):
        raise unsupported(tp, "its parameters are not all type variables")
    return substituted(value, variables_of(parameters, arguments))


def variables_of(parameters: Iterable[Any], arguments: Iterable[Any]) -> dict[Any, Any]:
    """Return the type *arguments* of the type variables *parameters*, or their defaults (PEP 696)."""
    found: dict[Any, Any] = dict(zip(parameters, arguments, strict=False))
    for parameter in filter(has_default, parameters):
        default = parameter.__default__
        if found.get(parameter, default) == default:  # Python adds it as it is, also if it has other type variables
            found[parameter] = substituted(default, found)
    return found


def has_default(parameter: Any) -> bool:
    """Return whether a type variable has a default; in older versions of Python, those of typing_extensions may."""
    check = getattr(parameter, "has_default", None)
    return check is not None and bool(check())


def substituted(tp: Any, variables: Mapping[Any, Any]) -> Any:
    """Return *tp* with type arguments instead of type *variables*."""
    if not variables:
        return tp
    if isinstance(tp, TypeVar):
        return variables.get(tp, tp)
    if parameters := pydantic_models.parameters_of(tp):
        return pydantic_models.with_arguments(tp, tuple(substituted(each, variables) for each in parameters))
    arguments = get_args(tp)[:1] if get_origin(tp) is Annotated else get_args(tp)
    others = [substituted(argument, variables) for argument in arguments]
    return tp if all(map(operator.is_, arguments, others)) else _with_arguments(tp, others)


def _with_arguments(tp: Any, arguments: list[Any]) -> Any:
    # Not `tp[...]`, `Union[...]` or `Annotated[...]`: Python has one result for equal types, and so for unions of the
    # same members in another order; and none for unions of types that are not hashable.
    origin: Any = get_origin(tp)
    if origin is Annotated:
        inner, metadata = unannotated(arguments[0])  # Python joins them, too
        return _alias(origin, (inner, *metadata, *get_args(tp)[1:]))
    if is_union(tp):
        return _union(arguments)
    return origin[tuple(arguments) if len(arguments) > 1 else arguments[0]]


def _union(members: Iterable[Any]) -> Any:
    """Return the union of *members*, of which some may be unions: each type once, at its first place."""
    found: list[Any] = []
    for member in members:
        parts: Iterable[Any] = get_args(member) if is_union(member) else (type(None) if member is None else member,)
        found += (part for part in parts if part not in found)
    return _alias(Union, tuple(found)) if len(found) > 1 else found[0]


def as_written(tp: Any) -> Any:
    """Return what is equal for equal types only if the members of their unions also have the same order."""
    origin, arguments = get_origin(tp), get_args(tp)
    if origin is Literal or not arguments:
        return tp
    return (Union if is_union(tp) else origin, *map(as_written, arguments))


class ByType(Generic[V]):
    """Values by types as they are written, also by those that are not hashable, as with a dict in their metadata."""

    def __init__(self) -> None:
        self._values: dict[Any, V] = {}
        self._others: list[tuple[Any, V]] = []

    def get(self, tp: Any) -> V | None:
        """Return the value of *tp*, or None."""
        key = as_written(tp)
        try:
            return self._values.get(key)
        except TypeError:
            return next((value for other, value in self._others if _is_same(other, key)), None)

    def set(self, tp: Any, value: V) -> V:
        """Set the value of *tp*, and return it."""
        key = as_written(tp)
        try:
            self._values[key] = value
        except TypeError:
            self._others.append((key, value))
        return value


def _is_same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - of metadata such as arrays
        return False


def unannotated(tp: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return *tp* without Annotated, and the metadata of that."""
    if get_origin(tp) is Annotated:
        inner, *metadata = get_args(tp)
        return inner, tuple(metadata)
    return tp, ()


def literal_values(tp: Any) -> list[tuple[Any, Any]]:
    """Return the JSON values of a Literal or an Enum, each with the value that stands for it."""
    members: Iterable[Any] = get_args(tp) if get_origin(tp) is Literal else tp
    pairs = [(member.value if isinstance(member, enum.Enum) else member, member) for member in members]
    if not pairs:
        raise unsupported(tp, "it has no values")
    for value, _ in pairs:
        if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
            raise unsupported(tp, f"{value!r} is not JSON")
    return pairs


def same_json(one: object, other: object) -> bool:
    """Return whether two strings, numbers, booleans or nulls are equal in JSON, where true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def json_types_of(tp: Any) -> frozenset[str]:
    """Return the JSON types of the values of *tp*, at least those; an integer is also a number."""
    tp, _ = unannotated(tp)
    origin = get_origin(tp) or tp
    if isinstance(tp, NewType):
        return json_types_of(tp.__supertype__)
    if is_union(tp):
        parts: Iterable[frozenset[str]] = map(json_types_of, get_args(tp))
        return frozenset[str]().union(*parts)
    if origin is Literal or (is_enum(tp) and list(tp)):
        return frozenset(json_type(value) for value, _ in literal_values(tp))
    if pydantic_models.is_model(tp) or is_alias(tp):
        return _ALL_TYPES
    if has_fields(tp) or origin in OBJECTS:
        return frozenset({"object"})
    name = "array" if origin in ARRAYS or origin is tuple else (scalar_schema(tp) or {}).get("type")
    return _ALL_TYPES if name is None else frozenset({name})


def json_type(value: object) -> str:
    """Return the JSON type of *value*."""
    if value is None:
        return "null"
    for cls, name in _JSON_TYPES:
        if isinstance(value, cls):
            return name
    return "string"
