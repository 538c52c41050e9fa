"""The options of a batch."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs

from neuralbox_async._batch.results import BatchProgress
from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._options import DEFAULT_MAX_CONCURRENCY
from neuralbox_async._validation import (
    check_callable,
    check_count,
    check_flag,
    check_optional_count,
    check_rate,
    field_validator,
)

if TYPE_CHECKING:
    from neuralbox_async._batch.typed_items import TypedOutput

OnUnknown: TypeAlias = Literal["retry", "skip", "raise"] | Callable[[Any], bool | Awaitable[bool]]
"""
The treatment of requests that may have been billed without a response.

A function, plain or async, is called with the key, and returns whether to send the request again.
"""

OnChanged: TypeAlias = Literal["raise", "skip", "retry"]
"""The treatment of requests that differ from those that earlier runs sent with the same keys."""


_POLICIES = frozenset({"retry", "skip", "raise"})


def _check_journal(_options: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not _is_path(value):
        raise InvalidParameterError(field.name, value, "a path, or None")


def _is_path(value: object) -> bool:
    return isinstance(value, os.PathLike) or (isinstance(value, str) and value != "")


def _check_on_unknown(_options: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not callable(value) and not (isinstance(value, str) and str.__str__(value) in _POLICIES):
        raise InvalidParameterError(field.name, value, "'retry', 'skip', 'raise' or a function of the key")


def _check_on_changed(_options: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not (isinstance(value, str) and str.__str__(value) in _POLICIES):
        raise InvalidParameterError(field.name, value, "'raise', 'skip' or 'retry'")


@attrs.frozen(kw_only=True, eq=False)
class BatchOptions:
    """The options of a batch; see `AsyncNeuralBox.generate_many` for each. Validated when they are made."""

    max_concurrency: int = attrs.field(
        default=DEFAULT_MAX_CONCURRENCY, validator=field_validator(check_count, minimum=1)
    )
    ordered: bool = attrs.field(default=False, validator=field_validator(check_flag))
    journal: str | os.PathLike[str] | None = attrs.field(default=None, validator=_check_journal)
    on_unknown: OnUnknown = attrs.field(default="skip", validator=_check_on_unknown)
    on_changed: OnChanged = attrs.field(default="raise", validator=_check_on_changed)
    include_done: bool = attrs.field(default=False, validator=field_validator(check_flag))
    budget: int | None = attrs.field(default=None, validator=field_validator(check_optional_count, minimum=1))
    limit_to_balance: bool = attrs.field(default=False, validator=field_validator(check_flag))
    max_rate: float | None = attrs.field(default=None, validator=field_validator(check_rate))
    output: TypedOutput | None = None
    on_progress: Callable[[BatchProgress], object] | None = attrs.field(
        default=None, validator=field_validator(check_callable)
    )

    @property
    def choose_retry(self) -> Callable[[Any], bool | Awaitable[bool]]:
        """The function that decides whether a request with a key, which may have been billed, is sent again."""
        policy = self.on_unknown
        return policy if callable(policy) else lambda _key: policy == "retry"
