"""The options of a local server, validated when it is created."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias, get_args

import attrs

from neuralbox_async.testing._models import MODELS, UNKNOWN_MODEL_PRICE
from neuralbox_async.testing._request_parsing import Dialect

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
        raise ValueError(f"{attribute.name} must contain only 'a' and 'b', not {value!r}")


_not_negative = _at_least(0)
_positive = _at_least(0, positive=True)


@attrs.frozen(kw_only=True)
class Settings:
    """The options of `NeuralBoxServer`. Its docstring documents them."""

    balance: int
    plan: str
    dialect: Dialect = attrs.field(validator=_dialect)
    status_paths: Collection[Dialect] = attrs.field(validator=_dialects)
    reply: Reply | None
    prices: Mapping[str, int]
    restricted_models: Collection[str]
    refuse_unknown_models: bool
    failing_models: Collection[str]
    pending_models: Collection[str]
    pending_seconds: float = attrs.field(validator=_not_negative)
    latency: float = attrs.field(validator=_not_negative)
    event_interval: float = attrs.field(validator=_not_negative)
    heartbeat: float | None = attrs.field(validator=_positive)
    limit_hour: int | None = attrs.field(validator=_not_negative)
    limit_day: int | None = attrs.field(validator=_not_negative)
    hour_seconds: float = attrs.field(validator=_positive)
    day_seconds: float = attrs.field(validator=_positive)
    retry_after_header: bool
    honour_idempotency_key: bool
    stop_on_disconnect: bool
    keepalive_timeout: float = attrs.field(validator=_positive)
    max_body_size: int = attrs.field(validator=_positive)
    history: int | None = attrs.field(validator=_positive)

    def price(self, slug: str) -> int:
        """Return the price of one generation of the model *slug*, in NeuralBox tokens."""
        if slug in self.prices:
            return self.prices[slug]
        return MODELS[slug].price if slug in MODELS else UNKNOWN_MODEL_PRICE
