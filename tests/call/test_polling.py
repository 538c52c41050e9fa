"""Polling for generations: `retrieve`, `wait` and `generate(wait=True)`."""

from __future__ import annotations

import functools
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
    NeuralBoxError,
    NotFoundError,
    RateLimitError,
    ResponseError,
    WaitTimeoutError,
)
from neuralbox_async._call import polling
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

REPLY = {"id": "gen_1", "status": "completed", "content": "Hello"}
PENDING = {"id": "gen_1", "status": "pending"}

LOST = APIConnectionError("reset", request_sent=True)


class Hanging(FakeTransport):
    """A transport that never connects."""

    async def send(self, request):
        await anyio.sleep_forever()


# ----------------------------------------------------------------------------------------------------------- retrieve


async def test_retrieve(make_client):
    """After a 404 from one documented path, `retrieve` uses the other, and goes on using it."""
    not_found = FakeResponse(b'{"error": "not_found"}', status_code=404)
    transport = FakeTransport(not_found, REPLY)
    client = make_client(transport, base_url="https://x.example.com")

    for generation in ("gen_1", Generation(id=7), 7):
        assert "Hello" == (await client.retrieve(generation)).content
    assert ["/generate/status/gen_1", "/generate/gen_1", "/generate/7", "/generate/7"] == [
        request.url.removeprefix("https://x.example.com") for request in transport.requests
    ]


async def test_retrieve_an_unknown_generation(make_client):
    """When neither path has the generation, the first 404 is raised, which says nothing of its bill."""
    transport = FakeTransport(FakeResponse(b"first", status_code=404), FakeResponse(b"second", status_code=404))
    with pytest.raises(NotFoundError, match="first") as caught:
        await make_client(transport).retrieve("gen_1")
    assert ("unknown", "gen_1") == (caught.value.billed, caught.value.generation_id)


async def test_retrieve_a_failed_generation(make_client):
    """Retrieving a failed generation raises its error, from either path."""
    transport = FakeTransport(FakeResponse(b"", status_code=404), {"id": 1, "status": "failed", "error": "policy"})
    client = make_client(transport)
    for _ in range(2):
        with pytest.raises(GenerationFailedError, match="policy"):
            await client.retrieve(1)
    assert 3 == len(transport.requests)


async def test_a_get_is_retried(make_client):
    """A GET costs nothing, so it is retried after each transient failure."""
    transport = FakeTransport(LOST, FakeResponse(b"", status_code=502), REPLY)
    assert "Hello" == (await make_client(transport).retrieve(1)).content


@pytest.mark.parametrize("generation", [None, "", True, 1.5, Generation(status="pending")])
async def test_invalid_ids(make_client, generation):
    """An invalid id is rejected."""
    client = make_client(FakeTransport(REPLY))
    for call in (client.retrieve(generation), client.wait(generation)):
        with pytest.raises(InvalidParameterError, match="generation"):
            await call


# --------------------------------------------------------------------------------------------------------------- wait


async def test_pending(make_client):
    """`generate` returns a pending generation; with *wait* it returns the finished one."""
    client = make_client(FakeTransport(PENDING))
    assert "pending" == (await client.generate("gpt-5", "Hi")).status

    transport = FakeTransport(REPLY)
    assert "Hello" == (await make_client(transport).generate("gpt-5", "Hi", wait=True)).content
    assert 1 == len(transport.requests)


async def test_wait(make_client):
    """`wait` polls until the generation is completed, and survives transient failures."""
    transport = FakeTransport(PENDING, LOST, {**PENDING, "status": "queued"}, FakeResponse(b"", status_code=503), REPLY)
    client = make_client(transport, max_retries=0)

    assert "Hello" == (await client.wait("gen_1", poll_interval=0.001)).content
    assert 5 == len(transport.requests)


async def test_wait_after_generate(make_client, monkeypatch):
    """`generate(wait=True)` sends one POST and then polls."""
    wait = functools.partial(polling.wait, interval=0.001)
    monkeypatch.setattr(polling, "wait", wait)
    transport = FakeTransport(PENDING, PENDING, REPLY)

    assert "Hello" == (await make_client(transport).generate("gpt-5", "Hi", wait=True)).content
    assert ["POST", "GET", "GET"] == [request.method for request in transport.requests]


async def test_wait_for_a_finished_generation(make_client):
    """`wait` sends nothing for a finished generation."""
    transport = FakeTransport(REPLY)
    client = make_client(transport)

    assert "a" == (await client.wait(Generation(id=1, content="a"))).content
    with pytest.raises(GenerationFailedError):
        await client.wait(Generation(id=1, status="failed"))
    assert [] == transport.requests


