"""How one local server behaves: its options, checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias, get_args

import attrs

from neuralbox_async.testing._calls import Dialect
from neuralbox_async.testing._catalogue import CATALOGUE, UNKNOWN_MODEL_PRICE

Reply: TypeAlias = "str | Callable[[dict[str, Any]], str | Iterable[str]]"


def _at_least(minimum: int, *, positive: bool = False) -> Callable[[object, attrs.Attribute[Any], float | None], None]:
    def check(_: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
        too_small = value is not None and (value < minimum or (positive and value == 0))
        if value is not None and (too_small or math.isnan(value)):
            rule = "greater than 0" if positive else f"at least {minimum}"
            raise ValueError(f"{attribute.name} must be {rule}, not {value!r}")

    return check


def _dialect(_: object, attribute: attrs.Attribute[Any], value: str) -> None:
    if value not in get_args(Dialect):
        raise ValueError(f"{attribute.name} must be 'a' or 'b', not {value!r}")


def _dialects(_: object, attribute: attrs.Attribute[Any], value: Collection[str]) -> None:
    if not set(value) <= set(get_args(Dialect)):
        raise ValueError(f"{attribute.name} must be of 'a' and 'b', not {value!r}")


_not_negative = _at_least(0)
_positive = _at_least(0, positive=True)


@attrs.frozen(kw_only=True)
class Settings:
    """The options of `NeuralBoxServer`, which documents them."""

    balance: int
    plan: str
    dialect: Dialect = attrs.field(validator=_dialect)
    status_paths: Collection[Dialect] = attrs.field(validator=_dialects)
    reply: Reply | None
    prices: Mapping[str, int]
    restricted_models: Collection[str]
    failing_models: Collection[str]
    pending_models: Collection[str]
    pending_seconds: float = attrs.field(validator=_not_negative)
    latency: float = attrs.field(validator=_not_negative)
    pace: float = attrs.field(validator=_not_negative)
    heartbeat: float | None = attrs.field(validator=_positive)
    limit_hour: int | None = attrs.field(validator=_not_negative)
    limit_day: int | None = attrs.field(validator=_not_negative)
    hour_seconds: float = attrs.field(validator=_positive)
    day_seconds: float = attrs.field(validator=_positive)
    retry_after_header: bool
    honour_idempotency_key: bool
    stop_on_disconnect: bool
    keepalive_timeout: float = attrs.field(validator=_positive)
    max_body: int = attrs.field(validator=_positive)
    keep: int | None = attrs.field(validator=_positive)

    def price(self, slug: str) -> int:
        """Return what one generation of *slug* costs, in NeuralBox tokens."""
        if slug in self.prices:
            return self.prices[slug]
        return CATALOGUE[slug].cost if slug in CATALOGUE else UNKNOWN_MODEL_PRICE
