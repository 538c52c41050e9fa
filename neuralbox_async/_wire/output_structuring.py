"""
The structure of output types: from JSON values to values of a type, strictly, by cattrs.

A value of another JSON type is never converted: "5" and true are no integers. As in JSON Schema, 5 is also a number
with a fraction, and 5.0 is also an integer.
"""

from __future__ import annotations

import collections
import functools
import inspect
import itertools
from collections.abc import Iterable
from types import GenericAlias
from typing import (
    Any,
    Final,
    Literal,
    NewType,
    NotRequired,
    TypedDict,
    TypeVar,
    cast,
    get_args,
    get_origin,
)

from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire import json, output_memory, pydantic_models
from neuralbox_async._wire.output_bounds import NO_BOUNDS, Bounds, bounds_of
from neuralbox_async._wire.output_fields import Field, changes_arguments, fields_of
from neuralbox_async._wire.output_hooks import Factories, Hooks, is_scalar
from neuralbox_async._wire.output_kinds import (
    ARRAYS,
    OBJECTS,
    has_fields,
    is_alias,
    is_enum,
    is_named_tuple,
    is_typed_dict,
    is_union,
    literal_values,
    same_json,
    unannotated,
    value_of_alias,
)
from neuralbox_async._wire.output_problems import MAX_PROBLEMS, count_of, first_problems
from neuralbox_async._wire.output_scalars import SCALAR_HOOKS, Hook, MismatchError, mismatch
from neuralbox_async._wire.output_unions import union_hook


class Structuring:
    """The function from JSON values to values of the type *tp*."""

    def __init__(self, tp: Any) -> None:
        self._type = tp
        self._is_model = pydantic_models.is_model(tp)

    @functools.cached_property
    def _hooks(self) -> Hooks:
        return _hooks(None)

    @functools.cached_property
    def _fast(self) -> Hook:
        """The hook that stops at the first problem."""
        return self._hooks.made(self._type)

    @functools.cached_property
    def _detailed(self) -> Hook:
        """The hook that finds all problems, in twice the time."""
        return _hooks(self._hooks).made(self._type)

    def attempt(self, value: Any) -> Any:
        """Return the JSON *value* as one of the type. Raises any exception if it is none."""
        outer = output_memory.begin()
        try:
            return self._fast(value, self._type)
        finally:
            output_memory.end(outer)

    def __call__(self, value: Any) -> Any:
        """Return the JSON *value* as one of the type. Raises `InvalidOutputError`."""
        outer = output_memory.begin()
        try:
            if not self._is_model:  # pydantic finds all problems at once
                try:
                    return self._fast(value, self._type)
                except Exception:  # noqa: BLE001, S110 - of cattrs, or of the user's own class
                    pass
            try:
                return self._detailed(value, self._type)
            except Exception as error:  # noqa: BLE001 - the same
                raise InvalidOutputError(first_problems(error)) from None
        finally:
            output_memory.end(outer)


# ------------------------------------------------------------------------------------------------------------- hooks


def _hooks(fast: Hooks | None) -> Hooks:
    """Return the hooks of output types; with the *fast* ones, those that report all problems with their paths."""
    from cattrs import Converter

    return Hooks(Converter(detailed_validation=fast is not None), _FACTORIES, fast)


def _is_any(tp: Any) -> bool:
    return tp is Any or tp is object or isinstance(tp, TypeVar)


def _any(_tp: Any, hooks: Hooks) -> Hook:
    # A constructor that changes its argument and fails would change it for the next alternative, too.
    return lambda value, _tp: _copied(value) if hooks.changes_arguments else value


def _copied(value: Any) -> Any:
    if not _is_container(value) or not output_memory.may_copy(value):
        return value
    containers: list[Any] = [[value]]
    for container in containers:  # not recursive: JSON may be nested more deeply than Python's stack
        for key in _steps_of(container):
            if _is_container(part := container[key]):
                container[key] = part.copy()
                containers.append(container[key])
    return containers[0][0]


def _steps_of(container: Any) -> Iterable[Any]:
    return list(container) if json.is_object(container) else range(len(container))


def _is_container(value: Any) -> bool:
    return json.is_object(value) or json.is_array(value)


