"""`AsyncStream`: each event once and in order, terminal events, and errors that keep the text."""

from __future__ import annotations

import json

import pytest
from stream_bodies import DONE, END, EVENTS, RESET, START, WHOLE, delta, sse, stream_of

from neuralbox_async import (
    APITimeoutError,
    ContentDelta,
    Generation,
    GenerationEnd,
    GenerationStart,
    ResponseError,
    StreamInterruptedError,
    StreamTimeoutError,
    UnknownEvent,
    Usage,
)
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

COMPLETE = Generation(
    id="gen_1", status="completed", model="gpt-5", content="Hello, world", tokens_used=3, balance_remaining=297
)


async def test_every_cut(make_client):
    """The events and the generation do not depend on where the network cuts the stream."""
    for at in range(1, len(WHOLE)):
        client = make_client(FakeTransport(stream_of(WHOLE[:at], WHOLE[at:])))
        async with client.stream("gpt-5", "Hi") as stream:
            assert EVENTS == [event async for event in stream]
        assert COMPLETE == stream.generation


async def test_text_stream(make_client):
    """`text_stream` yields only the pieces of text."""
    async with make_client(FakeTransport(stream_of(WHOLE))).stream("gpt-5", "Hi") as stream:
        assert ["Hello", ", ", "world"] == [text async for text in stream.text_stream]
    assert "Hello, world" == stream.generation.content


async def test_get_final_generation(make_client):
    """`get_final_generation` reads the rest and returns the generation."""
    async with make_client(FakeTransport(stream_of(WHOLE))).stream("gpt-5", "Hi") as stream:
        assert EVENTS[:2] == [await anext(stream), await anext(stream)]
        assert COMPLETE == await stream.get_final_generation()


async def test_read_batch(make_client):
    """`read_batch` returns the events that arrived together, and an empty list after the end."""
    chunks = [sse(START, delta("Hello")), sse(delta(", "), delta("world"), END) + DONE]
    async with make_client(FakeTransport(stream_of(*chunks))).stream("gpt-5", "Hi") as stream:
        assert EVENTS[:2] == await stream.read_batch()
        assert EVENTS[2:] == await stream.read_batch()
        assert [] == await stream.read_batch()
        assert [] == await stream.read_batch()


async def test_a_batch_has_the_same_events(make_client):
    """`read_batch` returns the same events as the iteration, with the same *raw*."""
    odd = [{"type": "ping"}, {**delta("c"), "index": 1}]
    whole = sse(START, delta("a"), delta("b"), *odd, delta("d"), odd[0], delta(""), delta("e"), END) + DONE
    singly = make_client(FakeTransport(stream_of(whole))).stream("gpt-5", "Hi")
    together = make_client(FakeTransport(stream_of(whole))).stream("gpt-5", "Hi")
    async with singly, together:
        one_by_one = [event async for event in singly]
        batch = await together.read_batch()

        assert 10 == len(batch)
        assert [(event, event.raw) for event in one_by_one] == [(event, event.raw) for event in batch]
        assert [] == await together.read_batch()
    assert "abcde" == together.generation.content
    assert singly.generation == together.generation


@pytest.mark.parametrize(
    "chunks",
    [
        [sse(START, delta("Hi"), END)],  # no [DONE]
        [sse(START, delta("Hi")) + DONE],  # no generation_end
        [sse(START, delta("Hi"), END) + DONE + sse(delta("more")) + b"garbage"],
        [sse(START, delta("Hi"), END), sse(delta("more")) + DONE, RESET],
        [sse(START, delta("Hi"), END), RESET],
        [sse(START, delta("Hi"), END), APITimeoutError("late", request_sent=True)],
        [b": ping\n\n" + sse(START), b": ping\n\n", sse(delta(""), delta("Hi"), END) + DONE],
        [sse(START, delta("Hi")).replace(b"\n", b"\r\n"), DONE.replace(b"\n", b"\r")],
    ],
)
async def test_terminal_events(make_client, chunks):
    """`generation_end` or ``[DONE]`` ends a stream; data and failures after it are ignored."""
    client = make_client(FakeTransport(stream_of(*chunks)))
    async with client.stream("gpt-5", "Hi") as stream:
        generation = await stream.get_final_generation()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    assert ("completed", "Hi") == (generation.status, generation.content)


async def test_events_of_unknown_type(make_client):
    """An event of a type that this version does not know is an `UnknownEvent`; the text continues without it."""
    thinking = {"type": "thinking", "x": 1}
    async with make_client(FakeTransport(stream_of(sse(START, thinking, delta("Hi"), END)))).stream(
        "m", "Hi"
    ) as stream:
        assert UnknownEvent("thinking", thinking) in [event async for event in stream]
    assert "Hi" == stream.generation.content


async def test_usage(make_client):
    """The usage of the terminal event is in the generation."""
    end = {**END, "usage": {"total_tokens": 5}}
    async with make_client(FakeTransport(stream_of(sse(START, end)))).stream("m", "Hi") as stream:
        assert Usage(total_tokens=5) == (await stream.get_final_generation()).usage


# ------------------------------------------------------------------------------------------------ interrupted streams


