"""The fields of classes: what JSON Schema and the structure of a class are made of."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin

import attrs

from neuralbox_async._wire import pydantic_models
from neuralbox_async._wire.output_bounds import NO_BOUNDS, Bounds, bounds_of_validator
from neuralbox_async._wire.output_kinds import (
    as_written,
    has_default,
    has_fields,
    is_named_tuple,
    is_typed_dict,
    literal_values,
    substituted,
    unannotated,
    unsupported,
    variables_of,
)


@attrs.frozen(kw_only=True)
class Field:
    """A field of a class: its *name* as an attribute, the *member* of the JSON object, and what is known of it."""

    name: str
    member: str
    type: Any
    required: bool
    description: str | None = None
    bounds: Bounds = NO_BOUNDS


def fields_of(tp: Any) -> tuple[Field, ...]:
    """Return the fields of a class that `has_fields`, those that its constructor takes, in their order."""
    cls, arguments = get_origin(tp) or tp, get_args(tp)
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception as error:  # any error of evaluating the user's annotations
        raise unsupported(tp, f"its annotations cannot be evaluated: {error}") from error
    if inspect.isabstract(cls) or getattr(cls, "_is_protocol", False):
        raise unsupported(tp, "it is abstract")
    variables = _variables(cls, arguments)
    fields = tuple(_field_with(field, hints, variables) for field in _declared(cls))
    for field in fields:
        if field.name in _RESERVED or field.name.startswith("_cattrs_"):
            raise unsupported(tp, f"cattrs cannot structure a field that is called {field.name!r}")
    if not is_typed_dict(cls):
        _check_constructor(cls, fields)
    return fields


def _check_constructor(cls: type, fields: Sequence[Field]) -> None:
    """Raise `InvalidParameterError` if no value with all *fields* that are required can be made of *cls*."""
    members = {field.member for field in fields}
    required = {field.member for field in fields if field.required}
    try:
        parameters = inspect.signature(cls).parameters
    except (TypeError, ValueError) as error:
        raise unsupported(cls, f"the parameters of its constructor are unknown: {error}") from error
    is_variadic = any(parameter.kind in _VARIADIC for parameter in parameters.values())
    for name, parameter in parameters.items():
        if name not in members and parameter.default is parameter.empty and parameter.kind not in _VARIADIC:
            raise unsupported(cls, f"its constructor requires {name!r}, which is no field")
    if not is_variadic and (others := required - parameters.keys()):
        raise unsupported(cls, f"its constructor does not take the field {min(others)!r}")


def changes_arguments(tp: Any) -> bool:
    """
    Return whether the constructor of a class that `has_fields` may change its arguments.

    That is one that the user wrote, and one with a converter or a hook. A validator only checks.
    """
    cls = get_origin(tp) or tp
    if is_typed_dict(cls):
        return False
    if type(cls).__call__ is not type.__call__:
        return True
    if is_named_tuple(cls):
        made_in: Mapping[str, Any] = getattr(cls.__new__, "__globals__", {})
        return cls.__init__ is not object.__init__ or not str(made_in.get("__name__")).startswith("namedtuple_")
    if cls.__new__ is not object.__new__ or any(hasattr(cls, name) for name in _INIT_HOOKS):
        return True
    is_set_plainly = cls.__setattr__ is object.__setattr__ or _is_generated(cls.__setattr__)
    if not is_set_plainly or not _is_generated(cls.__init__):
        return True
    return not dataclasses.is_dataclass(cls) and any(
        a.converter is not None or getattr(a.default, "takes_self", False) for a in attrs.fields(cls)
    )


def _is_generated(function: Any) -> bool:
    """Return whether attrs or dataclasses made a method."""
    code: Any = getattr(function, "__code__", None)
    return code is not None and (
        code.co_qualname.startswith("__create_fn__.")
        or code.co_filename.startswith("<attrs generated ")
        or function.__module__ == "attr._make"  # that of all frozen classes
    )


def member_of(cls: Any, name: str) -> str:
    """Return the member of JSON objects that is for the attribute *name* of a class, of which no type is needed."""
    return next((field.member for field in _declared(cls) if field.name == name), name)


# The parameters of the functions of cattrs that take the names of fields as further parameters.
_RESERVED = frozenset({"attrs", "cl", "converter", "typevar_map"})
_INIT_HOOKS = ("__attrs_pre_init__", "__attrs_post_init__", "__post_init__")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _variables(cls: type, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Return the type arguments of the type variables of *cls*, and of the classes that it inherits from."""
    parameters: tuple[Any, ...] = getattr(cls, "__parameters__", ())
    if not arguments and not all(map(has_default, parameters)):
        raise unsupported(cls, "it has no type arguments")
    if not all(isinstance(parameter, TypeVar) for parameter in parameters):
        raise unsupported(cls, "its parameters are not all type variables")
    found = variables_of(parameters, arguments)
    classes: list[Any] = list(cls.__mro__)
    for each in classes:
        bases: tuple[Any, ...] = each.__dict__.get("__orig_bases__", ())
        for base in bases:
            origin = get_origin(base)
            if origin is not None and origin not in classes:  # of a TypedDict, of which no other class is a subclass
                classes.append(origin)
            of_base: tuple[Any, ...] = getattr(origin, "__parameters__", ())
            for parameter, given in zip(of_base, get_args(base), strict=False):
                argument = given if given is parameter else substituted(given, found)
                if given is not parameter and as_written(found.setdefault(parameter, argument)) != as_written(argument):
                    raise unsupported(cls, f"its base classes use {parameter} for two types")
    for each in classes:  # of base classes without type arguments
        found = variables_of(getattr(each, "__parameters__", ()), ()) | found
    return found


def _declared(cls: Any) -> Iterator[Field]:
    if attrs.has(cls):
        for a in attrs.fields(cls):
            if a.init:
                bounds = bounds_of_validator(a.validator) if a.converter is None else NO_BOUNDS
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
    tp, required, metadata = _unqualified(hints.get(field.name, field.type), required=field.required)
    if tp is None and field.type is None:
        tp = Any  # an attrs field without an annotation
    description = field.description or description_in(metadata)
    return attrs.evolve(field, type=substituted(tp, variables), required=required, description=description)


_QUALIFIERS = {"Required": True, "NotRequired": False, "ReadOnly": None, "Final": None}


def _unqualified(tp: Any, *, required: bool) -> tuple[Any, bool, tuple[Any, ...]]:
    """Return *tp* without qualifiers, whether it is required, and its metadata, which they may be in."""
    inner, metadata = unannotated(tp)
    # By their names: typing_extensions has some of its own.
    name = getattr(get_origin(inner), "_name", None)
    if name not in _QUALIFIERS:
        return tp, required, metadata
    is_required = _QUALIFIERS[name]
    tp, required, others = _unqualified(get_args(inner)[0], required=required if is_required is None else is_required)
    annotated = cast("Any", Annotated)[(tp, *metadata)] if metadata else tp
    return annotated, required, (*others, *metadata)


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