def _annotated(tp: Any, hooks: Hooks) -> Hook:
    inner, metadata = unannotated(tp)
    return _bounded(inner, bounds_of(metadata), hooks)


def _bounded(tp: Any, bounds: Bounds, hooks: Hooks) -> Hook:
    structure = hooks.of(tp)

    def hook(value: Any, _tp: Any) -> Any:
        structured = structure(value, tp)
        if (reason := bounds.problem_of(value)) is not None:
            raise MismatchError(reason)
        return structured

    return hook


def _class(tp: Any, hooks: Hooks) -> Hook:
    import cattrs.cols  # pyright: ignore[reportUnusedImport]
    import cattrs.gen.typeddicts  # pyright: ignore[reportUnusedImport]

    library = cast("Any", cattrs)  # type checkers do not know which of its parameters are overrides of fields
    detailed, converter = hooks.is_detailed, hooks.converter
    if changes_arguments(tp):
        for each in (hooks, hooks.fast or hooks):
            each.changes_arguments = True
    # Of all fields: cattrs resolves fewer annotations than `fields_of`, by which the schema is made.
    overrides = {field.name: library.gen.override(struct_hook=_field_hook(field, hooks)) for field in fields_of(tp)}
    # Of the fast converter, whose errors nobody reads: cattrs makes sets of each value (benchmark scenario `parse`).
    names = frozenset[str]()
    structure: Any
    if is_named_tuple(tp):
        is_resolved = inspect.get_annotations(tp).keys() >= set(tp._fields) and not getattr(tp, "__parameters__", ())
        cls = tp if is_resolved else _resolved_named_tuple(tp)
        structure = library.cols.namedtuple_dict_structure_factory(cls, converter, detailed, True, **overrides)  # noqa: FBT003
        if cls is not tp:
            structure = functools.partial(_structure_generic, structure, cls)
    elif is_typed_dict(tp):
        # cattrs does not see Required and NotRequired in annotations that are strings.
        types = {field.member: Any if field.required else NotRequired[Any] for field in fields_of(tp)}
        structure = library.gen.typeddicts.make_dict_structure_fn(
            cast("Any", TypedDict)("Resolved", types),
            converter,
            _cattrs_forbid_extra_keys=True,
            _cattrs_detailed_validation=detailed,
            **overrides,
        )
    else:
        # Each field has its hook. cattrs evaluates the type arguments all the same, and has no support for variables.
        cls = get_origin(tp) or tp
        if count := len(getattr(cls, "__parameters__", ())):
            cls = cls[(Any,) * count]
        names = frozenset[str]() if detailed else frozenset(field.member for field in fields_of(tp))
        structure = library.gen.make_dict_structure_fn(
            cls,
            converter,
            _cattrs_forbid_extra_keys=detailed or not names,
            _cattrs_use_alias=True,
            _cattrs_detailed_validation=detailed,
            **overrides,
        )

    knows_all: Any = names.issuperset if names else None

    def hook(value: Any, _tp: Any) -> Any:
        if type(value) is not dict:
            mismatch("an object", value)
        if knows_all is not None and not knows_all(value):
            raise MismatchError("there are members without a field")
        return structure(value, tp)

    return hook


def _resolved_named_tuple(tp: Any) -> Any:
    """Return the NamedTuple *tp* with all annotations, and without type arguments, for which cattrs has no support."""
    fields, defaults = fields_of(tp), tp._field_defaults.values()
    cls = cast("Any", collections).namedtuple("Resolved", [field.name for field in fields], defaults=defaults)
    cls.__annotations__ = {field.name: Any for field in fields}
    return cls


def _structure_generic(structure: Hook, cls: Any, value: Any, tp: Any) -> Any:
    return tp(*structure(value, cls))


def _field_hook(field: Field, hooks: Hooks) -> Hook:
    if field.bounds != NO_BOUNDS:
        return _bounded(field.type, field.bounds, hooks)
    return hooks.of(field.type)