async def test_errors_of_wait(make_client):
    """`wait` raises the failure of the generation, and each error that is not transient."""
    for response, error_type in [
        ({"id": 1, "status": "failed"}, GenerationFailedError),
        (FakeResponse(b"", status_code=401), APIStatusError),
        (FakeResponse(b"", status_code=404), NotFoundError),
        (APIConnectionError("certificate", retryable=False), APIConnectionError),
    ]:
        with anyio.fail_after(5), pytest.raises(error_type):
            await make_client(FakeTransport(response)).wait(1)


@pytest.mark.parametrize("response", [PENDING, LOST])
async def test_wait_times_out(make_client, response):
    """The error of a wait that times out has the last known state."""
    with anyio.fail_after(5), pytest.raises(WaitTimeoutError) as caught:
        await make_client(FakeTransport(response)).wait("gen_1", timeout=0.05, poll_interval=0.01)

    assert ("pending", "gen_1", "unknown") == (
        caught.value.generation.status,
        caught.value.generation_id,
        caught.value.billed,
    )


async def test_status_request_without_a_response(make_client):
    """A status request without a response ends at the deadline."""
    with anyio.fail_after(5), pytest.raises(APITimeoutError):
        await make_client(Hanging()).wait("gen_1", timeout=0.05)


@pytest.mark.parametrize("options", [{"poll_interval": 0}, {"poll_interval": None}, {"timeout": 0}])
async def test_invalid_waits(make_client, options):
    """Invalid times are rejected."""
    with pytest.raises(InvalidParameterError):
        await make_client(FakeTransport(REPLY)).wait(1, **options)


async def test_last_status_request(make_client):
    """The last status request is sent early enough for its response to arrive before the deadline."""
    transport = FakeTransport(REPLY)
    with anyio.fail_after(5):
        reply = await make_client(transport).wait(Generation(id=1, status="pending"), timeout=0.2, poll_interval=5.0)
    assert "Hello" == reply.content


@pytest.mark.parametrize("remaining, pause", [(None, 4.0), (100, 4.0), (50, 4.0), (12, 8.0), (0, 16.0)])
async def test_polling_slows_down_near_the_rate_limit(make_client, monkeypatch, remaining, pause):
    """Polling slows down when few of the hour's requests remain."""
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


async def test_pending_generation_with_an_unusable_id(make_client):
    """A pending generation without an id, or with one that no URL can contain, is an error that may be billed."""
    for identifier, error_type in [(None, ResponseError), ("\ud800", InvalidParameterError)]:
        client = make_client(FakeTransport({"id": identifier, "status": "pending"}))
        with pytest.raises(error_type) as caught:
            await client.generate("gpt-5", "Hi", wait=True, idempotency_key="mine")
        assert ("unknown", 1, "mine") == (caught.value.billed, caught.value.attempts, caught.value.idempotency_key)


@pytest.mark.parametrize(
    "response, billed",
    [
        (PENDING, "unknown"),
        (FakeResponse(b"", status_code=401), "unknown"),
        ({"id": "gen_1", "status": "failed", "error": "policy"}, "no"),
    ],
)
async def test_error_of_polling_has_the_facts_of_the_call(make_client, monkeypatch, response, billed):
    """An error of polling in `generate` has the facts of the call: its key, attempts, generation and billing status."""
    monkeypatch.setattr(polling, "wait", functools.partial(polling.wait, interval=0.001))
    client = make_client(FakeTransport(PENDING, response))
    with pytest.raises(NeuralBoxError) as caught:
        await client.generate("gpt-5", "Hi", wait=True, timeout=0.1, idempotency_key="mine")

    error = caught.value
    assert ("mine", 1, billed) == (error.idempotency_key, error.attempts, error.billed)
    assert "gen_1" == error.generation_id
    assert error.request_sent


