"""`problem`: the status and the body that a stranger gets for an error."""

from __future__ import annotations

import json

import pytest

import neuralbox_async
from neuralbox_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    InsufficientTokensError,
    InvalidParameterError,
    ModelUnavailableError,
    NeuralBoxError,
    NotFoundError,
    ProviderError,
    RateLimitError,
    RequestTooLargeError,
    StreamInterruptedError,
    StreamStateError,
    StreamTimeoutError,
    UnprocessableEntityError,
)
from neuralbox_async.web import problem

SECRET = "nb_canary 14 tokens left on plan vip at upstream.example"


def status_error(error_type, status, **facts):
    return error_type(SECRET, status_code=status, headers={"x-secret": SECRET}, body=SECRET.encode(), **facts)


TABLE = [
    (InvalidParameterError("messages", SECRET, "shorter"), 400, None),
    (status_error(BadRequestError, 400), 400, None),
    (status_error(UnprocessableEntityError, 422), 400, None),
    (status_error(RequestTooLargeError, 413), 413, None),
    (status_error(AuthenticationError, 401), 502, None),
    (status_error(InsufficientTokensError, 402), 502, None),
    (status_error(NotFoundError, 404), 502, None),
    (status_error(ProviderError, 500), 502, None),
    (status_error(RateLimitError, 429, retry_after=846.2), 503, "847"),
    (status_error(RateLimitError, 429, retry_after=0), 503, "1"),
    (status_error(RateLimitError, 429, retry_after=1e300), 503, "86400"),
    (status_error(RateLimitError, 429, retry_after=float("inf")), 503, None),
    (status_error(RateLimitError, 429), 503, None),
    (status_error(ModelUnavailableError, 503, retry_after=5), 503, "5"),
    (status_error(APIStatusError, 418, retry_after=5), 502, None),
    (ClientClosedError(SECRET), 503, None),
    (APIConnectionError(SECRET), 502, None),
    (APITimeoutError(SECRET), 504, None),
    (StreamTimeoutError(SECRET), 504, None),
    (StreamInterruptedError(SECRET, reason=SECRET), 502, None),
    (StreamStateError(SECRET), 500, None),
    (NeuralBoxError(SECRET), 502, None),
    (ZeroDivisionError(SECRET), 500, None),
]


@pytest.mark.parametrize("error, status, retry_after", TABLE, ids=[type(row[0]).__name__ for row in TABLE])
def test_table(error, status, retry_after):
    """Each error has a status, and its time to try again; nothing of its text and facts is in the response."""
    answer = problem(error)

    assert (status, retry_after) == (answer.status, answer.headers.get("Retry-After"))
    assert "application/problem+json" == answer.headers["Content-Type"]
    assert {"type", "title", "status", "detail"} == set(body := json.loads(answer.body))
    assert (status, answer.to_dict()) == (body["status"], body)
    response = f"{answer.headers} {answer.body.decode()}"
    assert not [word for word in SECRET.split() if word in response and len(word) > 2]


def test_every_error_has_a_status():
    """Each error of the tree has a status, and a sentence for it."""
    names = (getattr(neuralbox_async, name) for name in neuralbox_async.__all__)
    errors = [value for value in names if isinstance(value, type) and issubclass(value, NeuralBoxError)]

    assert len(errors) > 20
    for error_type in errors:
        error = error_type.__new__(error_type)
        error.retry_after = None
        answer = problem(error)
        assert 400 <= answer.status < 600
        assert answer.detail.endswith(".")
