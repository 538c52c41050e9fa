"""The facts of a response, the usage of clients, the rate limits as users see them, and the log of calls."""

from __future__ import annotations

import copy
import datetime as dt
import gc
import logging
import pickle
import threading
import time

import anyio
import pytest
from stream_bodies import RESET, START, WHOLE, delta, sse, stream_of
from transports import FunctionTransport, completed

from neuralbox_async import AsyncNeuralBox, ModelUsage, NeuralBoxError, ResponseInfo, _logging
from neuralbox_async.testing import FakeResponse, FakeTransport
from neuralbox_sync import NeuralBox

KEY = "nb_canary_key_that_must_not_be_seen_7f3a"
REPLY = {"id": "gen_1", "status": "completed", "model": "gpt-5", "content": "Hello", "tokens_used": 3}
BUSY = FakeResponse(b'{"error":{"code":"provider_error","message":"busy"}}', status_code=500)


def reply(**headers):
    body = b'{"id":"gen_1","status":"completed","content":"Hello","tokens_used":3}'
    return FakeResponse(body, headers={name.replace("_", "-"): value for name, value in headers.items()})


# ----------------------------------------------------------------------------------------------------------- response


async def test_response(make_client):
    """A generation has the status, headers and request id of its response, the attempts and the time."""
    client = make_client(FakeTransport(BUSY, reply(x_request_id="req_1")), max_retries=1)
    generation = await client.generate("gpt-5", "Hi")

    response = generation.response
    assert (200, 2, "req_1") == (response.status_code, response.attempts, response.request_id)
    assert "application/json" == response.headers["content-type"]
    assert response.elapsed > 0


async def test_response_is_part_of_no_comparison(make_client):
    """Two generations that differ in the response are equal; their text and JSON do not show it."""
    client = make_client(FakeTransport(reply(x_request_id="req_1"), reply(x_request_id="req_2")))
    first, second = await client.generate("gpt-5", "Hi"), await client.generate("gpt-5", "Hi")

    assert first == second
    assert "req_1" not in repr(first)
    assert "response" not in first.to_dict()


async def test_response_of_a_member_named_response(make_client):
    """A member ``response`` of the API is in *raw*, and is never taken for the facts of the response."""
    transport = FakeTransport({**REPLY, "response": {"status_code": 999, "headers": {}}})
    generation = await make_client(transport).generate("gpt-5", "Hi")

    assert 200 == generation.response.status_code
    assert 999 == generation.raw["response"]["status_code"]


async def test_response_without_the_key(make_client):
    """A key that the server echoes is masked, also in a pickle."""
    generation = await make_client(FakeTransport(reply(x_echo=KEY, x_request_id=KEY))).generate("gpt-5", "Hi")
    stored = pickle.dumps(generation)

    assert ("***", "***") == (generation.response.headers["x-echo"], generation.response.request_id)
    assert KEY.encode() not in stored
    assert generation.response.headers == pickle.loads(stored).response.headers
    assert "***" == copy.deepcopy(generation).response.headers["x-echo"]


async def test_response_of_a_stream(make_client):
    """A stream has the facts of its response from the moment it is open, and so has its generation."""
    stream = make_client(FakeTransport(stream_of(WHOLE, **{"x-request-id": "req_1"}))).stream("gpt-5", "Hi")
    assert stream.response is None
    async with stream:
        assert "req_1" == stream.response.request_id
        generation = await stream.get_final_generation()

    assert stream.response is generation.response


async def test_response_over_a_socket(neuralbox_server):
    """The facts come from the real transport as well, to the blocking client too."""
    with NeuralBox(**neuralbox_server.client_options) as client:
        generation = client.generate("gpt-5", "Hi")
        with client.stream("gpt-5", "Hi") as stream:
            assert 200 == stream.response.status_code

    assert ResponseInfo(status_code=200, attempts=1, elapsed=generation.response.elapsed) == generation.response
    assert "content-type" in pickle.loads(pickle.dumps(generation)).response.headers


