"""
The decoder of the account's and the catalogue's responses: from the bytes of a body to values and pages of them.

Each member is structured alone, by the hooks of the converter in `structuring`: one that is malformed becomes None (or
is looked up under its next name) and is named in `problems`, and never costs the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import attrs

from neuralbox_async._account_types import Account, AccountStats, Balance, HistoryEntry, Model, Price, UsageTotals
from neuralbox_async._errors import ResponseError
from neuralbox_async._wire import json
from neuralbox_async._wire.partial_json import without_deep_members
from neuralbox_async._wire.responses import load_members
from neuralbox_async._wire.structuring import GENERATION_NAMES, converter
from neuralbox_async._wire.surrogates import without_lone_surrogates

T = TypeVar("T")

# The names on the wire of the fields that have others than ours.
_NAMES: Final[dict[type[Any], dict[str, tuple[str, ...]]]] = {
    Account: {"name": ("name", "username")},
    AccountStats: {"tokens_used_total": ("tokens_spent_total",)},
    UsageTotals: {"generations": ("count", "generations"), "tokens_used": ("tokens", "tokens_spent")},
    HistoryEntry: {
        "model": GENERATION_NAMES["model"],
        "category": ("type", "category"),
        "content": GENERATION_NAMES["content"],
        "url": GENERATION_NAMES["url"],
        "tokens_used": GENERATION_NAMES["tokens_used"],
    },
    Model: {"description": ("description_en", "description", "description_ru")},
}
# Without it the value would be useless. The others need one readable member.
_ESSENTIAL: Final[dict[type[Any], str]] = {Balance: "token_balance", Price: "token_cost", Model: "slug"}
# The member of an object that holds the list. The vendor documents the first; the list of models is not documented.
_LISTS: Final = ("items", "models", "generations", "data")


@attrs.frozen(kw_only=True)
class Page(Generic[T]):
    """A page of a list, with what the API reports of the whole list: None if it does not."""

    items: tuple[T, ...]
    total: int | None = None
    pages: int | None = None
    limit: int | None = None


def decode_value(cls: type[T], status_code: int, headers: Mapping[str, str], body: bytes) -> T:
    """Return the *cls* in a response. Raises `ResponseError` if it has no object, or the essential member is odd."""
    members, too_deep = _load(status_code, headers, body)
    if not json.is_object(members):
        msg = f"expected a JSON object at $, got {json.type_name(members)}"
        raise _error(msg, "$", status_code, headers, body)
    fields, problems = _structure_members(cls, members)
    essential = _ESSENTIAL.get(cls)
    if not fields or (essential is not None and essential not in fields):
        path = "$" if essential is None else f"$.{essential}"
        msg = f"the {cls.__name__.lower()} in the response is missing or malformed at {path}: {json.excerpt(body)}"
        raise _error(msg, path, status_code, headers, body)
    return _make(cls, fields, problems=(*too_deep, *problems), raw=members)


def decode_page(cls: type[T], status_code: int, headers: Mapping[str, str], body: bytes) -> Page[T]:
    """
    Return the page of *cls* in a response: a JSON array, or an object with one.

    An entry that is malformed, even wholly, is an entry with `problems`. Raises `ResponseError` if there is no array.
    """
    members, _ = _load(status_code, headers, body)
    if json.is_array(members):
        return Page(items=tuple(_entry(cls, entry) for entry in members))
    if json.is_object(members):
        envelope = {name: _count(members.get(name)) for name in ("total", "pages", "limit")}
        for name in _LISTS:
            if json.is_array(found := members.get(name)):
                return Page(items=tuple(_entry(cls, entry) for entry in found), **envelope)
    msg = f"the response contains no list: {json.excerpt(body)}"
    raise _error(msg, f"$.{_LISTS[0]}", status_code, headers, body)


def _entry(cls: type[T], entry: object) -> T:
    if cls is Model and isinstance(entry, str):
        return _make(cls, {"slug": without_lone_surrogates(entry)})
    if not json.is_object(entry):
        return _make(cls, {}, problems=("$",))
    fields, problems = _structure_members(cls, entry)
    essential = _ESSENTIAL.get(cls)
    if essential is not None and essential not in fields and f"$.{essential}" not in problems:
        problems.append(f"$.{essential}")
    return _make(cls, fields, problems=tuple(problems), raw=entry)


def _make(cls: Callable[..., T], fields: Mapping[str, Any], **facts: Any) -> T:
    return cls(**fields, **facts)


def _structure_members(cls: type[Any], members: Mapping[str, Any], path: str = "$") -> tuple[dict[str, Any], list[str]]:
    """Return the readable fields of a *cls*, and the places of the malformed ones."""
    fields: dict[str, Any] = {}
    problems: list[str] = []
    for field in _fields_of(cls):
        for name in _NAMES.get(cls, {}).get(field.name, (field.name,)):
            if (value := members.get(name)) is None:
                continue
            try:
                fields[field.name] = _structure(value, field.type, f"{path}.{name}", problems)
            except Exception:  # noqa: BLE001 - any error of cattrs or a hook, for values that come from outside
                problems.append(f"{path}.{name}")
            else:
                break
    return fields, problems


def _fields_of(cls: type[Any]) -> Sequence[attrs.Attribute[Any]]:
    attrs.resolve_types(cls)  # once for each class
    return [field for field in attrs.fields(cls) if field.name not in {"problems", "raw"}]


def _structure(value: object, wanted: Any, path: str, problems: list[str]) -> Any:
    if wanted == UsageTotals | None:
        return _totals(value, path, problems)
    if wanted == Mapping[str, UsageTotals] | None:
        if not json.is_object(value):
            raise ValueError(path)
        return {
            without_lone_surrogates(name): _totals(inner, f"{path}.{name}", problems) for name, inner in value.items()
        }
    found = converter().structure(value, wanted)
    if isinstance(found, str):
        return without_lone_surrogates(found)
    if isinstance(found, int) and found < 0 and not path.endswith(".id"):  # tokens and counts
        raise ValueError(path)
    return found


def _totals(value: object, path: str, problems: list[str]) -> UsageTotals:
    if not json.is_object(value):
        problems.append(path)
        return UsageTotals()
    fields, odd = _structure_members(UsageTotals, value, path)
    problems += odd
    return UsageTotals(**fields)


def _count(value: object) -> int | None:
    return value if json.is_count(value) and value >= 0 else None


def _load(status_code: int, headers: Mapping[str, str], body: bytes) -> tuple[Any, tuple[str, ...]]:
    """Return the JSON value in *body*, with null for members nested too deeply, and the places of those."""
    try:
        shallow, too_deep = without_deep_members(body)
        if too_deep or json.has_long_number(body):
            return json.loads_exactly(shallow), tuple(f"$.{name}" for name in too_deep)
        return load_members(body), ()
    except ResponseError as error:
        raise _error(error.message, "$", status_code, headers, body) from None
    except (ValueError, RecursionError):
        raise _error(f"the response body is not JSON: {json.excerpt(body)}", "$", status_code, headers, body) from None


def _error(message: str, path: str, status_code: int, headers: Mapping[str, str], body: bytes) -> ResponseError:
    return ResponseError(message, path=path, body=body, status_code=status_code, headers=headers, billed="no")
