"""
The structure of output types: from JSON values to values of a type, strictly, by cattrs.

A value of another JSON type is never converted: "5" and true are no integers. As in JSON Schema, 5 is also a number
with a fraction, and 5.0 is also an integer.
"""

from __future__ import annotations

import collections
import enum
import functools
import itertools
from collections.abc import Callable, Iterable
from types import GenericAlias
from typing import (
    TYPE_CHECKING,
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
from neuralbox_async._wire import json, pydantic_models
from neuralbox_async._wire.output_bounds import NO_BOUNDS, Bounds, bounds_of
from neuralbox_async._wire.output_fields import Field, fields_of
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
from neuralbox_async._wire.output_unions import begin_explaining, union_hook

if TYPE_CHECKING:
    from cattrs import Converter


class Structuring:
    """The function from JSON values to values of the type *tp*."""

    def __init__(self, tp: Any) -> None:
        self._type = tp
        self._is_model = pydantic_models.is_model(tp)

    @functools.cached_property
    def _converter(self) -> Converter:
        """The converter that stops at the first problem."""
        return _converter(None)

    @functools.cached_property
    def _fast(self) -> Hook:
        return self._converter.get_structure_hook(self._type)

    @functools.cached_property
    def _detailed(self) -> Converter:
        """The converter that finds all problems, in twice the time."""
        return _converter(self._converter)

    def __call__(self, value: Any) -> Any:
        """Return the JSON *value* as one of the type. Raises `InvalidOutputError`."""
        if not self._is_model:  # pydantic finds all problems at once
            try:
                return self._fast(value, self._type)
            except Exception:  # noqa: BLE001, S110 - of cattrs, or of the user's own class
                pass
        begin_explaining()
        try:
            return self._detailed.structure(value, self._type)
        except Exception as error:  # noqa: BLE001 - the same
            raise InvalidOutputError(first_problems(error)) from None


# ------------------------------------------------------------------------------------------------------------- hooks


def _converter(fast: Converter | None) -> Converter:
    """Return a converter of output types; with the *fast* one, one that reports all problems with their paths."""
    from cattrs import Converter

    made = Converter(detailed_validation=fast is not None)
    # cattrs finds the hooks of these by the base classes of a type, so before those of its subclasses, such as enums;
    # earlier releases have one for Enum itself.
    for cls in (str, int, float, enum.Enum):
        made.register_structure_hook(cls, _structure_scalar)
    factories: dict[Callable[[Any], bool], Callable[[Any, Converter], Hook]] = {
        _is_any: lambda _tp, _converter: _any,
        _is_scalar: lambda tp, _converter: SCALAR_HOOKS[tp],
        lambda tp: isinstance(tp, NewType): lambda tp, converter: _other(tp.__supertype__, converter),
        is_alias: lambda tp, converter: _other(value_of_alias(tp), converter),
        lambda tp: (get_origin(tp) or tp) in OBJECTS: _mapping,
        lambda tp: (get_origin(tp) or tp) in ARRAYS: _array,
        lambda tp: (get_origin(tp) or tp) is tuple: _tuple,
        is_union: lambda tp, converter: union_hook(tp, converter, fast),
        has_fields: _class,
        lambda tp: get_origin(tp) is Literal or is_enum(tp): lambda tp, _converter: _choice(tp),
        lambda tp: unannotated(tp)[1] != (): _annotated,
        pydantic_models.is_model: lambda _tp, converter: functools.partial(
            pydantic_models.structure, detailed=converter.detailed_validation
        ),
    }
    for predicate, factory in factories.items():
        made.register_structure_hook_factory(predicate, factory)
    return made


def _is_any(tp: Any) -> bool:
    return tp is Any or tp is object or isinstance(tp, TypeVar)


def _is_scalar(tp: Any) -> bool:
    return tp is None or (isinstance(tp, type) and tp in SCALAR_HOOKS)


def _any(value: Any, _tp: Any) -> Any:
    return value


def _other(tp: Any, converter: Converter) -> Hook:
    hook: Hook | None = None

    def structure(value: Any, _tp: Any) -> Any:
        nonlocal hook
        if hook is None:  # not before: a class may have a member of its own type
            hook = converter.get_structure_hook(tp)
        return hook(value, tp)

    return structure


def _hook_of(tp: Any, converter: Converter) -> Hook:
    """Return the hook of *tp*."""
    return SCALAR_HOOKS[tp] if _is_scalar(tp) else _other(tp, converter)


def _annotated(tp: Any, converter: Converter) -> Hook:
    inner, metadata = unannotated(tp)
    return _bounded(inner, bounds_of(metadata), converter)


def _bounded(tp: Any, bounds: Bounds, converter: Converter) -> Hook:
    def hook(value: Any, _tp: Any) -> Any:
        structured = converter.structure(value, tp)
        if (reason := bounds.problem_of(value)) is not None:
            raise MismatchError(reason)
        return structured

    return hook


def _class(tp: Any, converter: Converter) -> Hook:
    import cattrs.cols  # pyright: ignore[reportUnusedImport]
    import cattrs.gen.typeddicts  # pyright: ignore[reportUnusedImport]

    library = cast("Any", cattrs)  # type checkers do not know which of its parameters are overrides of fields
    detailed = converter.detailed_validation
    # Of all fields: cattrs resolves fewer annotations than `fields_of`, by which the schema is made.
    overrides = {field.name: library.gen.override(struct_hook=_field_hook(field, converter)) for field in fields_of(tp)}
    # Of the fast converter, whose errors nobody reads: cattrs makes sets of each value (benchmark scenario `parse`).
    names = frozenset[str]()
    structure: Any
    if is_named_tuple(tp):
        cls = _resolved_named_tuple(tp) if get_args(tp) else tp
        structure = library.cols.namedtuple_dict_structure_factory(cls, converter, detailed, True, **overrides)  # noqa: FBT003
        if cls is not tp:
            structure = functools.partial(_structure_generic, structure, cls)
    elif is_typed_dict(tp):
        # cattrs does not see Required and NotRequired in annotations that are strings.
        types = {field.member: field.type if field.required else NotRequired[field.type] for field in fields_of(tp)}
        structure = library.gen.typeddicts.make_dict_structure_fn(
            cast("Any", TypedDict)("Resolved", types),
            converter,
            _cattrs_forbid_extra_keys=True,
            _cattrs_detailed_validation=detailed,
            **overrides,
        )
    else:
        names = frozenset[str]() if detailed else frozenset(field.member for field in fields_of(tp))
        structure = library.gen.make_dict_structure_fn(
            tp,
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
    """Return the NamedTuple *tp* without its type arguments, for which cattrs has no support."""
    fields, defaults = fields_of(tp), get_origin(tp)._field_defaults.values()
    cls = cast("Any", collections).namedtuple("Resolved", [field.name for field in fields], defaults=defaults)
    cls.__annotations__ = {field.name: field.type for field in fields}
    return cls


def _structure_generic(structure: Hook, cls: Any, value: Any, tp: Any) -> Any:
    return tp(*structure(value, cls))


def _field_hook(field: Field, converter: Converter) -> Hook:
    if field.bounds != NO_BOUNDS:
        return _bounded(field.type, field.bounds, converter)
    return _hook_of(field.type, converter)


def _collected(
    steps: Iterable[Any], values: Iterable[Any], types: Iterable[Any], converter: Converter, tp: Any
) -> list[Any]:
    """Return the structured *values* of a collection *tp*, each with the *step* to it, and its type."""
    if not converter.detailed_validation:
        return list(map(converter.structure, values, types))
    import cattrs.errors

    library = cast("Any", cattrs.errors)  # type checkers take its constructors for those of the base classes
    structured: list[Any] = []
    errors: list[Exception] = []
    count = 0
    for step, value, item_type in zip(steps, values, types, strict=False):
        try:
            structured.append(converter.structure(value, item_type))
        except Exception as error:  # noqa: BLE001 - of cattrs, or of the user's own class
            error.add_note(library.IterableValidationNote(f"Structuring {tp} @ index {step}", step, item_type))
            errors.append(error)
            count += count_of(error)
            if count >= MAX_PROBLEMS:
                break
    if errors:
        raise library.IterableValidationError(f"While structuring {tp}", errors, tp)
    return structured


_PLAIN: Final = frozenset({str, int, bool})  # whose values are those of JSON


def _array(tp: Any, converter: Converter) -> Hook:
    build, (item_type,) = ARRAYS[get_origin(tp) or tp], get_args(tp) or (Any,)
    structure, is_fast = _hook_of(item_type, converter), not converter.detailed_validation
    is_plain = item_type in _PLAIN if _is_scalar(item_type) else False
    item_types = {item_type} if is_plain else set[Any]()

    def hook(value: list[Any], _tp: Any) -> Any:
        if type(value) is not list:
            mismatch("an array", value)
        if is_fast:
            if is_plain and item_types.issuperset(map(type, value)):
                return build(value)
            return build([structure(item, item_type) for item in value])
        return build(_collected(itertools.count(), value, itertools.repeat(item_type), converter, tp))

    return hook


def _tuple(tp: Any, converter: Converter) -> Hook:
    types = get_args(tp)
    if tp is tuple or (len(types) == 2 and types[1] is ...):
        of_list = _array(GenericAlias(list, types[0]) if types else list, converter)
        return lambda value, _tp: tuple(of_list(value, _tp))

    def hook(value: Any, _tp: Any) -> Any:
        if not json.is_array(value):
            mismatch("an array", value)
        if len(value) != len(types):
            raise MismatchError(f"expected an array of {len(types)} items, got {len(value)}")
        return tuple(_collected(itertools.count(), value, types, converter, tp))

    return hook


def _mapping(tp: Any, converter: Converter) -> Hook:
    _, value_type = get_args(tp) or (str, Any)

    def hook(value: Any, _tp: Any) -> Any:
        if not json.is_object(value):
            mismatch("an object", value)
        values = _collected(value, value.values(), itertools.repeat(value_type), converter, tp)
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


def _structure_scalar(value: Any, tp: Any) -> Any:
    hook = SCALAR_HOOKS.get(tp)
    return (hook or _choice(tp))(value, tp)