async def test_wait_obeys_retry_after(make_client, monkeypatch):
    """The next status request is not sent before the *retry_after* of a 429 has passed."""
    pauses = []

    async def sleep(_self, seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("neuralbox_async._call.executor.Executor.sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
    transport = FakeTransport(RateLimitError("429", status_code=429, retry_after=90.0), REPLY)
    await make_client(transport, max_retries=0).wait("gen_1", poll_interval=1.0, timeout=None)

    assert [pytest.approx(90.0)] == pauses


# -------------------------------------------------------------------------------------------------------- the interval


@pytest.fixture
def pauses(monkeypatch):
    """Return the pauses between status requests, which take no time."""
    seconds = []

    async def sleep(_self, pause: float) -> None:
        seconds.append(pytest.approx(pause))

    monkeypatch.setattr("neuralbox_async._call.executor.Executor.sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
    return seconds


ETA = {**PENDING, "eta_seconds": 12}


@pytest.mark.parametrize(
    "options, eta, pause",
    [
        ({"poll_interval": 0.1}, 12, 0.1),
        ({"poll_interval": 20.0}, 12, 20.0),
        ({"poll_interval": 5.0}, 12, 5.0),  # the default as well, if the caller gives it
        ({}, 12, 12.0),
        ({}, 2, 5.0),
        ({}, 10_000, 30.0),
        ({}, None, 5.0),
        ({}, -7, 5.0),
    ],
)
async def test_a_given_interval_holds(make_client, pauses, options, eta, pause):
    """The ``eta_seconds`` of the API stretches the default interval only."""
    pending = {**PENDING, "eta_seconds": eta}
    client = make_client(FakeTransport(pending, pending, REPLY))

    await client.wait("gen_1", timeout=None, **options)

    assert [pause, pause] == pauses
    await make_client(FakeTransport(REPLY)).wait(
        Generation(id="gen_1", status="pending", eta_seconds=eta), timeout=None, **options
    )
    assert [pause] * 3 == pauses


async def test_a_given_interval_still_backs_off(make_client, pauses):
    """A given interval doubles after a transient failure, and a 429 with a wait is obeyed."""
    limited = RateLimitError("429", status_code=429, retry_after=90.0)
    transport = FakeTransport(ETA, LOST, ETA, limited, ETA, REPLY)

    await make_client(transport, max_retries=0).wait("gen_1", timeout=None, poll_interval=1.0)

    assert [1.0, 2.0, 1.0, 90.0, 1.0] == pauses


async def test_the_default_intervals(make_client, pauses):
    """`generate(wait=True)` and the recovery of a stream use the hint of the API."""
    await make_client(FakeTransport(ETA, ETA, REPLY)).generate("gpt-5", "Hi", wait=True)
    assert [12.0, 12.0] == pauses

    async with make_client(FakeTransport(PENDING, ETA, PENDING, REPLY)).stream("gpt-5", "Hi") as stream:
        assert "Hello" == (await stream.get_final_generation()).content
    assert [12.0, 12.0, 12.0, 0.5] == pauses


# ---------------------------------------------------------------------------------------------------- without an id


@pytest.mark.parametrize("status", ["pending", "queued", "x"])
async def test_an_unfinished_generation_without_an_id(make_client, status):
    """An unfinished generation without an id is waited for by nobody: the error comes at once, possibly billed."""
    transport = FakeTransport({"status": status, "content": "Hel", "eta_seconds": 5})
    client = make_client(transport)
    generation = await client.generate("gpt-5", "Hi")
    assert (status, None) == (generation.status, generation.id)

    with anyio.fail_after(5):
        with pytest.raises(ResponseError, match=f"is {status} and has no id") as caught:
            await client.generate("gpt-5", "Hi", wait=True, timeout=None)
        assert ("unknown", True, "$.id", "Hel") == (
            caught.value.billed,
            caught.value.request_sent,
            caught.value.path,
            caught.value.text,
        )
        assert {"status": status, "content": "Hel", "eta_seconds": 5} == json.loads(caught.value.body)
        for call in (client.wait(generation, timeout=None), client.retrieve(generation)):
            with pytest.raises(InvalidParameterError, match="generation") as refused:
                await call
            assert "unknown" == refused.value.billed
    assert ["POST", "POST"] == [request.method for request in transport.requests]


@pytest.mark.parametrize("odd", ["[" * 900 + "]" * 900, "1" * 5000])
async def test_an_unfinished_generation_with_odd_members(make_client, odd):
    """A pending generation without an id that cannot be represented is the same error."""
    transport = FakeTransport(FakeResponse(b'{"status": "pending", "odd": %b}' % odd.encode()))
    with pytest.raises(ResponseError) as caught:
        await make_client(transport).generate("gpt-5", "Hi", wait=True)
    assert "unknown" == caught.value.billed


async def test_an_invalid_id_of_the_user_is_not_billed(make_client):
    """An id that the user got wrong, or a finished generation without one, says nothing of a bill."""
    client = make_client(FakeTransport(REPLY))
    for generation in ("", None, Generation(status="completed")):
        with pytest.raises(InvalidParameterError) as caught:
            await client.retrieve(generation)
        assert "no" == caught.value.billed


async def test_status_responses_without_an_id(make_client):
    """A status response without an id describes the generation that was asked for, in results and in errors."""
    whole = await make_client(FakeTransport({"status": "completed", "content": "Hello"})).retrieve("gen_1")
    assert ("gen_1", "Hello") == (whole.id, whole.content)

    for call in ("retrieve", "wait"):
        with pytest.raises(GenerationFailedError) as failed:
            await getattr(make_client(FakeTransport({"status": "failed", "error": "policy"})), call)("gen_1")
        assert ("gen_1", "gen_1", "policy") == (
            failed.value.generation_id,
            failed.value.generation.id,
            failed.value.reason,
        )
        assert (1, "no") == (failed.value.attempts, failed.value.billed)

    with anyio.fail_after(5), pytest.raises(WaitTimeoutError) as timed_out:
        await make_client(FakeTransport({"status": "pending"})).wait("gen_1", timeout=0.05, poll_interval=0.01)
    assert ("gen_1", "gen_1") == (timed_out.value.generation_id, timed_out.value.generation.id)