INTERRUPTIONS = {
    "cut by EOF": ([], "the connection was closed", StreamInterruptedError),
    "cut inside an event": ([b'data: {"type": "content_'], "the connection was closed", StreamInterruptedError),
    "an event without its blank line": ([sse(delta("lost"))[:-1]], "the connection was closed", StreamInterruptedError),
    "reset": ([RESET], "reset", StreamInterruptedError),
    "stalled": ([APITimeoutError("no data", phase="stall", request_sent=True)], "no data", StreamTimeoutError),
    "error event": ([sse({"type": "error", "message": "overloaded"})], "overloaded", StreamInterruptedError),
    "error event without a reason": ([sse({"type": "error"})], "without a reason", StreamInterruptedError),
    "garbage": ([b"data: {garbage}\n\n"], "not JSON", StreamInterruptedError),
    "an array": ([b"data: []\n\n"], "array", StreamInterruptedError),
    "a delta that is not text": (
        [sse({"type": "content_delta", "delta": 5})],
        "expected a string",
        StreamInterruptedError,
    ),
}


@pytest.mark.parametrize("chunks, message, error_type", INTERRUPTIONS.values(), ids=INTERRUPTIONS)
async def test_interruptions(make_client, chunks, message, error_type):
    """A stream without a terminal event raises an error with the delivered text, and so does each later read."""
    response = stream_of(sse(START, delta("Hello"), delta(", ")), *chunks)
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi", recover=False) as stream:
        events = []
        with pytest.raises(error_type, match=message) as caught:
            async for event in stream:
                events.append(event)
        for read in (stream.read_batch, stream.get_final_generation, stream.__anext__):
            with pytest.raises(error_type) as again:
                await read()
            assert again.value is caught.value

    error = caught.value
    assert EVENTS[:3] == events
    assert ("Hello, ", "gen_1", "unknown", True) == (error.text, error.generation_id, error.billed, error.request_sent)
    assert "incomplete" == error.generation.status == stream.generation.status
    assert "Hello, " == stream.generation.content
    assert response.closed


async def test_events_before_a_malformed_event(make_client):
    """The events before a malformed event are delivered first."""
    response = stream_of(sse(START, delta("Hello")) + b"data: {\n\n" + sse(delta("never")))
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi", recover=False) as stream:
        assert EVENTS[:2] == await stream.read_batch()
        with pytest.raises(StreamInterruptedError) as caught:
            await stream.read_batch()
    assert isinstance(caught.value.__cause__, ResponseError)


async def test_reason_of_an_error_event(make_client):
    """The text of an error event is the *reason*."""
    response = stream_of(sse({"type": "error", "message": "overloaded"}))
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi") as stream:
        with pytest.raises(StreamInterruptedError) as caught:
            await stream.get_final_generation()
    assert ("overloaded", "") == (caught.value.reason, caught.value.text)


async def test_event_too_large(make_client):
    """An event larger than *max_event_bytes* ends the stream; the error has the text before it."""
    response = stream_of(sse(START, delta("Hello"), delta("x" * 500)))
    client = make_client(FakeTransport(response), max_event_bytes=200)
    async with client.stream("gpt-5", "Hi", recover=False) as stream:
        with pytest.raises(StreamInterruptedError, match="larger than 200 bytes") as caught:
            await stream.get_final_generation()
    assert "Hello" == caught.value.text


# ------------------------------------------------------------------------------ responses that are not event streams


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "text/plain", ""])
async def test_json_instead_of_events(make_client, content_type):
    """The JSON of a server that ignores ``stream`` is one delta and the end."""
    body = json.dumps({"id": 7, "model": "gpt-5", "content": "Hello", "tokens_used": 3}).encode()
    response = stream_of(b" ", body[:9], body[9:], content_type=content_type)
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi") as stream:
        assert [GenerationStart, ContentDelta, GenerationEnd][1:] == [type(event) async for event in stream]
    assert ("Hello", 7, 3) == (stream.generation.content, stream.generation.id, stream.generation.tokens_used)


@pytest.mark.parametrize(
    "body, message, billed",
    [
        (b"<html>Sign in</html>", "Sign in", "unknown"),
        (b'{"id": 7, "status": "failed", "error": "policy"}', "policy", "no"),
        (b'{"error": {"message": "Oops"}}', "Oops", "unknown"),
        (b"", "empty", "unknown"),
    ],
)
async def test_other_bodies_instead_of_events(make_client, body, message, billed):
    """HTML, a failed generation or an error in place of events is an error that quotes it."""
    async with make_client(FakeTransport(FakeResponse(body))).stream("gpt-5", "Hi") as stream:
        with pytest.raises(StreamInterruptedError, match=message) as caught:
            await stream.get_final_generation()
    assert billed == caught.value.billed


async def test_pending_instead_of_events(make_client):
    """A pending generation in place of events is waited for."""
    transport = FakeTransport({"id": 7, "status": "pending"}, {"id": 7, "status": "completed", "content": "Hello"})
    async with make_client(transport).stream("gpt-5", "Hi") as stream:
        assert "Hello" == (await stream.get_final_generation()).content


@pytest.mark.parametrize("recover", [True, False])
async def test_pending_instead_of_events_without_recovery(make_client, recover):
    """The error of a pending generation that is not recovered has its id: it may be billed, and can be retrieved."""
    not_found = FakeResponse(b"", status_code=404)
    transport = FakeTransport({"id": 7, "status": "pending"}, not_found)
    async with make_client(transport).stream("gpt-5", "Hi", recover=recover) as stream:
        with pytest.raises(StreamInterruptedError, match="pending") as caught:
            await stream.get_final_generation()
    assert (7, "unknown", "incomplete") == (
        caught.value.generation_id,
        caught.value.billed,
        caught.value.generation.status,
    )
    assert (3 if recover else 1) == len(transport.requests)


async def test_events_under_another_content_type(make_client):
    """Events are detected with any content type."""
    async with make_client(FakeTransport(stream_of(WHOLE, content_type="text/plain"))).stream("m", "Hi") as stream:
        assert COMPLETE == await stream.get_final_generation()
