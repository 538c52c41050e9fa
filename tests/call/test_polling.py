"""Polling for generations: `retrieve`, `wait` and `generate(wait=True)`."""

from __future__ import annotations

import json

import anyio
import pytest

from neuralbox_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    Generation,
    GenerationFailedError,
    InvalidParameterError,
    NotFoundError,
    RateLimitError,
    ResponseError,
    WaitTimeoutError,
)
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

REPLY = {"id": "gen_1", "status": "completed", "content": "Hello"}
PENDING = {"id": "gen_1", "status": "pending"}

LOST = APIConnectionError("reset", request_sent=True)


# ------------------------------------------------------------------------------------------------------------ retries


class Hanging(FakeTransport):
    """A transport that never gets as far as a connection."""

    async def send(self, *args):
        await anyio.sleep_forever()


# --------------------------------------------------------------------------------------------------------------- jobs


async def test_retrieve(make_client):
    """The state is asked for under one documented path, on 404 under the other; what worked is remembered."""
    not_found = FakeResponse(b'{"error": "not_found"}', status_code=404)
    transport = FakeTransport(not_found, REPLY)
    client = make_client(transport, base_url="https://x.example.com")

    for generation in ("gen_1", Generation(id=7), 7):
        assert "Hello" == (await client.retrieve(generation)).content
    assert ["/generate/status/gen_1", "/generate/gen_1", "/generate/7", "/generate/7"] == [
        request.url.removeprefix("https://x.example.com") for request in transport.requests
    ]


async def test_retrieve_what_is_not_there(make_client):
    """When neither path knows it, the first 404 is raised; nothing was billed."""
    transport = FakeTransport(FakeResponse(b"first", status=404), FakeResponse(b"second", status_code=404))
    with pytest.raises(NotFoundError, match="first") as caught:
        await make_client(transport).retrieve("gen_1")
    assert "no" == caught.value.billed


async def test_retrieve_failed(make_client):
    """A generation that failed raises, under whichever path it was found."""
    transport = FakeTransport(FakeResponse(b"", status_code=404), {"id": 1, "status": "failed", "error": "policy"})
    client = make_client(transport)
    for _ in range(2):
        with pytest.raises(GenerationFailedError, match="policy"):
            await client.retrieve(1)
    assert 3 == len(transport.requests)


async def test_get_lives_through_what_is_transient(make_client):
    """A GET costs nothing, so every transient failure of it is tried again."""
    transport = FakeTransport(LOST, FakeResponse(b"", status_code=502), REPLY)
    assert "Hello" == (await make_client(transport).retrieve(1)).content


@pytest.mark.parametrize("generation", [None, "", True, 1.5, Generation(status="pending")])
async def test_ids(make_client, generation):
    """What has no id is refused."""
    client = make_client(FakeTransport(REPLY))
    for call in (client.retrieve(generation), client.wait(generation)):
        with pytest.raises(InvalidParameterError, match="generation"):
            await call


async def test_pending(make_client):
    """A pending generation is returned as it is, or waited for on request."""
    client = make_client(FakeTransport(PENDING))
    assert "pending" == (await client.generate("gpt-5", "Hi")).status

    transport = FakeTransport(REPLY)
    assert "Hello" == (await make_client(transport).generate("gpt-5", "Hi", wait=True)).content
    assert 1 == len(transport.requests)


async def test_wait(make_client):
    """Waiting asks until the generation is completed, through transient failures."""
    transport = FakeTransport(PENDING, LOST, {**PENDING, "status": "queued"}, FakeResponse(b"", status_code=503), REPLY)
    client = make_client(transport, max_retries=0)

    assert "Hello" == (await client.wait("gen_1", poll_interval=0.001)).content
    assert 5 == len(transport.requests)


async def test_wait_after_generate(make_client, monkeypatch):
    """`generate(wait=True)` posts once and then asks."""
    monkeypatch.setattr("neuralbox_async._call.polling.DEFAULT_POLL_INTERVAL", 0.001)
    transport = FakeTransport(PENDING, PENDING, REPLY)
    client = make_client(transport)
    monkeypatch.setattr(type(client._caller).wait, "__kwdefaults__", {"interval": 0.001, "at_once": False})

    assert "Hello" == (await client.generate("gpt-5", "Hi", wait=True)).content
    assert ["POST", "GET", "GET"] == [request.method for request in transport.requests]


