"""
When a failed attempt is repeated: a pure decision, apart from the loop that carries it out.

The API bills each generation and documents no idempotency key, so the first question is always whether the request may
have run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs

from neuralbox_async._errors import (
    APIConnectionError,
    APIStatusError,
    InvalidParameterError,
    ModelUnavailableError,
    NeuralBoxError,
    ProviderError,
    RateLimitError,
)

_TOO_EARLY = 425
_SAFE_TO_REPEAT_STATUSES = frozenset({408, _TOO_EARLY, 500, 502, 503, 504, 529})

_MARGIN = 1.0  # seconds an attempt needs to be worth starting before the deadline


def _check_count(_self: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidParameterError(field.name, value, "an integer of at least 0")


def _check_seconds(_self: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
        raise InvalidParameterError(field.name, value, "a number of seconds of at least 0")


def _check_flag(_self: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidParameterError(field.name, value, "True or False")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """
    Which failures are repeated, how often, and after how long. A value; it neither sleeps nor counts.

    * *max_retries*: further attempts after the first; 0 switches repeating off.
    * *backoff*, *throttle_backoff*: seconds; the wait before retry n is random between 0 and ``backoff * 2**(n-1)``
      ("full jitter"), *throttle_backoff* after 429 and 503. *max_backoff* bounds it.
    * *max_retry_after*: seconds; a server that asks to wait longer gets no retry: the error is raised at once, with its
      *retry_after*.
    * *retry_unknown*: repeat also what may have run already (a connection that broke after the request was sent, a 5xx
      that is not documented as free). That can bill twice; off by default.
    * *retry_rate_limits*: repeat after a 429; off for those who wait for the limit themselves.

    A request that never left the machine is repeated; so are 429, 500 ``provider_error`` and 503 ``model_unavailable``,
    which the vendor documents as never charged; and every transient failure of a GET, which costs nothing.
    """

    max_retries: int = attrs.field(default=2, validator=_check_count)
    backoff: float = attrs.field(default=0.5, validator=_check_seconds)
    throttle_backoff: float = attrs.field(default=1.0, validator=_check_seconds)
    max_backoff: float = attrs.field(default=8.0, validator=_check_seconds)
    max_retry_after: float = attrs.field(default=60.0, validator=_check_seconds)
    retry_unknown: bool = attrs.field(default=False, validator=_check_flag)
    retry_rate_limits: bool = True
    uniform: Callable[[float, float], float] = attrs.field(default=random.uniform, repr=False, eq=False)

    def delay(
        self, attempt: int, error: NeuralBoxError, *, idempotent: bool = False, remaining: float | None = None
    ) -> float | None:
        """
        Return how many seconds to wait before the next attempt, or None to give up.

        *attempt* counts from 1; *idempotent* is True for a GET; *remaining* is the time left until the deadline, in
        seconds.
        """
        if attempt > self.max_retries or not self._worth_repeating(error, idempotent=idempotent):
            return None
        wait = self._wait(attempt, error)
        if wait is None or (remaining is not None and wait + _MARGIN > remaining):
            return None
        return wait

    def _worth_repeating(self, error: NeuralBoxError, *, idempotent: bool) -> bool:
        repeatable = idempotent or self.retry_unknown
        match error:
            case APIStatusError(headers={"x-should-retry": "false"}):
                return False
            case RateLimitError():
                return self.retry_rate_limits
            case ProviderError() | ModelUnavailableError():
                return True
            case APIStatusError():
                return error.status == _TOO_EARLY or (repeatable and error.status in _SAFE_TO_REPEAT_STATUSES)
            case APIConnectionError():
                return error.retryable and (not error.request_sent or repeatable)
            case _:
                return False

    def _wait(self, attempt: int, error: NeuralBoxError) -> float | None:
        throttled = isinstance(error, RateLimitError | ModelUnavailableError)
        base = self.throttle_backoff if throttled else self.backoff
        backoff = self.uniform(0.0, min(self.max_backoff, base * 2 ** (attempt - 1)))
        asked = error.retry_after if isinstance(error, APIStatusError) else None
        if asked is None:
            return backoff
        if asked > self.max_retry_after:
            return None
        # A little later than asked, each client at its own moment, so that they do not all come back at once.
        return max(backoff, asked + self.uniform(0.0, min(1.0, 0.1 * asked)))


class RetryBudget:
    """
    A token bucket for all calls of one client, so that an outage is not answered with a storm of repetitions.

    It holds 500 tokens. A retry takes 14 (5 when the server throttles) and gives them back when it succeeds; a call
    that succeeds at once adds 1. When too few are left the failure is raised as it is.
    """

    CAPACITY = 500
    COST = 14
    THROTTLE_COST = 5

    def __init__(self) -> None:
        self._tokens = self.CAPACITY

    def take(self, error: NeuralBoxError) -> int | None:
        """Return what a retry after *error* costs and take it, or return None when the bucket is too empty."""
        cost = self.THROTTLE_COST if isinstance(error, RateLimitError | ModelUnavailableError) else self.COST
        if cost > self._tokens:
            return None
        self._tokens -= cost
        return cost

    def give_back(self, cost: int) -> None:
        """Put *cost* tokens back: what the last retry took, or 1 after a success at once."""
        self._tokens = min(self.CAPACITY, self._tokens + cost)