def _collected(
    steps: Iterable[Any], values: Iterable[Any], items: Iterable[tuple[Hook, Any]], hooks: Hooks, tp: Any
) -> list[Any]:
    """Return the structured *values* of a collection *tp*, each with the *step* to it, and its hook and type."""
    if not hooks.is_detailed:
        return [structure(value, item_type) for value, (structure, item_type) in zip(values, items, strict=False)]
    import cattrs.errors

    library = cast("Any", cattrs.errors)  # type checkers take its constructors for those of the base classes
    structured: list[Any] = []
    errors: list[Exception] = []
    count = 0
    for step, value, (structure, item_type) in zip(steps, values, items, strict=False):
        try:
            structured.append(structure(value, item_type))
        except Exception as error:  # noqa: BLE001 - of cattrs, or of the user's own class
            error.add_note(library.IterableValidationNote("", step, item_type))  # its text is not read
            errors.append(error.with_traceback(None))  # whose frames lead back to it
            count += count_of(error)
            if count >= MAX_PROBLEMS:
                break
    if errors:
        raise library.IterableValidationError("", errors, tp)
    return structured


_PLAIN: Final = frozenset({str, int, bool})  # whose values are those of JSON


def _array(tp: Any, hooks: Hooks) -> Hook:
    build, (item_type,) = ARRAYS[get_origin(tp) or tp], get_args(tp) or (Any,)
    structure, is_fast = hooks.of(item_type), not hooks.is_detailed
    is_plain = item_type in _PLAIN if is_scalar(item_type) else False
    item_types = {item_type} if is_plain else set[Any]()

    def hook(value: list[Any], _tp: Any) -> Any:
        if type(value) is not list:
            mismatch("an array", value)
        if is_fast:
            if is_plain and item_types.issuperset(map(type, value)):
                return build(value)
            return build([structure(item, item_type) for item in value])
        return build(_collected(itertools.count(), value, itertools.repeat((structure, item_type)), hooks, tp))

    return hook


def _tuple(tp: Any, hooks: Hooks) -> Hook:
    types = get_args(tp)
    if tp is tuple or (len(types) == 2 and types[1] is ...):
        of_list = _array(GenericAlias(list, types[0]) if types else list, hooks)
        return lambda value, _tp: tuple(of_list(value, _tp))
    items = [(hooks.of(item_type), item_type) for item_type in types]

    def hook(value: Any, _tp: Any) -> Any:
        if not json.is_array(value):
            mismatch("an array", value)
        if len(value) != len(types):
            raise MismatchError(f"expected an array of {len(types)} items, got {len(value)}")
        return tuple(_collected(itertools.count(), value, items, hooks, tp))

    return hook


def _mapping(tp: Any, hooks: Hooks) -> Hook:
    _, value_type = get_args(tp) or (str, Any)
    item = hooks.of(value_type), value_type

    def hook(value: Any, _tp: Any) -> Any:
        if not json.is_object(value):
            mismatch("an object", value)
        values = _collected(value, value.values(), itertools.repeat(item), hooks, tp)
        return dict(zip(value, values, strict=True))

    return hook


def _choice(tp: Any) -> Hook:
    pairs = literal_values(tp)
    expected = ", ".join(repr(value) for value, _ in pairs)
    expected = f"one of {expected}" if len(pairs) > 1 else expected

    def hook(value: Any, _tp: Any) -> Any:
        for choice, member in pairs:
            if same_json(choice, value):
                return member
        return mismatch(expected, value)

    return hook


def _origin(tp: Any) -> Any:
    return get_origin(tp) or tp


# In this order: a pydantic dataclass is also a class with fields.
_FACTORIES: Final[Factories] = (
    (is_scalar, lambda tp, _hooks: SCALAR_HOOKS[tp]),
    (_is_any, _any),
    (pydantic_models.is_model, lambda _tp, _hooks: pydantic_models.structure),
    (lambda tp: unannotated(tp)[1] != (), _annotated),
    (lambda tp: _origin(tp) is Literal or is_enum(tp), lambda tp, _hooks: _choice(tp)),
    (has_fields, _class),
    (is_union, union_hook),
    (lambda tp: _origin(tp) is tuple, _tuple),
    (lambda tp: _origin(tp) in ARRAYS, _array),
    (lambda tp: _origin(tp) in OBJECTS, _mapping),
    (is_alias, lambda tp, hooks: hooks.of(value_of_alias(tp))),
    (lambda tp: isinstance(tp, NewType), lambda tp, hooks: hooks.of(tp.__supertype__)),
)