# ------------------------------------------------------------------------------------------------------------- usage


async def test_usage(make_client):
    """Usage counts calls, tokens and unknown outcomes, by model."""
    transport = FakeTransport(REPLY, REPLY, RESET)
    client = make_client(transport)
    await client.generate("gpt-5", "Hi")
    await client.generate("claude", "Hi")
    with pytest.raises(NeuralBoxError):
        await client.generate("gpt-5", "Hi")
    usage = client.usage

    assert (3, 6, 1) == (usage.calls, usage.tokens_used, usage.unknown)
    assert {"gpt-5": ModelUsage(calls=2, tokens_used=3, unknown=1), "claude": ModelUsage(calls=1, tokens_used=3)} == (
        usage.by_model
    )


async def test_usage_of_streams(make_client):
    """A stream counts with its terminal event; one that breaks, is closed or is collected has an unknown outcome."""
    broken = stream_of(sse(START, delta("Hello")), RESET)
    client = make_client(FakeTransport(stream_of(WHOLE), broken, stream_of(WHOLE), stream_of(WHOLE)))
    async with client.stream("gpt-5", "Hi") as stream:
        await stream.read_batch()
    async with client.stream("gpt-5", "Hi", recover=False) as stream:
        with pytest.raises(NeuralBoxError):
            await stream.get_final_generation()
    async with client.stream("gpt-5", "Hi"):
        pass
    await client.stream("gpt-5", "Hi").__aenter__()
    gc.collect()

    assert ModelUsage(calls=4, tokens_used=3, unknown=3) == client.usage.by_model["gpt-5"]


async def test_usage_of_pending_generations(make_client, monkeypatch):
    """A pending generation has no bill yet; one that is waited for has."""
    monkeypatch.setattr("neuralbox_async._call.polling._pause", lambda *_: 0.0)
    pending = {"id": "gen_1", "status": "pending"}
    client = make_client(FakeTransport(pending, pending, REPLY))
    await client.generate("gpt-5", "Hi")
    assert ModelUsage(calls=1, pending=1) == client.usage.by_model["gpt-5"]

    await client.generate("gpt-5", "Hi", wait=True)
    assert ModelUsage(calls=2, tokens_used=3, pending=1) == client.usage.by_model["gpt-5"]


async def test_usage_of_cancelled_calls(make_client):
    """A call that is cancelled after it was sent may have been billed."""
    client = make_client(FakeTransport(FakeResponse(...)))
    with anyio.move_on_after(0.01):
        await client.generate("gpt-5", "Hi")

    assert ModelUsage(calls=1, unknown=1) == client.usage.by_model["gpt-5"]


async def test_usage_of_derived_clients(make_client):
    """A derived client counts its own calls, and the client that it is derived from counts them as well."""
    client = make_client(FakeTransport(REPLY))
    tenant = client.with_options(api_key="nb_tenant")
    await client.generate("gpt-5", "Hi")
    await tenant.with_options(timeout=5).generate("gpt-5", "Hi")

    assert (2, 1) == (client.usage.calls, tenant.usage.calls)


async def test_usage_of_batches(make_client):
    """The requests of a batch count, those of the account do not."""
    client = make_client(FunctionTransport(completed))
    async with client.generate_many(["a", "b", "c"], model="gpt-5") as results:
        async for _ in results:
            pass

    assert ModelUsage(calls=3, tokens_used=3) == client.usage.by_model["gpt-5"]


async def test_reset_usage(make_client):
    """A reset returns what it sets to 0, and leaves the count of the client above."""
    client = make_client(FakeTransport(REPLY))
    tenant = client.with_options(timeout=5)
    await tenant.generate("gpt-5", "Hi")

    assert 1 == tenant.reset_usage().calls
    assert (0, 1) == (tenant.usage.calls, client.usage.calls)