async def test_wait_for_what_is_finished(make_client):
    """A finished generation is not asked for."""
    transport = FakeTransport(REPLY)
    client = make_client(transport)

    assert "a" == (await client.wait(Generation(id=1, content="a"))).content
    with pytest.raises(GenerationFailedError):
        await client.wait(Generation(id=1, status="failed"))
    assert [] == transport.requests


async def test_wait_raises(make_client):
    """A failure is raised, and so is what asking again does not mend."""
    for answer, kind in [
        ({"id": 1, "status": "failed"}, GenerationFailedError),
        (FakeResponse(b"", status_code=401), APIStatusError),
        (FakeResponse(b"", status_code=404), NotFoundError),
        (APIConnectionError("certificate", retryable=False), APIConnectionError),
    ]:
        with anyio.fail_after(5), pytest.raises(kind):
            await make_client(FakeTransport(answer)).wait(1)


@pytest.mark.parametrize("answer", [PENDING, LOST])
async def test_wait_ends_with_its_time(make_client, answer):
    """When time is over, the last known state is in the error."""
    with anyio.fail_after(5), pytest.raises(WaitTimeoutError) as caught:
        await make_client(FakeTransport(answer)).wait("gen_1", timeout=0.05, poll_interval=0.01)

    assert ("pending", "gen_1", "unknown") == (
        caught.value.generation.status,
        caught.value.generation_id,
        caught.value.billed,
    )


async def test_wait_hangs_on_no_question(make_client):
    """A question without an answer does not outlast the deadline."""
    with anyio.fail_after(5), pytest.raises(APITimeoutError):
        await make_client(Hanging()).wait("gen_1", timeout=0.05)


@pytest.mark.parametrize("options", [{"poll_interval": 0}, {"poll_interval": None}, {"timeout": 0}])
async def test_invalid_waits(make_client, options):
    """Times that are none are refused."""
    with pytest.raises(InvalidParameterError):
        await make_client(FakeTransport(REPLY)).wait(1, **options)


# --------------------------------------------------------------------------------------------------------------- logs


async def test_wait_notices_what_finishes_at_the_end(make_client):
    """A generation that is finished during the last pause is noticed: the last question has time for its answer."""
    transport = FakeTransport(REPLY)
    with anyio.fail_after(5):
        reply = await make_client(transport).wait(Generation(id=1, status="pending"), timeout=0.2, poll_interval=5.0)
    assert "Hello" == reply.content


@pytest.mark.parametrize("remaining, pause", [(None, 4.0), (100, 4.0), (50, 4.0), (12, 8.0), (0, 16.0)])
async def test_polling_slows_down_with_the_headroom(make_client, monkeypatch, remaining, pause):
    """The less of the hour's requests is left, the slower the questions."""
    headers = (
        {} if remaining is None else {"x-ratelimit-limit-hour": "96", "x-ratelimit-remaining-hour": str(remaining)}
    )
    transport = FakeTransport(FakeResponse(json.dumps(PENDING).encode(), headers=headers), REPLY)
    client = make_client(transport)
    pauses = []

    async def sleep(_self, seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("neuralbox_async._call.executor.Executor.sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
    await client.wait("gen_1", poll_interval=4.0)

    assert [pytest.approx(pause)] == pauses


async def test_a_pending_generation_that_cannot_be_asked_for(make_client):
    """A pending answer without an id, or with one that no URL can carry, is an error of ours that may be billed."""
    for identifier, kind in [(None, ResponseError), ("\ud800", InvalidParameterError)]:
        client = make_client(FakeTransport({"id": identifier, "status": "pending"}))
        with pytest.raises(kind) as caught:
            await client.generate("gpt-5", "Hi", wait=True)
        assert "unknown" == caught.value.billed


async def test_wait_obeys_retry_after(make_client, monkeypatch):
    """A server that asks to wait longer than the interval is not asked before."""
    pauses = []

    async def sleep(_self, seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("neuralbox_async._call.executor.Executor.sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
    transport = FakeTransport(RateLimitError("429", status=429, retry_after=90.0), REPLY)
    await make_client(transport, max_retries=0).wait("gen_1", poll_interval=1.0, timeout=None)

    assert [pytest.approx(90.0)] == pauses
