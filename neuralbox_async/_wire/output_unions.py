"""The structure of unions: the first type that a value fits, or the one that its tag names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, get_args

from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire import json, output_memory, pydantic_models
from neuralbox_async._wire.json_reader import ExactFloat
from neuralbox_async._wire.output_fields import fields_of, tag_of
from neuralbox_async._wire.output_kinds import has_fields, is_enum, json_types_of, same_json, unannotated
from neuralbox_async._wire.output_memory import Fit, unless_refused
from neuralbox_async._wire.output_problems import first_problems
from neuralbox_async._wire.output_scalars import Hook, mismatch

if TYPE_CHECKING:
    from neuralbox_async._wire.output_hooks import Hooks

_NO_TYPE: Final = Problem("$", "it fits no type of the union")
_MAX_EXPLAINED: Final = 500  # parts of a value that fit no type, whose problems are found: the event loop waits for it


def union_hook(tp: Any, hooks: Hooks) -> Hook:
    """Return the hook of the union *tp*."""
    return _Union(tp, hooks).structure


class _Union:
    """The *structure* of the union *tp*."""

    def __init__(self, tp: Any, hooks: Hooks) -> None:
        self._type, self._hooks = tp, hooks
        self._members = [(member, json_types_of(member)) for member in get_args(tp)]
        self._structures = {id(member): hooks.of(member) for member, _ in self._members}
        self._shapes = {id(member): _shape_of(member) for member, _ in self._members}
        self._expected = " or ".join(dict.fromkeys(noun for _, types in self._members for noun in sorted(types)))
        self._tag, by_class = tag_of([member for member, _ in self._members])
        self._tagged = [
            (choice, member) for choice, cls in by_class for member, _ in self._members if unannotated(member)[0] == cls
        ]
        self._with_tag = [member for _, member in self._tagged]
        self._fast = None if hooks.fast is None else hooks.fast.of(tp)

    def structure(self, value: Any, _tp: Any) -> Any:
        """Return the JSON *value* as the first type that it fits."""
        types = _json_types(value)
        fitting = [member for member, accepted in self._members if accepted & types]
        if self._tag is not None and json.is_object(value) and self._tag in value:
            named = [member for choice, member in self._tagged if same_json(choice, value[self._tag])]
            if named:  # other classes do not fit, but a dict may
                fitting = [member for member in fitting if member in named or member not in self._with_tag]
        if not fitting:
            mismatch(self._expected, value)
        if isinstance(value, float):
            fitting.sort(key=lambda member: unannotated(member)[0] is int)  # 5.0 is rather a float
        if len(fitting) > 1 and (json.is_array(value) or json.is_object(value)):
            function = self._fitted if self._fast is None else self._explained
            return unless_refused((id(value), id(self)), lambda: function(fitting, value))
        return self._first(fitting, value)

    def _fitted(self, types: list[Any], value: Any) -> Any:
        """Return the *value* as the first of the *types* that it fits, which is remembered."""
        memory, key = output_memory.memory(), (id(value), id(self))
        if (fit := memory.fits.get(key)) is not None:
            return self._copied(fit, value) if self._hooks.changes_arguments else fit.value
        for member in types:
            if _has_shape(value, self._shapes[id(member)]):
                with suppress(Exception):
                    found = self._structures[id(member)](value, member)
                    memory.fits[key] = Fit(member, found)
                    return found
        raise InvalidOutputError((_NO_TYPE,))

    def _copied(self, fit: Fit, value: Any) -> Any:
        """Return what *value* fits, made once more: the constructor of a type that failed may have changed it."""
        memory, structure = output_memory.memory(), self._structures[id(fit.member)]
        if memory.is_copying:  # a part of what is counted
            return structure(value, fit.member)
        if not output_memory.may_copy(value):
            return fit.value
        memory.is_copying = True
        try:
            return structure(value, fit.member)
        finally:
            memory.is_copying = False

    def _explained(self, types: list[Any], value: Any) -> Any:
        """Return the *value*. Raises the error with the fewest problems."""
        # The detailed hooks are ten times slower where the first types do not fit: they are for what fits none.
        if self._fast is not None:
            with suppress(Exception):
                return self._fast(value, self._type)
        if output_memory.explain() > _MAX_EXPLAINED:
            raise InvalidOutputError((_NO_TYPE,))
        return self._first(types, value)

    def _first(self, types: list[Any], value: Any) -> Any:
        """Return the *value* as the first of the *types* that it fits. Raises the error with the fewest problems."""
        if len(types) == 1:
            return self._structures[id(types[0])](value, types[0])
        best: InvalidOutputError | None = None
        for member in types:
            try:
                return self._structures[id(member)](value, member)
            except Exception as error:  # noqa: BLE001 - of cattrs, or of the user's own class
                if self._hooks.is_detailed:
                    if isinstance(error, InvalidOutputError):
                        found = error.copy()
                    else:
                        found = InvalidOutputError(first_problems(error))
                    best = found if best is None or found.count < best.count else best
        raise InvalidOutputError((_NO_TYPE,) if best is None else first_problems(best))


_Shape = tuple[frozenset[str], Mapping[str, frozenset[type]]]


def _shape_of(tp: Any) -> _Shape | None:
    """Return the required members of the objects of a class, and the classes of JSON of all; None for other types."""
    inner, _ = unannotated(tp)
    if not has_fields(inner) or pydantic_models.is_model(inner) or is_enum(inner):
        return None
    fields = fields_of(inner)
    classes = {field.member: _classes_of(json_types_of(field.type)) for field in fields}
    return frozenset(field.member for field in fields if field.required), classes


def _classes_of(json_types: frozenset[str]) -> frozenset[type]:
    known = {cls for cls, names in _JSON_TYPES.items() if names & json_types}
    return frozenset(known | {float, ExactFloat} if int in known else known)


def _has_shape(value: Any, shape: _Shape | None) -> bool:
    """Return whether *value* may be of a class with this *shape*; others would fail after a long member was read."""
    if shape is None:
        return True
    required, classes = shape
    if not required <= value.keys():
        return False
    for name, part in value.items():
        accepted = classes.get(name)
        if accepted is None or type(part) not in accepted:
            return False
    return True


_NUMBER: Final = frozenset({"number"})
_INTEGER: Final = frozenset({"integer", "number"})
_JSON_TYPES: Final[Mapping[type, frozenset[str]]] = {
    type(None): frozenset({"null"}),
    bool: frozenset({"boolean"}),
    int: _INTEGER,
    str: frozenset({"string"}),
    list: frozenset({"array"}),
    dict: frozenset({"object"}),
}


def _json_types(value: object) -> frozenset[str]:
    known = _JSON_TYPES.get(type(value))
    return known or (_INTEGER if isinstance(value, float) and value.is_integer() else _NUMBER)
