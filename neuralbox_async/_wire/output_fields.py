"""What an output type consists of: the fields of a class, the bounds and descriptions of annotations."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Literal,
    NewType,
    NotRequired,
    Required,
    TypeGuard,
    TypeVar,
    Union,
    get_args,
    get_origin,
)
from uuid import UUID

import attrs

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._validation import is_number
from neuralbox_async._wire import pydantic_models

_RULE = "a type that JSON can represent: a class with annotated fields, an Enum, Literal, list, dict[str, ...], ..."
_NUMBER_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_LENGTHS = {"string": "Length", "array": "Items", "object": "Properties"}


def unsupported(tp: object, reason: str = "") -> InvalidParameterError:
    """Return the error of an output type that contains *tp*."""
    return InvalidParameterError("output_type", tp, f"{_RULE}{f' ({reason})' if reason else ''}")


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

    def problem_of(self, value: object) -> str | None:
        """Return the reason why the JSON *value* is out of bounds, or None; values of other types have no bounds."""
        if isinstance(value, str | list | dict):
            length = len(value)
            if self.min_length is not None and length < self.min_length:
                return f"expected a length of at least {self.min_length}, got {length}"
            if self.max_length is not None and length > self.max_length:
                return f"expected a length of at most {self.max_length}, got {length}"
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
        for json_type, noun in _LENGTHS.items():
            if json_type in json_types:
                if self.min_length:
                    found[f"min{noun}"] = self.min_length
                if self.max_length is not None:
                    found[f"max{noun}"] = self.max_length
        return found


NO_BOUNDS = Bounds()


def _is_multiple(value: float, divisor: float) -> bool:
    # By the digits that were written: 0.3 is a multiple of 0.1.
    return math.isfinite(value) and Decimal(repr(value)) % Decimal(repr(divisor)) == 0


@attrs.frozen(kw_only=True)
class Field:
    """A field of a class: its *name* as an attribute, the *member* of the JSON object, and what is known of it."""

    name: str
    member: str
    type: Any
    required: bool
    description: str | None = None
    bounds: Bounds = NO_BOUNDS


def is_class(tp: object) -> TypeGuard[type]:
    """Return whether *tp* is a class, and no generic alias such as ``list[int]``."""
    return isinstance(tp, type) and get_origin(tp) is None


def is_enum(tp: object) -> TypeGuard[type[enum.Enum]]:
    """Return whether *tp* is an enumeration."""
    return is_class(tp) and issubclass(tp, enum.Enum)


def is_named_tuple(tp: object) -> bool:
    """Return whether *tp* is a NamedTuple, perhaps with type arguments."""
    origin = get_origin(tp) or tp
    return isinstance(origin, type) and issubclass(origin, tuple) and hasattr(origin, "_fields")


def is_typed_dict(tp: object) -> bool:
    """Return whether *tp* is a TypedDict, perhaps with type arguments."""
    # Not typing.is_typeddict: that of typing_extensions is another class.
    origin = get_origin(tp) or tp
    return isinstance(origin, type) and issubclass(origin, dict) and hasattr(origin, "__total__")


def has_fields(tp: object) -> bool:
    """Return whether *tp* is a class with annotated fields, perhaps with type arguments."""
    origin: Any = get_origin(tp) or tp
    if not isinstance(origin, type):
        return False
    return attrs.has(origin) or dataclasses.is_dataclass(origin) or is_named_tuple(origin) or is_typed_dict(origin)


def is_union(tp: object) -> bool:
    """Return whether *tp* is a union, in either notation."""
    return get_origin(tp) in {Union, types.UnionType}


def is_alias(tp: object) -> bool:
    """Return whether *tp* is an alias of the statement ``type``, also of typing_extensions."""
    return type(tp).__name__ == "TypeAliasType" and hasattr(tp, "__value__")


def literal_values(tp: object) -> list[tuple[Any, Any]]:
    """Return the JSON values of a Literal or an Enum, each with the value that stands for it."""
    members: Iterable[Any] = get_args(tp) if get_origin(tp) is Literal else tp  # type: ignore[assignment]
    pairs = [(member.value if isinstance(member, enum.Enum) else member, member) for member in members]
    for value, _ in pairs:
        if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
            raise unsupported(tp, f"{value!r} is not JSON")
    return pairs


def same_json(one: object, other: object) -> bool:
    """Return whether two strings, numbers, booleans or nulls are equal in JSON, where true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def unannotated(tp: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return *tp* without Annotated, and the metadata of that."""
    if get_origin(tp) is Annotated:
        inner, *metadata = get_args(tp)
        return inner, tuple(metadata)
    return tp, ()


def bounds_of(metadata: Iterable[Any]) -> Bounds:
    """Return the bounds in the *metadata* of an annotation: attributes such as ``ge``, of objects of any class."""
    found: dict[str, Any] = {}
    for item in _flat(metadata):
        names = {name: getattr(item, name, None) for name in attrs.fields_dict(Bounds)}
        limits = {name: limit for name, limit in names.items() if limit is not None}
        if not limits and type(item).__module__ == "annotated_types" and _restricts(item):
            raise unsupported(item, "JSON Schema cannot express this restriction")
        found |= {name: _limit(name, limit) for name, limit in limits.items()}
    return Bounds(**found)


def _restricts(item: object) -> bool:
    return not any(hasattr(item, name) for name in (*attrs.fields_dict(Bounds), "documentation", "unit"))


def _limit(name: str, limit: Any) -> int | float:
    if isinstance(limit, Decimal) and limit.is_finite():
        limit = float(limit)
    lengths = name.endswith("length")
    if isinstance(limit, bool) or not isinstance(limit, int if lengths else int | float) or not math.isfinite(limit):
        raise unsupported(limit, f"{name} must be {'an integer' if lengths else 'a finite number'}")
    return limit


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    for item in metadata:
        yield item
        if isinstance(inner := getattr(item, "metadata", None), list | tuple):  # pydantic's FieldInfo
            yield from _flat(inner)


def description_in(metadata: Iterable[Any]) -> str | None:
    """Return the description in the *metadata* of an annotation: a string, or a ``description`` of an object."""
    for item in metadata:
        if isinstance(item, str):
            return item
        for name in ("description", "documentation"):  # of pydantic's Field, and of typing_extensions' Doc
            if isinstance(text := getattr(item, name, None), str) and text:
                return text
    return None


def docstring_of(cls: type) -> str | None:
    """Return the docstring that the author of *cls* wrote, or None."""
    doc = vars(cls).get("__doc__")
    if not isinstance(doc, str) or doc.startswith(f"{cls.__name__}("):  # made by dataclass or NamedTuple
        return None
    return inspect.cleandoc(doc) or None


def fields_of(tp: Any) -> tuple[Field, ...]:
    """Return the fields of a class that `has_fields`, those that its constructor takes, in their order."""
    cls, arguments = get_origin(tp) or tp, get_args(tp)
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception as error:  # any error of evaluating the user's annotations
        raise unsupported(tp, f"its annotations cannot be evaluated: {error}") from error
    variables = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
    return tuple(_field_with(field, hints, variables) for field in _declared(cls))


def _declared(cls: Any) -> Iterator[Field]:
    if attrs.has(cls):
        for a in attrs.fields(cls):
            if a.init:
                bounds = _validator_bounds(a.validator) if a.converter is None else NO_BOUNDS
                description = a.metadata.get("description")
                yield Field(
                    name=a.name,
                    member=a.alias or a.name,
                    type=a.type,
                    required=a.default is attrs.NOTHING,
                    description=description if isinstance(description, str) else None,
                    bounds=bounds,
                )
    elif dataclasses.is_dataclass(cls):
        for f in dataclasses.fields(cls):
            if f.init:
                missing = dataclasses.MISSING
                required = f.default is missing and f.default_factory is missing
                description = f.metadata.get("description")
                yield Field(name=f.name, member=f.name, type=f.type, required=required, description=description)
    elif is_named_tuple(cls):
        for name in cls._fields:
            yield Field(name=name, member=name, type=Any, required=name not in cls._field_defaults)
    else:
        for name in typing.get_type_hints(cls):
            yield Field(name=name, member=name, type=Any, required=name in cls.__required_keys__)


def _field_with(field: Field, hints: Mapping[str, Any], variables: Mapping[Any, Any]) -> Field:
    tp = hints.get(field.name, field.type)
    required = field.required
    while get_origin(tp) in {Required, NotRequired}:
        required = get_origin(tp) is Required
        (tp,) = get_args(tp)
    if tp is None and field.type is None:
        tp = Any  # an attrs field without an annotation
    _, metadata = unannotated(tp)
    description = field.description or description_in(metadata)
    return attrs.evolve(field, type=substituted(tp, variables), required=required, description=description)


def substituted(tp: Any, variables: Mapping[Any, Any]) -> Any:
    """Return *tp* with type arguments instead of type *variables*."""
    if not variables:
        return tp
    if isinstance(tp, TypeVar):
        return variables.get(tp, tp)
    parameters = getattr(tp, "__parameters__", ())
    if parameters and get_origin(tp) is not None:
        return tp[tuple(variables.get(parameter, parameter) for parameter in parameters)]
    return tp


def _validator_bounds(validator: object) -> Bounds:
    """Return the bounds in an attrs validator that compares with a number or a length; others run all the same."""
    found: dict[str, Any] = {}
    for part in getattr(validator, "_validators", (validator,)):
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

SCALARS: Mapping[Any, Mapping[str, Any]] = {
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
"""The types without parts, with their JSON Schemas."""

_ALL_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def json_types_of(tp: Any) -> frozenset[str]:
    """Return the JSON types of the values of *tp*, at least those; an integer is also a number."""
    tp, _ = unannotated(tp)
    if isinstance(tp, NewType):
        return json_types_of(tp.__supertype__)
    if get_origin(tp) is Literal or (is_enum(tp) and list(tp)):
        return frozenset(json_type(value) for value, _ in literal_values(tp))
    if is_union(tp):
        return frozenset().union(*(json_types_of(member) for member in get_args(tp)))
    if has_fields(tp) or (get_origin(tp) or tp) in OBJECTS:
        return frozenset({"object"})
    if (get_origin(tp) or tp) in ARRAYS or (get_origin(tp) or tp) is tuple:
        return frozenset({"array"})
    if not pydantic_models.is_model(tp) and "type" in (scalar := SCALARS.get(tp, {})):
        return frozenset({scalar["type"]})
    return _ALL_TYPES


def json_type(value: object) -> str:
    """Return the JSON type of a scalar."""
    if value is None:
        return "null"
    for cls, name in ((bool, "boolean"), (int, "integer"), (float, "number")):
        if isinstance(value, cls):
            return name
    return "string"


def tag_of(types: list[Any]) -> tuple[str | None, list[tuple[Any, Any]]]:
    """
    Return the member by which values of these *types* differ, and its values, each with the type.

    That is a member that has a Literal in all classes, and other values in each. None, if there is no such member.
    """
    classes = [
        inner for inner, _ in map(unannotated, types) if has_fields(inner) and not pydantic_models.is_model(inner)
    ]
    by_class = [{f.member: f.type for f in fields_of(cls) if get_origin(f.type) is Literal} for cls in classes]
    for member in by_class[0] if len(by_class) > 1 else ():
        if all(member in literals for literals in by_class):
            tagged = [
                (value, cls)
                for cls, literals in zip(classes, by_class, strict=True)
                for value, _ in literal_values(literals[member])
            ]
            if len({repr(value) for value, _ in tagged}) == len(tagged):
                return member, tagged
    return None, []