def test_usage_of_threads():
    """Threads lose no count, even when another resets it meanwhile."""
    transport = FunctionTransport(completed)
    with NeuralBox(KEY, transport=transport) as client:
        threads = [threading.Thread(target=lambda: [client.generate("gpt-5", "Hi") for _ in range(25)]) for _ in "1234"]
        for thread in threads:
            thread.start()
        counted = 0
        while any(thread.is_alive() for thread in threads):
            counted += client.reset_usage().calls
            time.sleep(0.001)

        assert 100 == counted + client.usage.calls


# ------------------------------------------------------------------------------------------------------- rate limits


async def test_rate_limits(make_client):
    """The rate limits are those of the latest response; before the first they are unknown."""
    reset = int(time.time()) + 600
    headers = {
        "x-ratelimit-limit-hour": "100",
        "x-ratelimit-remaining-hour": "42",
        "x-ratelimit-reset-hour": str(reset),
        "x-ratelimit-limit-day": "1000",
        "x-ratelimit-remaining-day": "900",
    }
    client = make_client(FakeTransport(FakeResponse(b'{"id":"g","content":"Hi"}', headers=headers)))
    assert client.rate_limits.hour.limit is None
    await client.generate("gpt-5", "Hi")
    hour, day = client.rate_limits.hour, client.rate_limits.day

    assert (100, 42, 1000, 900, None) == (hour.limit, hour.remaining, day.limit, day.remaining, day.resets_at)
    assert abs(hour.resets_at - dt.datetime.fromtimestamp(reset, dt.UTC)) < dt.timedelta(seconds=30)


# --------------------------------------------------------------------------------------------------------------- log


async def test_log_has_facts(make_client, caplog):
    """The end of a call is logged with its facts, in the message and as attributes of the record."""
    caplog.set_level(logging.DEBUG)
    await make_client(FakeTransport(BUSY, reply(x_request_id="req_1")), max_retries=1).generate("gpt-5", "my prompt")
    record = caplog.records[-1]

    assert "POST /generate: completed in" in record.getMessage()
    assert "attempt 2, 3 tokens (request id req_1)" in record.getMessage()
    assert (2, "req_1", 3) == (
        record.neuralbox_attempt,
        record.neuralbox_request_id,
        record.neuralbox_tokens_used,
    )
    assert record.neuralbox_elapsed > 0
    assert "my prompt" not in caplog.text + repr([vars(record) for record in caplog.records])


async def test_log_of_failures(make_client, caplog):
    """A call that fails is logged at the level of retries, with the API's code and without its message."""
    caplog.set_level(logging.INFO)
    with pytest.raises(NeuralBoxError):
        await make_client(FakeTransport(BUSY), max_retries=0).generate("gpt-5", "Hi")

    assert "failed with provider_error in" in caplog.text
    assert "busy" not in caplog.text


async def test_log_beside_a_record_factory(make_client, caplog, monkeypatch):
    """An application whose record factory sets ``request_id`` itself can log as well."""
    original = logging.getLogRecordFactory()

    def factory(*args, **kwargs):
        record = original(*args, **kwargs)
        record.request_id = "of the application"
        return record

    caplog.set_level(logging.DEBUG)
    logging.setLogRecordFactory(factory)
    try:
        await make_client(FakeTransport(reply(x_request_id="req_1"))).generate("gpt-5", "Hi")
    finally:
        logging.setLogRecordFactory(original)

    assert {"of the application"} == {record.request_id for record in caplog.records if record.name == "neuralbox"}


def test_wrong_log_level(monkeypatch):
    """A wrong value of NEURALBOX_LOG is one warning in the process."""
    monkeypatch.setattr(_logging, "_warned", set())
    monkeypatch.setenv("NEURALBOX_LOG", "verbose")
    with pytest.warns(UserWarning, match="NEURALBOX_LOG must be debug or info, not 'verbose'") as caught:
        [AsyncNeuralBox(KEY) for _ in range(2)]

    assert 1 == len(caught)
