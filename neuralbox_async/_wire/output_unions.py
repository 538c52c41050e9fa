"""The structure of unions: the first type that a value fits, or the one that its tag names."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire import json, output_memory
from neuralbox_async._wire.output_fields import tag_of
from neuralbox_async._wire.output_kinds import json_types_of, same_json, unannotated
from neuralbox_async._wire.output_memory import once
from neuralbox_async._wire.output_problems import first_problems
from neuralbox_async._wire.output_scalars import Hook, mismatch

if TYPE_CHECKING:
    from neuralbox_async._wire.output_hooks import Hooks

_NO_TYPE: Final = Problem("$", "it fits no type of the union")
_MAX_EXPLAINED: Final = 500  # parts of a value that fit no type, whose problems are found: the event loop waits for it


def union_hook(tp: Any, hooks: Hooks) -> Hook:
    """Return the hook of the union *tp*."""
    members = [(member, json_types_of(member)) for member in get_args(tp)]
    structures = {id(member): hooks.of(member) for member, _ in members}
    expected = " or ".join(dict.fromkeys(json_noun for _, types in members for json_noun in sorted(types)))
    tag, by_class = tag_of([member for member, _ in members])
    tagged = [(choice, member) for choice, cls in by_class for member, _ in members if unannotated(member)[0] == cls]
    with_tag = [member for _, member in tagged]
    fast = None if hooks.fast is None else hooks.fast.of(tp)

    def first(types: list[Any], value: Any) -> Any:
        return _first([(structures[id(member)], member) for member in types], value, hooks)

    def explained(types: list[Any], value: Any) -> Any:
        """Return the *value*. Raises the error with the fewest problems."""
        # The detailed hooks are ten times slower where the first types do not fit: they are for what fits none.
        with suppress(Exception):
            return cast("Hook", fast)(value, tp)
        if output_memory.explain() > _MAX_EXPLAINED:
            raise InvalidOutputError((_NO_TYPE,))
        return first(types, value)

    structure = first if fast is None else explained

    def hook(value: Any, _tp: Any) -> Any:
        types = _json_types(value)
        fitting = [member for member, accepted in members if accepted & types]
        if tag is not None and json.is_object(value) and tag in value:
            named = [member for choice, member in tagged if same_json(choice, value[tag])]
            if named:  # other classes do not fit, but a dict may
                fitting = [member for member in fitting if member in named or member not in with_tag]
        if not fitting:
            mismatch(expected, value)
        if isinstance(value, float):
            fitting.sort(key=lambda member: unannotated(member)[0] is int)  # 5.0 is rather a float
        if len(fitting) > 1 and (json.is_array(value) or json.is_object(value)):
            return once((id(value), id(members)), lambda: structure(fitting, value))
        return first(fitting, value)

    return hook


def _first(types: list[tuple[Hook, Any]], value: Any, hooks: Hooks) -> Any:
    """Return the *value* as the first of the *types* that it fits. Raises the error with the fewest problems."""
    if len(types) == 1:
        ((structure, tp),) = types
        return structure(value, tp)
    best: InvalidOutputError | None = None
    for structure, tp in types:
        try:
            return structure(value, tp)
        except Exception as error:  # noqa: BLE001 - of cattrs, or of the user's own class
            if hooks.is_detailed:
                if isinstance(error, InvalidOutputError):
                    found = error.copy()
                else:
                    found = InvalidOutputError(first_problems(error))
                best = found if best is None or found.count < best.count else best
    raise InvalidOutputError((_NO_TYPE,) if best is None else first_problems(best))


def _json_types(value: object) -> set[str]:
    if value is None:
        return {"null"}
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int):
        return {"integer", "number"}
    if isinstance(value, float):
        return {"integer", "number"} if value.is_integer() else {"number"}
    return {"string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"}
