"""
The decoder of responses: from the bytes of a body to a `Generation`, by the one cattrs converter.

It is strict about types and tolerant about dialects. The vendor's pages document two dialects and mixes of them, with
other names for the same member. Members are renamed *before* cattrs structures them: a member that is null or absent
under its first name is looked up under the next. cattrs' default coercion, of ``None`` to ``"None"`` and of ``5.9`` to
``5``, is switched off.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from neuralbox_async._errors import GenerationFailedError, ResponseError
from neuralbox_async._types import ContentDelta, GenerateRequest, Generation, GenerationEnd, GenerationStart, Usage
from neuralbox_async._wire import fast_path, json
from neuralbox_async._wire.requests import unstructure_request
from neuralbox_async._wire.status_errors import MAX_MESSAGE_LENGTH, message_in
from neuralbox_async._wire.surrogates import without_lone_surrogates

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")

# Each field of ours with its names on the wire, those of the vendor's first dialect before the second.
_GENERATION_NAMES: dict[str, tuple[str, ...]] = {
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
}
_FLAT_METADATA = ("duration", "duration_seconds", "width", "height")
_END_NAMES = {name: _GENERATION_NAMES[name] for name in ("id", "tokens_used", "balance_remaining", "usage")}
_START_NAMES = {name: _GENERATION_NAMES[name] for name in ("id", "model")}
# A response that describes a generation has at least one of these members.
_GENERATION_MEMBERS = ("id", "status", "content", "result_text", "url", "result_url", "output_url")


def decode_generation(status_code: int, headers: Mapping[str, str], body: bytes) -> Generation:
    """
    Return the generation in a response, whatever its status.

    Raises `ResponseError`, which keeps the body and the text, when it has no generation, and `GenerationFailedError`
    when that failed.
    """
    try:
        members = _load_members(body)
        generation = fast_path.plain_generation(members)
        if generation is None:
            generation = _general_generation(members, body)
        if b"\\u" in body:  # no surrogate comes without such an escape
            generation = _without_lone_surrogates(generation)
    except ResponseError as error:
        raise ResponseError(
            error.message,
            path=error.path,
            body=body,
            status_code=status_code,
            headers=headers,
            text=error.text,
            generation_id=error.generation_id,
        ) from None
    if generation.status == "failed":
        raise generation_failed(generation)
    return generation


def _general_generation(members: Any, body: bytes) -> Generation:
    if json.has_long_number(body):
        members = json.loads_exactly(body)
    members = _check_object(members, body)
    if all(members.get(name) is None for name in _GENERATION_MEMBERS):
        if members.get("error") is not None:
            message = message_in(members)[:MAX_MESSAGE_LENGTH] or json.excerpt(body)
            msg = f"the response has a status of success and reports an error: {message}"
            raise ResponseError(msg, body=body, path="$.error")
        msg = f"the JSON object does not describe a generation: {json.excerpt(body)}"
        raise ResponseError(msg, body=body, path="$")
    return structure(members, Generation, body)


def structure_generation(members: Mapping[str, Any]) -> Generation:
    """Return the generation that the JSON object *members* describes. Raises `ResponseError`."""
    return _without_lone_surrogates(fast_path.plain_generation(members) or structure(members, Generation, b""))


def _without_lone_surrogates(generation: Generation) -> Generation:
    # UTF-8 cannot carry them: the text could be neither written nor sent as history. *raw* keeps them.
    content = without_lone_surrogates(generation.content)
    return generation if content is generation.content else attrs.evolve(generation, content=content)


def generation_failed(generation: Generation) -> GenerationFailedError:
    """Return the error of a *generation* with status ``failed``."""
    reason = (generation.error or "no reason in the response")[:MAX_MESSAGE_LENGTH]
    return GenerationFailedError(f"the generation failed: {reason}", reason=generation.error, generation=generation)


def decode_balance(status_code: int, headers: Mapping[str, str], body: bytes) -> int:
    """Return the token balance in a response of GET /balance. Raises `ResponseError`."""
    return _decode_count("token_balance", status_code, headers, body)


def decode_price(status_code: int, headers: Mapping[str, str], body: bytes) -> int:
    """
    Return the most that one generation costs, in NeuralBox tokens. Raises `ResponseError`.

    Source: the vendor's page "Calculate price" (POST /models/{slug}/calculate-price, ``max_token_cost``).
    """
    return _decode_count("max_token_cost", status_code, headers, body)


def _decode_count(name: str, status_code: int, headers: Mapping[str, str], body: bytes) -> int:
    members = _load_members(body)
    count = members.get(name) if json.is_object(members) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ResponseError(
            f"expected a whole number @ $.{name}: {json.excerpt(body)}",
            path=f"$.{name}",
            body=body,
            status_code=status_code,
            headers=headers,
            billed="no",
        )
    return count


def _load_members(body: bytes) -> Any:
    """Return the JSON value in *body*; see `json.loads_approximately`. Raises `ResponseError`."""
    if not body or body.isspace():
        msg = "the response body is empty"
        raise ResponseError(msg, body=body)
    try:
        return json.loads_approximately(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else json.one_line(str(error))
        msg = f"the response body is not JSON ({reason}): {json.excerpt(body)}"
        raise ResponseError(msg, body=body, path="$") from None


def _check_object(value: Any, body: bytes) -> dict[str, Any]:
    if not json.is_object(value):
        msg = f"expected a JSON object @ $, got {json.type_name(value)}"
        raise ResponseError(msg, body=body, path="$")
    return value


# ------------------------------------------------------------------------------------------------------ the converter


def structure(members: Mapping[str, Any], cls: type[T], body: bytes) -> T:
    """Return the *cls* that the JSON object *members* describes. Raises `ResponseError`, which keeps text and id."""
    try:
        return converter().structure(members, cls)
    except Exception as error:  # noqa: BLE001 - any error of cattrs or a hook, for values that come from outside
        path, reason = _explain(members, cls, error)
        generation_id = members.get("id")
        raise ResponseError(
            f"{reason} @ {path}",
            path=path,
            body=body,
            text=_text_in(members),
            generation_id=generation_id if _is_id(generation_id) else None,
        ) from None


def _explain(members: Mapping[str, Any], cls: type[Any], error: Exception) -> tuple[str, str]:
    # The fast converter does not report the place; the detailed one does, and runs only now.
    from cattrs import transform_error

    try:
        converter(detailed=True).structure(members, cls)
    except Exception as detailed:  # noqa: BLE001 - as above
        reason, _, path = transform_error(detailed, path="$", format_exception=_reason)[0].rpartition(" @ ")
        return _wire_path(members, path), reason
    return "$", str(error)


def _reason(error: BaseException, _type: Any) -> str:
    return "a required member is missing" if isinstance(error, KeyError) else str(error)


def _wire_path(members: Mapping[str, Any], path: str) -> str:
    # The path has our names; the user sees those of the wire.
    root, _, rest = path.partition(".")
    field, dot, below = rest.partition(".")
    wire = next((name for name in _GENERATION_NAMES.get(field, ()) if members.get(name) is not None), field)
    return f"{root}.{wire}{dot}{below}" if wire else path


def _text_in(members: Mapping[str, Any]) -> str:
    texts = (members.get(name) for name in _GENERATION_NAMES["content"])
    return without_lone_surrogates(next((text for text in texts if isinstance(text, str)), ""))


class _WrongTypeError(ValueError):
    """A value of another JSON type than the documented one."""

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(f"expected {expected}, got {json.type_name(value)}")


def _str(value: object, _type: Any) -> str:
    if not isinstance(value, str):
        raise _WrongTypeError("a string", value)
    return value


def _int(value: object, _type: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)  # JSON has one type of number: 3.0 is 3
    raise _WrongTypeError("an integer", value)


def _float(value: object, _type: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise _WrongTypeError("a finite number", value)


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _id(value: Any, _type: Any) -> str | int:
    if _is_id(value):
        return value  # type: ignore[no-any-return]
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
            if value is not None:
                renamed[field] = value
                break
    return renamed


def _rename_generation(members: object) -> dict[str, Any]:
    renamed = _rename(members, _GENERATION_NAMES)
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
    for cls, hook in {str: _str, int: _int, float: _float, datetime: _datetime}.items():
        made.register_structure_hook(cls, hook)
    # A member that is present is not null, so an optional type is structured like the type itself.
    hooks: dict[Any, Callable[[object, Any], Any]] = {
        str | None: _str,
        int | None: _int,
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
