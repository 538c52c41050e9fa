"""
The structure of JSON objects: from members on the wire to `Generation` and events, by the one cattrs converter.

Text, status and id are essential: a value of another type is an error. Any other member whose value is malformed is
left out and named in `problems`. The vendor's pages document two dialects and mixes of them, with other names for the
same member. Members are renamed *before* cattrs structures them: a member that is null, empty, absent or malformed
under its first name is looked up under the next. cattrs' default coercion, of ``None`` to ``"None"`` and of ``5.9`` to
``5``, is switched off.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast

import attrs

from neuralbox_async._errors import ResponseError
from neuralbox_async._types import ContentDelta, GenerateRequest, Generation, GenerationEnd, GenerationStart, Usage
from neuralbox_async._wire import json
from neuralbox_async._wire.requests import unstructure_request
from neuralbox_async._wire.surrogates import without_lone_surrogates

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")

# Each field of ours with its names on the wire, those of the vendor's first dialect before the second.
GENERATION_NAMES: dict[str, tuple[str, ...]] = {
    "id": ("id",),
    "status": ("status",),
    "model": ("model", "model_slug"),
    "content": ("content", "result_text"),
    "tokens_used": ("tokens_used", "tokens_spent"),
    "balance_remaining": ("balance_remaining",),
    "usage": ("usage",),
    "created_at": ("created_at",),
    "completed_at": ("completed_at",),
    "url": ("result_url", "url", "output_url"),
    "thumbnail_url": ("thumbnail_url",),
    "metadata": ("result_metadata", "metadata"),
    "error": ("error",),
    "progress": ("progress",),
    "eta_seconds": ("eta_seconds",),
    "processing_ms": ("processing_ms",),
    "finish_reason": ("finish_reason", "stop_reason"),
}
_FLAT_METADATA = ("duration", "duration_seconds", "width", "height")
_END_FIELDS = ("id", "tokens_used", "balance_remaining", "usage", "finish_reason")
_END_NAMES = {name: GENERATION_NAMES[name] for name in _END_FIELDS}
_START_NAMES = {name: GENERATION_NAMES[name] for name in ("id", "model")}
_ESSENTIAL = frozenset({"id", "status", "content", "result_text", "delta"})
_MAX_NAME_LENGTH = 100  # of a member in `problems`


def structure(members: Mapping[str, Any], cls: type[T], body: bytes, too_deep: Collection[str] = ()) -> T:
    """
    Return the *cls* that the JSON object *members* describes; *too_deep* names the members that were left out of it.

    Malformed members become None and are named in `problems`. Raises `ResponseError`, which keeps text and id, if an
    essential one is malformed.
    """
    try:
        if not too_deep:
            return converter().structure(members, cls)
    except Exception:  # noqa: BLE001, S110 - any error of cattrs or a hook, for values that come from outside
        pass
    malformed = {f"$.{name[:_MAX_NAME_LENGTH]}": "nested too deeply" for name in too_deep}
    readable = dict(members)
    path = _essential_in(malformed)
    while path is None:
        try:
            value = converter(detailed=True).structure(readable, cls)
        except Exception as error:  # noqa: BLE001 - as above
            found = _explain(readable, error)
            malformed |= found
            path = _essential_in(found) or (None if _remove(readable, found) else "$")
        else:
            return _with_problems(value, members, tuple(malformed))
    reason = malformed.get(path, "malformed")
    generation_id, text = id_in(members), text_in(members)
    raise ResponseError(f"{reason} at {path}", path=path, body=body, text=text, generation_id=generation_id)


def _essential_in(paths: Iterable[str]) -> str | None:
    return next((path for path in paths if path.removeprefix("$.") in _ESSENTIAL), None)


def _explain(members: Mapping[str, Any], error: Exception) -> dict[str, str]:
    """Return the paths of the malformed *members* that an *error* of the detailed converter names, with the reasons."""
    from cattrs import transform_error

    lines = (line.rpartition(" @ ") for line in transform_error(error, path="$", format_exception=_reason))
    return {_wire_path(members, path): reason for reason, _, path in lines}


def _reason(error: BaseException, _type: Any) -> str:
    return "a required member is missing" if isinstance(error, KeyError) else str(error)


def _wire_path(members: Mapping[str, Any], path: str) -> str:
    # The path has our names; the user sees those of the wire.
    root, _, rest = path.partition(".")
    field, dot, below = rest.partition(".")
    wire = next((name for name in GENERATION_NAMES.get(field, ()) if members.get(name) is not None), field)
    return f"{root}.{wire}{dot}{below}" if wire else path


def _remove(members: dict[str, Any], paths: Iterable[str]) -> bool:
    """Remove from *members* what is at these *paths*; return whether anything was there."""
    before = len(members)
    removed = False
    for path in paths:
        _, _, rest = path.partition(".")
        name, _, below = rest.partition(".")
        if below and json.is_object(inner := members.get(name)) and below in inner:
            members[name] = {other: value for other, value in inner.items() if other != below}
            removed = True
        elif not below:
            members.pop(name, None)
    return removed or len(members) < before


def _with_problems(value: T, members: Mapping[str, Any], problems: tuple[str, ...]) -> T:
    facts: dict[str, Any] = {"raw": members}
    if isinstance(value, Generation | GenerationStart | GenerationEnd):
        facts["problems"] = problems
    return attrs.evolve(cast("Any", value), **facts)  # type: ignore[no-any-return]


def text_in(members: Mapping[str, Any]) -> str:
    texts = (members.get(name) for name in GENERATION_NAMES["content"])
    return without_lone_surrogates(next((text for text in texts if isinstance(text, str) and text), ""))


def id_in(members: Mapping[str, Any]) -> str | int | None:
    generation_id = members.get("id")
    return generation_id if _is_id(generation_id) else None


class _WrongTypeError(ValueError):
    """A value of another JSON type than the documented one."""

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(f"expected {expected}, got {json.type_name(value)}")


def _str(value: object, _type: Any) -> str:
    if not isinstance(value, str):
        raise _WrongTypeError("a string", value)
    return value


def _count(value: object, _type: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one type of number: 3.0 is 3
    if json.is_count(value):
        return value
    raise _WrongTypeError("an integer", value)


def _bool(value: object, _type: Any) -> bool:
    if not isinstance(value, bool):
        raise _WrongTypeError("a boolean", value)
    return value


def _float(value: object, _type: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise _WrongTypeError("a finite number", value)


def _is_id(value: object) -> TypeGuard[str | int]:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _id(value: Any, _type: Any) -> str | int:
    if _is_id(value):
        return value
    raise _WrongTypeError("a string or an integer", value)


def _object(value: object, _type: Any) -> Mapping[str, Any]:
    if not json.is_object(value):
        raise _WrongTypeError("an object", value)
    return value


def _datetime(value: object, _type: Any) -> datetime:
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            # A time without a zone: the vendor's samples are all in UTC.
            return time if time.tzinfo else time.replace(tzinfo=UTC)
    raise _WrongTypeError("an ISO 8601 time", value)


def _rename(members: object, names: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the members of a wire object under our names, without nulls: absent and null mean the same."""
    renamed: dict[str, Any] = {"raw": _object(members, None)}
    for field, wire_names in names.items():
        for name in wire_names:
            value = renamed["raw"].get(name)
            # An empty text counts only if no other name of the member has one.
            if value is not None and (field not in renamed or (isinstance(value, str) and value != "")):
                renamed[field] = value
            if renamed.get(field, "") != "":
                break
    return renamed


