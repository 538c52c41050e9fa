"""`AsyncStream`: recovery of the rest of a stream that broke."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from stream_bodies import EVENTS, RESET, START, delta, sse, stream_of

from neuralbox_async import (
    ContentDelta,
    Generation,
    GenerationEnd,
    NeuralBoxError,
    NotFoundError,
    RateLimitError,
    ResponseError,
    StreamInterruptedError,
)
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")


async def recovered(make_client, *responses, **options):
    transport = FakeTransport(stream_of(sse(START, delta("Hello")), RESET), *responses)
    stream = make_client(transport).stream("gpt-5", "Hi", **options)
    async with stream:
        try:
            events = [event async for event in stream]
        except NeuralBoxError as error:
            events = error
    return transport, stream, events


async def test_recovers_the_rest(make_client):
    """A broken stream continues with the rest of the generation that the API completed; no second POST is sent."""
    whole = {
        "id": "gen_1",
        "status": "completed",
        "content": "Hello, world",
        "tokens_used": 3,
        "balance_remaining": 297,
    }
    transport, stream, events = await recovered(make_client, whole)

    assert [*EVENTS[:2], ContentDelta(", world"), EVENTS[-1]] == events
    assert Generation(**whole) == stream.generation
    assert ["POST", "GET"] == [request.method for request in transport.requests]


async def test_recovers_when_nothing_is_missing(make_client):
    """When only the terminal event is missing, recovery supplies it."""
    _, stream, events = await recovered(make_client, {"id": "gen_1", "status": "completed", "content": "Hello"})

    assert [*EVENTS[:2], GenerationEnd("gen_1")] == events
    assert stream.generation.completed


@pytest.mark.parametrize(
    "response, billed",
    [
        ({"id": "gen_1", "status": "completed", "content": "Good day"}, "yes"),
        ({"id": "gen_1", "status": "failed", "error": "policy"}, "no"),
        (NotFoundError("404", status_code=404), "unknown"),
        (ResponseError("not JSON"), "unknown"),
    ],
)
async def test_failed_recovery(make_client, response, billed):
    """After another text, a failure or an error, the interruption is raised with the text so far."""
    _, stream, error = await recovered(make_client, response)

    assert isinstance(error, StreamInterruptedError)
    assert ("Hello", billed) == (error.text, error.billed)
    assert ("Good day" if billed == "yes" else None) == (error.recovered and error.recovered.content)
    assert "incomplete" == stream.generation.status


async def test_recovery_waits_for_a_pending_generation(make_client, monkeypatch):
    """Recovery polls until the generation is finished."""
    monkeypatch.setattr("neuralbox_async._call.polling._RECOVERY_INTERVAL", 0.001)
    pending = {"id": "gen_1", "status": "pending"}
    transport, stream, _ = await recovered(
        make_client, pending, RateLimitError("", status_code=429), pending, {"id": "gen_1", "content": "Hello!"}
    )

    assert "Hello!" == stream.generation.content
    assert 5 == len(transport.requests)


async def test_recovery_is_bounded(make_client):
    """Recovery of a generation that stays pending ends at the timeout of the stream."""
    with anyio.fail_after(10):
        _, _, error = await recovered(make_client, {"id": "gen_1", "status": "pending"}, stall_timeout=30, timeout=0.2)

    assert isinstance(error, StreamInterruptedError)


async def test_no_recovery_without_an_id(make_client):
    """A stream without an id is not recovered."""
    transport = FakeTransport(stream_of(sse(delta("Hello"))))
    async with make_client(transport).stream("gpt-5", "Hi") as stream:
        with pytest.raises(StreamInterruptedError):
            await stream.get_final_generation()
    assert 1 == len(transport.requests)


async def test_recovery_of_a_polling_reader_ends(make_client):
    """The time for recovery counts over cancelled reads: a reader that polls gets the error as well."""

    class Pending(FakeTransport):
        async def send(self, request):
            if request.method == "POST":
                return stream_of(sse(START, delta("Hello")), RESET)
            return FakeResponse(b'{"id": "gen_1", "status": "pending"}')

    cancelled = 0
    async with make_client(Pending()).stream("gpt-5", "Hi", stall_timeout=0.3) as stream:
        assert EVENTS[:2] == await stream.read_batch()
        with pytest.raises(StreamInterruptedError, match="reset"):
            for _ in range(1000):
                with anyio.move_on_after(0.05) as scope:
                    await stream.read_batch()
                cancelled += scope.cancelled_caught
    assert 1 <= cancelled < 100
