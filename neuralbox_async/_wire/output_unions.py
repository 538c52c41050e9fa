"""The structure of unions: the first type that a value fits, or the one that its tag names."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, get_args

from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire import json
from neuralbox_async._wire.output_fields import tag_of
from neuralbox_async._wire.output_kinds import json_types_of, same_json, unannotated
from neuralbox_async._wire.output_problems import first_problems
from neuralbox_async._wire.output_scalars import Hook, mismatch

if TYPE_CHECKING:
    from cattrs import Converter

_NO_TYPE: Final = Problem("$", "it fits no type of the union")
_MAX_EXPLAINED: Final = 500  # parts of a value that fit no type, whose problems are found: the event loop waits for it


def union_hook(tp: Any, converter: Converter, fast: Converter | None) -> Hook:
    """Return the hook of the union *tp*. *fast*: the converter that stops at the first problem, None if that is it."""
    members = [(member, json_types_of(member)) for member in get_args(tp)]
    expected = " or ".join(dict.fromkeys(json_noun for _, types in members for json_noun in sorted(types)))
    tag, by_class = tag_of([member for member, _ in members])
    tagged = [(choice, member) for choice, cls in by_class for member, _ in members if unannotated(member)[0] == cls]
    with_tag = [member for _, member in tagged]

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
            structure = _first if fast is None else functools.partial(_explained, fast, tp)
            return _once((id(value), id(members)), lambda: structure(fitting, value, converter))
        return _first(fitting, value, converter)

    return hook


def _explained(fast: Converter, tp: Any, types: list[Any], value: Any, converter: Converter) -> Any:
    """Return the *value* as the union *tp*. Raises the error with the fewest problems, by the detailed *converter*."""
    # The detailed one is ten times slower where the first types do not fit: it is for what fits none.
    with suppress(Exception):
        return fast.structure(value, tp)
    _tried.explained += 1
    if _tried.explained > _MAX_EXPLAINED:
        raise InvalidOutputError((_NO_TYPE,))
    return _first(types, value, converter)


def _first(types: list[Any], value: Any, converter: Converter) -> Any:
    """Return the *value* as the first of the *types* that it fits. Raises the error with the fewest problems."""
    if len(types) == 1:
        return converter.structure(value, types[0])
    best: tuple[Problem, ...] | None = None
    for tp in types:
        try:
            return converter.structure(value, tp)
        except Exception as error:  # noqa: BLE001 - of cattrs, or of the user's own class
            if converter.detailed_validation:
                problems = first_problems(error)
                best = problems if best is None or len(problems) < len(best) else best
    raise InvalidOutputError(best or (_NO_TYPE,))


class _Tried(threading.local):
    """
    What the arrays and objects in the value of a union are as values of unions, by their ids and that of the union.

    Otherwise each level of a recursive union would try all below it once for each of its types: exponentially often.
    *is_active*: an outer union will forget them, when others may have the same ids. *explained*: how many parts of the
    whole value the detailed converter has tried, which fit no type.
    """

    def __init__(self) -> None:
        self.results: dict[tuple[int, int], Any] = {}
        self.is_active = False
        self.explained = 0


_tried = _Tried()


def begin_explaining() -> None:
    """Begin with the problems of another value."""
    _tried.explained = 0


def _once(key: tuple[int, int], structure: Callable[[], Any]) -> Any:
    """Return the result of *structure*, or raise its error, as at the first time with this *key*."""
    if not _tried.is_active:
        _tried.is_active = True
        try:
            return structure()
        finally:
            _tried.is_active = False
            _tried.results.clear()
    results = _tried.results
    if key not in results:
        try:
            results[key] = structure()
        except InvalidOutputError as error:
            results[key] = error
    if isinstance(result := results[key], InvalidOutputError):
        raise InvalidOutputError(result.problems)  # another one: cattrs adds notes
    return result


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