def _rename_generation(members: object) -> dict[str, Any]:
    renamed = _rename(members, GENERATION_NAMES)
    if "status" not in renamed and "content" not in renamed and "url" not in renamed:
        renamed["status"] = "unknown"  # no member indicates that it is completed
    if "metadata" not in renamed:
        raw = renamed["raw"]
        flat = {name: raw[name] for name in _FLAT_METADATA if raw.get(name) is not None}
        if flat:
            renamed["metadata"] = flat
    return renamed


def _rename_usage(members: object) -> dict[str, Any]:
    return {name: value for name, value in _object(members, None).items() if value is not None}


_RENAME: dict[type[Any], Callable[[object], dict[str, Any]]] = {
    Generation: _rename_generation,
    GenerationStart: lambda members: _rename(members, _START_NAMES),
    GenerationEnd: lambda members: _rename(members, _END_NAMES),
    ContentDelta: lambda members: _rename(members, {"delta": ("delta",)}),
    Usage: _rename_usage,
}


@functools.cache
def converter(*, detailed: bool = False) -> Converter:
    """Return the converter, which also unstructures requests; a *detailed* one reports where an error is."""
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn

    made = Converter(detailed_validation=detailed)
    for cls, hook in {str: _str, int: _count, float: _float, datetime: _datetime}.items():
        made.register_structure_hook(cls, hook)
    # A member that is present is not null, so an optional type is structured like the type itself.
    hooks: dict[Any, Callable[[object, Any], Any]] = {
        str | None: _str,
        bool | None: _bool,
        int | None: _count,
        float | None: _float,
        datetime | None: _datetime,
        str | int | None: _id,
        Mapping[str, Any]: _object,
        Mapping[str, Any] | None: _object,
    }
    for optional, hook_of in hooks.items():
        made.register_structure_hook_func(functools.partial(operator.eq, optional), hook_of)
    for wire_type in (Usage, Generation, GenerationStart, ContentDelta, GenerationEnd):
        attrs.resolve_types(wire_type)
        made.register_structure_hook(wire_type, _after(_RENAME[wire_type], make_dict_structure_fn(wire_type, made)))
    made.register_unstructure_hook(GenerateRequest, unstructure_request)
    return made


def _after(rename: Callable[[object], dict[str, Any]], structure_fn: Callable[..., T]) -> Callable[[object, Any], T]:
    def hook(members: object, cls: Any) -> T:
        return structure_fn(rename(members), cls)

    return hook
