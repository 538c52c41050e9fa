"""The retry policy and the retry budget; nothing here sleeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    ClientClosedError,
    ConflictError,
    GenerationFailedError,
    InternalServerError,
    ModelUnavailableError,
    NotFoundError,
    ProviderError,
    RateLimitError,
    ResponseError,
    RetryPolicy,
    StreamInterruptedError,
)
from neuralbox_async._call.retry_budget import RetryBudget
from neuralbox_async._errors import APIStatusError

POLICY = RetryPolicy(jitter=lambda _low, high: high)

# The failure, and whether it is retried: a POST by default, a POST with retry_unknown, a GET.
ROWS = {
    "not sent": (APIConnectionError("refused"), True, True, True),
    "connect timeout": (APITimeoutError("no connection", phase="connect"), True, True, True),
    "configuration": (APIConnectionError("certificate", retryable=False), False, False, False),
    "sent, no response": (APIConnectionError("reset", request_sent=True), False, True, True),
    "sent, no response in time": (APITimeoutError("late", request_sent=True), False, True, True),
    "429": (RateLimitError("", status_code=429), True, True, True),
    "500 provider_error": (ProviderError("", status_code=500), True, True, True),
    "503 model_unavailable": (ModelUnavailableError("", status_code=503), True, True, True),
    "500": (InternalServerError("", status_code=500), False, True, True),
    "502": (InternalServerError("", status_code=502), False, True, True),
    "503": (InternalServerError("", status_code=503), False, True, True),
    "504": (InternalServerError("", status_code=504), False, True, True),
    "529": (InternalServerError("", status_code=529), False, True, True),
    "501": (InternalServerError("", status_code=501), False, False, False),
    "505": (InternalServerError("", status_code=505), False, False, False),
    "507": (InternalServerError("", status_code=507), False, False, True),
    "520": (InternalServerError("", status_code=520), False, False, True),
    "408": (APIStatusError("", status_code=408), False, True, True),
    "425": (APIStatusError("", status_code=425), True, True, True),
    "400": (BadRequestError("", status_code=400), False, False, False),
    "404": (NotFoundError("", status_code=404), False, False, False),
    "409": (ConflictError("", status_code=409), False, False, False),
    "302": (APIStatusError("", status_code=302), False, False, False),
    "x-should-retry: false": (
        RateLimitError("", status_code=429, headers={"x-should-retry": "false"}),
        False,
        False,
        False,
    ),
    "malformed response": (ResponseError("not JSON"), False, False, False),
    "failed generation": (GenerationFailedError("policy"), False, False, False),
    "interrupted stream": (StreamInterruptedError("cut"), False, False, False),
    "client closed": (ClientClosedError("closed"), False, False, False),
}


@pytest.mark.parametrize("error, post, post_unknown, get", ROWS.values(), ids=ROWS)
def test_retries(error, post, post_unknown, get):
    """A request that may have been billed is retried only with *retry_unknown*; a GET is free."""
    retry_unknown = RetryPolicy(retry_unknown=True)

    assert post == (POLICY.delay(1, error) is not None)
    assert post_unknown == (retry_unknown.delay(1, error) is not None)
    assert get == (POLICY.delay(1, error, costs_nothing=True) is not None)


@pytest.mark.parametrize(
    "error, waits",
    [
        (APIConnectionError("refused"), [0.5, 1, 2, 4, 8, 8]),
        (ProviderError("", status_code=500), [0.5, 1, 2, 4, 8, 8]),
        (RateLimitError("", status_code=429), [1, 2, 4, 8, 8, 8]),
        (ModelUnavailableError("", status_code=503), [1, 2, 4, 8, 8, 8]),
    ],
)
def test_backoff(error, waits):
    """The maximum wait doubles with each retry up to a bound; it starts higher when the server throttles."""
    policy = RetryPolicy(max_retries=6, jitter=lambda _low, high: high)

    assert waits == [policy.delay(attempt, error) for attempt in range(1, 7)]


@given(st.integers(1, 20))
def test_full_jitter(attempt):
    """The wait is between zero and the bound."""
    policy = RetryPolicy(max_retries=20)

    assert 0.0 <= (policy.delay(attempt, APIConnectionError("refused")) or 0.0) <= 8.0


@pytest.mark.parametrize(
    "retry_after, wait", [(0.0, 1.0), (2.0, 2.2), (60.0, 61.0), (60.5, None), (847.0, None), (None, 1.0)]
)
def test_retry_after(retry_after, wait):
    """*retry_after* is a lower bound, with jitter on top; above *max_retry_after* there is no retry."""
    assert wait == POLICY.delay(1, RateLimitError("", status_code=429, retry_after=retry_after))


def test_max_retry_after():
    """*max_retry_after* allows a longer wait."""
    policy = RetryPolicy(max_retry_after=3600, jitter=lambda _low, _high: 0.0)

    assert 847.0 == policy.delay(1, RateLimitError("", status_code=429, retry_after=847.0))


@pytest.mark.parametrize("remaining, retried", [(None, True), (10.0, True), (1.6, True), (1.4, False), (-1.0, False)])
def test_deadline(remaining, retried):
    """There is no retry unless the wait leaves a second for the attempt."""
    assert retried == (POLICY.delay(1, APIConnectionError("refused"), remaining=remaining) is not None)


@pytest.mark.parametrize("max_retries, delays", [(0, [False]), (1, [True, False]), (2, [True, True, False])])
def test_max_retries(max_retries, delays):
    """There are at most *max_retries* retries."""
    policy = RetryPolicy(max_retries=max_retries)
    error = APIConnectionError("refused")

    assert delays == [policy.delay(attempt, error) is not None for attempt in range(1, max_retries + 2)]


def test_budget_is_consumed_and_refilled():
    """The budget is enough for 35 retries in a row; successes refill it."""
    budget = RetryBudget()
    error = APIConnectionError("refused")

    taken = sum(budget.take(error) is not None for _ in range(100))
    assert 35 == taken
    assert budget.take(RateLimitError("", status_code=429)) == 5

    budget.give_back(14)
    assert 14 == budget.take(error)


def test_budget_has_a_capacity():
    """Successes do not fill the budget above its capacity."""
    budget = RetryBudget()
    for _ in range(10_000):
        budget.give_back(1)

    assert 35 == sum(budget.take(APIConnectionError("refused")) is not None for _ in range(100))
