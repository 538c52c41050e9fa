"""
The retry policy: which failed attempts are retried, and when. It decides; the loop is in `_call/executor`.

The API bills each generation and documents no idempotency key. So a retry is safe only if the request certainly did not
run, or is documented as not charged.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs

from neuralbox_async._errors import (
    APIConnectionError,
    APIStatusError,
    ModelUnavailableError,
    NeuralBoxError,
    ProviderError,
    RateLimitError,
)
from neuralbox_async._validation import check_backoff, check_count, check_flag, field_validator

_TOO_EARLY = 425
_MAYBE_TRANSIENT = frozenset({408, _TOO_EARLY, 429, 500, 502, 503, 504, 529})
_PERMANENT = frozenset({501, 505})  # of the server errors: the method or the version of HTTP is not supported
_SERVER_ERRORS = range(500, 600)
_MARGIN = 1.0  # seconds before the deadline in which no attempt is started
_seconds = field_validator(check_backoff)
_flag = field_validator(check_flag)


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """
    Which failures are retried, how often, and after how long. A value; it neither sleeps nor counts.

    * *max_retries*: attempts after the first; 0 disables retries.
    * *backoff*, *throttle_backoff*: seconds; the wait before retry n is random between 0 and ``backoff * 2**(n-1)``
      ("full jitter"), *throttle_backoff* after 429 and 503. *max_backoff* bounds it.
    * *max_retry_after*: seconds; when the server requests a longer wait, the error is raised at once, with its
      *retry_after*.
    * *retry_unknown*: retry also requests that may have run already (a connection that broke after the request was
      sent, a 5xx that is not documented as free). That can bill twice; off by default.
    * *retry_rate_limits*: retry after a 429; switch it off if you wait for the limit yourself.
    * *jitter*: a function of (low, high) that returns a random number between the two.

    Retried by default: a request that never left the machine; 429, 500 ``provider_error`` and 503
    ``model_unavailable``, which the vendor documents as never charged; 425, which a server sends instead of processing
    a request; and each transient failure of a request that costs nothing (a GET, a price calculation): no response,
    408, 429, and any 5xx but 501 and 505.
    """

    max_retries: int = attrs.field(default=2, validator=field_validator(check_count, minimum=0))
    backoff: float = attrs.field(default=0.5, validator=_seconds)
    throttle_backoff: float = attrs.field(default=1.0, validator=_seconds)
    max_backoff: float = attrs.field(default=8.0, validator=_seconds)
    max_retry_after: float = attrs.field(default=60.0, validator=_seconds)
    retry_unknown: bool = attrs.field(default=False, validator=_flag)
    retry_rate_limits: bool = attrs.field(default=True, validator=_flag)
    jitter: Callable[[float, float], float] = attrs.field(default=random.uniform, repr=False, eq=False)

    def delay(
        self, attempt: int, error: NeuralBoxError, *, costs_nothing: bool = False, remaining: float | None = None
    ) -> float | None:
        """
        Return the seconds to wait before the next attempt, or None for no retry.

        *attempt* counts from 1. *costs_nothing* is True for a request that is not billed (a GET, a price calculation).
        *remaining* is the time left until the deadline, in seconds.
        """
        if attempt > self.max_retries or not self._is_retryable(error, costs_nothing=costs_nothing):
            return None
        wait = self._wait(attempt, error)
        if wait is None or (remaining is not None and wait + _MARGIN > remaining):
            return None
        return wait

    def _is_retryable(self, error: NeuralBoxError, *, costs_nothing: bool) -> bool:  # noqa: PLR0911 - a table
        match error:
            case APIStatusError(headers={"x-should-retry": "false"}):
                return False
            case RateLimitError():
                return self.retry_rate_limits
            case ProviderError() | ModelUnavailableError():
                return True
            case APIStatusError() if costs_nothing:
                return is_transient(error)
            case APIStatusError(status_code=status_code):
                return status_code == _TOO_EARLY or (self.retry_unknown and status_code in _MAYBE_TRANSIENT)
            case APIConnectionError():
                return error.retryable and (not error.request_sent or costs_nothing or self.retry_unknown)
            case _:
                return False

    def _wait(self, attempt: int, error: NeuralBoxError) -> float | None:
        base = self.throttle_backoff if is_throttled(error) else self.backoff
        backoff = self.jitter(0.0, min(self.max_backoff, base * 2 ** (attempt - 1)))
        requested = error.retry_after if isinstance(error, APIStatusError) else None
        if requested is None:
            return backoff
        if requested > self.max_retry_after:
            return None
        # A little later than requested, each client at another moment, so that they do not all return together.
        return max(backoff, requested + self.jitter(0.0, min(1.0, 0.1 * requested)))


def is_throttled(error: NeuralBoxError) -> bool:
    """Return whether the server throttles the client or is overloaded."""
    return isinstance(error, RateLimitError | ModelUnavailableError)


def is_transient(error: NeuralBoxError) -> bool:
    """Return whether the same GET may succeed later."""
    if isinstance(error, APIStatusError):
        status_code = error.status_code
        return status_code in _MAYBE_TRANSIENT or (status_code in _SERVER_ERRORS and status_code not in _PERMANENT)
    return isinstance(error, APIConnectionError) and error.retryable
