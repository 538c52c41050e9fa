"""Which types have values that are hashable, as the items of a set must be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NewType, get_args, get_origin

from neuralbox_async._wire import pydantic_models
from neuralbox_async._wire.output_fields import fields_of
from neuralbox_async._wire.output_kinds import (
    has_fields,
    is_alias,
    is_named_tuple,
    is_typed_dict,
    is_union,
    unannotated,
    value_of_alias,
)


def is_hashable(tp: Any) -> bool:
    """Return whether all values of *tp* are hashable."""
    return _is_hashable(tp, ())


def _is_hashable(tp: Any, seen: tuple[Any, ...]) -> bool:
    inner, _ = unannotated(tp)
    if isinstance(inner, NewType):
        return _is_hashable(inner.__supertype__, seen)
    if is_alias(inner):
        return inner in seen or _is_hashable(value_of_alias(inner), (*seen, inner))
    origin: Any = get_origin(inner) or inner
    if origin is Literal:
        return True
    parts: Iterable[Any] = ()
    if is_union(inner) or origin in {tuple, frozenset}:
        parts = (argument for argument in get_args(inner) or (Any,) if argument is not ...)
    elif has_fields(inner) and not pydantic_models.is_model(inner):
        if is_typed_dict(inner):
            return False
        if inner not in seen and (is_named_tuple(inner) or _is_hashed_by_fields(origin)):
            parts = (field.type for field in fields_of(inner))
            seen = (*seen, inner)
    elif inner is Any or inner is object:
        return False
    return getattr(origin, "__hash__", None) is not None and all(_is_hashable(part, seen) for part in parts)


def _is_hashed_by_fields(cls: type) -> bool:
    """Return whether attrs or dataclasses made the ``__hash__`` of *cls*."""
    return str(getattr(getattr(cls.__hash__, "__code__", None), "co_filename", "")).startswith("<")
