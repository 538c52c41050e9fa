"""The attempts of one call: retries, their limits, and the error after the last one."""

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


# ------------------------------------------------------------------------------------------------------------ retries


@pytest.mark.parametrize(
    "answers, attempts",
    [
        ([REPLY], 1),
        ([REFUSED, REPLY], 2),
        ([REFUSED, RateLimitError("429", status=429), REPLY], 3),
        ([FakeResponse(b'{"error": "provider_error"}', status_code=500), REPLY], 2),
        ([FakeResponse(b'{"error": "model_unavailable", "retry_after": 0.001}', status_code=503), REPLY], 2),
    ],
)
async def test_repeats_what_cost_nothing(make_client, answers, attempts):
    """What surely was not billed is tried again until it succeeds."""
    transport = FakeTransport(*answers)

    assert "Hello" == (await make_client(transport).generate("gpt-5", "Hi")).content
    assert attempts == len(transport.requests)


@pytest.mark.parametrize(
    "answer, kind, billed, attempts",
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
async def test_gives_up(make_client, answer, kind, billed, attempts):
    """The error that is raised tells how often it was tried and what is known of the bill."""
    transport = FakeTransport(answer)
    with pytest.raises(kind) as caught:
        await make_client(transport).generate("gpt-5", "Hi", idempotency_key="mine")

    error = caught.value
    assert (billed, attempts, "mine") == (error.billed, error.attempts, error.idempotency_key)
    assert attempts == len(transport.requests)
    assert error.elapsed >= 0
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


async def test_body_of_a_broken_answer_is_kept(make_client):
    """What had come of an answer that broke off is in the error."""
    transport = FakeTransport(FakeResponse(b'{"content": "Once', LOST))
    with pytest.raises(APIConnectionError) as caught:
        await make_client(transport).generate("gpt-5", "Hi")
    assert b'{"content": "Once' == caught.value.body


@pytest.mark.parametrize("max_retries, attempts", [(0, 1), (1, 2), (5, 6)])
async def test_max_retries(make_client, max_retries, attempts):
    """The number of further attempts is the client's, the call's or the policy's."""
    for place in ("client", "call", "with_options"):
        transport = FakeTransport(REFUSED)
        client = make_client(transport, **({"max_retries": max_retries} if place == "client" else {}))
        if place == "with_options":
            client = client.with_options(max_retries=max_retries)
        with pytest.raises(APIConnectionError):
            await client.generate("gpt-5", "Hi", **({"max_retries": max_retries} if place == "call" else {}))
        assert attempts == len(transport.requests)


async def test_opting_in(make_client):
    """Who accepts to be billed twice gets unknown outcomes repeated, and a later refusal still says "unknown"."""
    transport = FakeTransport(LOST, REFUSED)
    client = make_client(transport).with_options(
        retry_policy=RetryPolicy(retry_unknown=True, uniform=lambda low, _high: low)
    )
    with pytest.raises(APIConnectionError, match="refused") as caught:
        await client.generate("gpt-5", "Hi")
    assert (3, "unknown", True) == (len(transport.requests), caught.value.billed, caught.value.request_sent)


async def test_budget(make_client):
    """In an outage the retry budget of the client, and of those derived from it, runs out."""
    transport = FakeTransport(REFUSED)
    client = make_client(transport)
    for _ in range(40):
        with pytest.raises(APIConnectionError):
            await client.with_options(timeout=5).generate("gpt-5", "Hi")
    assert 40 + 35 == len(transport.requests)


async def test_stream_is_requested_again_before_it_begins(make_client):
    """A stream's request is repeated like any other, until its answer has begun."""
    transport = FakeTransport(REFUSED, FakeResponse(b"data: [DONE]\n\n", headers={"content-type": "text/event-stream"}))
    async with make_client(transport).stream("gpt-5", "Hi") as stream:
        await stream.get_final_generation()
    assert 2 == len(transport.requests)


async def test_cancelled_during_the_wait(make_client):
    """A cancellation during a back-off wait ends the call at once; nothing more is sent."""
    transport = FakeTransport(REFUSED)
    client = make_client(transport, retry_policy=RetryPolicy(uniform=lambda _low, high: high))
    with anyio.move_on_after(0.05) as scope:
        await client.generate("gpt-5", "Hi")

    assert scope.cancelled_caught
    assert 1 == len(transport.requests)


async def test_closing_ends_a_wait(make_client):
    """A call that waits for its next attempt ends soon when the client is closed."""
    transport = FakeTransport(RateLimitError("429", status=429, retry_after=30.0))
    client = make_client(transport)
    call = asyncio.ensure_future(client.generate("gpt-5", "Hi"))
    await asyncio.sleep(0.01)
    await client.aclose()
    with anyio.fail_after(5), pytest.raises(ClientClosedError) as caught:
        await call
    assert ("no", True) == (caught.value.billed, caught.value.request_sent)


# --------------------------------------------------------------------------------------------------------------- logs


@pytest.mark.parametrize("status", [409, 422])
async def test_a_key_refused_as_repeated(make_client, status):
    """When a repetition is refused for its key, the first failure is what the caller needs to know."""
    transport = FakeTransport(LOST, FakeResponse(b'{"error": "key_reused"}', status_code=status))
    client = make_client(transport, retry_policy=RetryPolicy(retry_unknown=True, uniform=lambda low, _high: low))
    with pytest.raises(APIConnectionError, match="reset") as caught:
        await client.generate("gpt-5", "Hi")
    assert "unknown" == caught.value.billed
    assert isinstance(caught.value.__cause__, APIStatusError)
    assert 2 == caught.value.attempts == len(transport.requests)
