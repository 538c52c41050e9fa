"""The attempts of one call: retries, their limits, and the error of the last attempt."""

from __future__ import annotations

import asyncio
import pickle

import anyio
import pytest

from neuralbox_async import (
    APIConnectionError,
    APIStatusError,
    ClientClosedError,
    GenerationFailedError,
    InsufficientTokensError,
    RateLimitError,
    ResponseError,
    RetryPolicy,
)
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

REPLY = {"id": "gen_1", "status": "completed", "content": "Hello"}

REFUSED = APIConnectionError("refused")
LOST = APIConnectionError("reset", request_sent=True)


@pytest.mark.parametrize(
    "responses, attempts",
    [
        ([REPLY], 1),
        ([REFUSED, REPLY], 2),
        ([REFUSED, RateLimitError("429", status_code=429), REPLY], 3),
        ([FakeResponse(b'{"error": "provider_error"}', status_code=500), REPLY], 2),
        ([FakeResponse(b'{"error": "model_unavailable", "retry_after": 0.001}', status_code=503), REPLY], 2),
    ],
)
async def test_an_unbilled_request_is_retried(make_client, responses, attempts):
    """A request that was certainly not billed is retried until it succeeds."""
    transport = FakeTransport(*responses)

    assert "Hello" == (await make_client(transport).generate("gpt-5", "Hi")).content
    assert attempts == len(transport.requests)


@pytest.mark.parametrize(
    "response, error_type, billed, attempts",
    [
        (LOST, APIConnectionError, "unknown", 1),
        (REFUSED, APIConnectionError, "no", 3),
        (FakeResponse(b"Oops", status_code=502), APIStatusError, "unknown", 1),
        (FakeResponse(b"", status_code=402), InsufficientTokensError, "no", 1),
        (FakeResponse(b'{"retry_after": 847}', status_code=429), RateLimitError, "no", 1),
        (FakeResponse(b"<html>", status_code=200), ResponseError, "unknown", 1),
        (FakeResponse(b'{"id": 1, "status": "failed"}'), GenerationFailedError, "no", 1),
        (FakeResponse(b'{"id"', LOST), APIConnectionError, "unknown", 1),
    ],
)
async def test_error_of_the_last_attempt(make_client, response, error_type, billed, attempts):
    """The error has the number of attempts, the idempotency key and the billing status."""
    transport = FakeTransport(response)
    with pytest.raises(error_type) as caught:
        await make_client(transport).generate("gpt-5", "Hi", idempotency_key="mine")

    error = caught.value
    assert (billed, attempts, "mine") == (error.billed, error.attempts, error.idempotency_key)
    assert attempts == len(transport.requests)
    assert error.elapsed >= 0
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


async def test_body_of_an_incomplete_response(make_client):
    """The error of an incomplete response has the bytes that arrived."""
    transport = FakeTransport(FakeResponse(b'{"content": "Once', LOST))
    with pytest.raises(APIConnectionError) as caught:
        await make_client(transport).generate("gpt-5", "Hi")
    assert b'{"content": "Once' == caught.value.body


@pytest.mark.parametrize("max_retries, attempts", [(0, 1), (1, 2), (5, 6)])
async def test_max_retries(make_client, max_retries, attempts):
    """The client, `with_options` and the call each set the number of retries."""
    for place in ("client", "call", "with_options"):
        transport = FakeTransport(REFUSED)
        client = make_client(transport, **({"max_retries": max_retries} if place == "client" else {}))
        if place == "with_options":
            client = client.with_options(max_retries=max_retries)
        with pytest.raises(APIConnectionError):
            await client.generate("gpt-5", "Hi", **({"max_retries": max_retries} if place == "call" else {}))
        assert attempts == len(transport.requests)


async def test_retry_unknown(make_client):
    """With *retry_unknown*, a request with an unknown outcome is retried, and the last error is still "unknown"."""
    transport = FakeTransport(LOST, REFUSED)
    client = make_client(transport).with_options(
        retry_policy=RetryPolicy(retry_unknown=True, jitter=lambda low, _high: low)
    )
    with pytest.raises(APIConnectionError, match="refused") as caught:
        await client.generate("gpt-5", "Hi")
    assert (3, "unknown", True) == (len(transport.requests), caught.value.billed, caught.value.request_sent)


async def test_retry_budget(make_client):
    """A client and the clients derived from it share one retry budget, which runs out in an outage."""
    transport = FakeTransport(REFUSED)
    client = make_client(transport)
    for _ in range(40):
        with pytest.raises(APIConnectionError):
            await client.with_options(timeout=5).generate("gpt-5", "Hi")
    assert 40 + 35 == len(transport.requests)


async def test_request_of_a_stream_is_retried(make_client):
    """The request of a stream is retried like any other until its response begins."""
    transport = FakeTransport(REFUSED, FakeResponse(b"data: [DONE]\n\n", headers={"content-type": "text/event-stream"}))
    async with make_client(transport).stream("gpt-5", "Hi") as stream:
        await stream.get_final_generation()
    assert 2 == len(transport.requests)


async def test_cancellation_during_a_backoff(make_client):
    """A cancellation during a backoff ends the call at once, and nothing more is sent."""
    transport = FakeTransport(REFUSED)
    client = make_client(transport, retry_policy=RetryPolicy(jitter=lambda _low, high: high))
    with anyio.move_on_after(0.05) as scope:
        await client.generate("gpt-5", "Hi")

    assert scope.cancelled_caught
    assert 1 == len(transport.requests)


@pytest.mark.long
async def test_closing_during_a_backoff(make_client):
    """Closing the client ends a call that waits for its next attempt."""
    transport = FakeTransport(RateLimitError("429", status_code=429, retry_after=30.0))
    client = make_client(transport)
    call = asyncio.ensure_future(client.generate("gpt-5", "Hi"))
    await asyncio.sleep(0.01)
    await client.aclose()
    with anyio.fail_after(5), pytest.raises(ClientClosedError) as caught:
        await call
    assert ("no", True) == (caught.value.billed, caught.value.request_sent)


@pytest.mark.parametrize("status", [409, 422])
async def test_rejected_idempotency_key(make_client, status):
    """When the API rejects the idempotency key of a retry, the error of the first attempt is raised."""
    transport = FakeTransport(LOST, FakeResponse(b'{"error": "key_reused"}', status_code=status))
    client = make_client(transport, retry_policy=RetryPolicy(retry_unknown=True, jitter=lambda low, _high: low))
    with pytest.raises(APIConnectionError, match="reset") as caught:
        await client.generate("gpt-5", "Hi")
    assert "unknown" == caught.value.billed
    assert isinstance(caught.value.__cause__, APIStatusError)
    assert 2 == caught.value.attempts == len(transport.requests)
