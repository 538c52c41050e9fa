"""`AsyncStream`: every event once and in order, an end that is known to be the end, and errors that keep the text."""

from __future__ import annotations

import asyncio
import gc
import json

import anyio
import anyio.lowlevel
import pytest

from neuralbox_async import (
    APIConnectionError,
    APITimeoutError,
    ClientClosedError,
    ContentDelta,
    Generation,
    GenerationEnd,
    GenerationStart,
    NeuralBoxError,
    NotFoundError,
    RateLimitError,
    ResponseError,
    StreamInterruptedError,
    StreamStateError,
    StreamTimeoutError,
    UnknownEvent,
    Usage,
)
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

START = {"type": "generation_start", "id": "gen_1", "model": "gpt-5"}
END = {"type": "generation_end", "id": "gen_1", "tokens_used": 3, "balance_remaining": 297}
DONE = b"data: [DONE]\n\n"
RESET = APIConnectionError("reset", request_sent=True)


def delta(text: str) -> dict:
    return {"type": "content_delta", "delta": text}


def sse(*events: dict) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def stream_of(*chunks, content_type="text/event-stream", **headers):
    return FakeResponse(*chunks, headers={"content-type": content_type, **headers})


WHOLE = sse(START, delta("Hello"), delta(", "), delta("world"), END) + DONE
EVENTS = [
    GenerationStart("gen_1", "gpt-5"),
    ContentDelta("Hello"),
    ContentDelta(", "),
    ContentDelta("world"),
    GenerationEnd("gen_1", 3, 297),
]
COMPLETE = Generation(
    id="gen_1", status="completed", model="gpt-5", content="Hello, world", tokens_used=3, balance_remaining=297
)


async def test_every_cut(make_client):
    """Wherever the network cuts a stream, the events and the generation are the same."""
    for at in range(1, len(WHOLE)):
        client = make_client(FakeTransport(stream_of(WHOLE[:at], WHOLE[at:])))
        async with client.stream("gpt-5", "Hi") as stream:
            assert EVENTS == [event async for event in stream]
        assert COMPLETE == stream.generation


async def test_text(make_client):
    """`text` gives the pieces of text only."""
    async with make_client(FakeTransport(stream_of(WHOLE))).stream("gpt-5", "Hi") as stream:
        assert ["Hello", ", ", "world"] == [text async for text in stream.text]
    assert "Hello, world" == stream.generation.content


async def test_until_done(make_client):
    """`until_done` reads the rest and returns the generation."""
    async with make_client(FakeTransport(stream_of(WHOLE))).stream("gpt-5", "Hi") as stream:
        assert EVENTS[:2] == [await anext(stream), await anext(stream)]
        assert COMPLETE == await stream.until_done()


async def test_batches(make_client):
    """`read_batch` gives what came together, and an empty list at the end, again and again."""
    chunks = [sse(START, delta("Hello")), sse(delta(", "), delta("world"), END) + DONE]
    async with make_client(FakeTransport(stream_of(*chunks))).stream("gpt-5", "Hi") as stream:
        assert EVENTS[:2] == await stream.read_batch()
        assert EVENTS[2:] == await stream.read_batch()
        assert [] == await stream.read_batch()
        assert [] == await stream.read_batch()


async def test_a_batch_is_the_same_events(make_client):
    """What `read_batch` makes in bulk is, with the whole of each event, what one after the other gives."""
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
async def test_ends(make_client, chunks):
    """`generation_end` or ``[DONE]`` ends a stream; what follows or breaks after it is of no interest."""
    client = make_client(FakeTransport(stream_of(*chunks)))
    async with client.stream("gpt-5", "Hi") as stream:
        generation = await stream.until_done()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    assert ("completed", "Hi") == (generation.status, generation.content)


async def test_events_of_unknown_type(make_client):
    """Events that this version does not know are passed on; the text goes on without them."""
    thinking = {"type": "thinking", "x": 1}
    async with make_client(FakeTransport(stream_of(sse(START, thinking, delta("Hi"), END)))).stream(
        "m", "Hi"
    ) as stream:
        assert UnknownEvent("thinking", thinking) in [event async for event in stream]
    assert "Hi" == stream.generation.content


async def test_usage(make_client):
    """Usage that the last event tells of is kept."""
    end = {**END, "usage": {"total_tokens": 5}}
    async with make_client(FakeTransport(stream_of(sse(START, end)))).stream("m", "Hi") as stream:
        assert Usage(total_tokens=5) == (await stream.until_done()).usage


# ------------------------------------------------------------------------------------------------- streams that break

BREAKS = {
    "cut by EOF": ([], "the connection was closed", StreamInterruptedError),
    "cut inside an event": ([b'data: {"type": "content_'], "the connection was closed", StreamInterruptedError),
    "an event without its blank line": ([sse(delta("lost"))[:-1]], "the connection was closed", StreamInterruptedError),
    "reset": ([RESET], "reset", StreamInterruptedError),
    "stalled": ([APITimeoutError("no data", phase="stall", request_sent=True)], "no data", StreamTimeoutError),
    "error event": ([sse({"type": "error", "message": "overloaded"})], "overloaded", StreamInterruptedError),
    "error event without words": ([sse({"type": "error"})], "no reason", StreamInterruptedError),
    "garbage": ([b"data: {garbage}\n\n"], "not JSON", StreamInterruptedError),
    "an array": ([b"data: []\n\n"], "array", StreamInterruptedError),
    "a delta that is no text": (
        [sse({"type": "content_delta", "delta": 5})],
        "expected a string",
        StreamInterruptedError,
    ),
}


@pytest.mark.parametrize("chunks, message, kind", BREAKS.values(), ids=BREAKS)
async def test_breaks(make_client, chunks, message, kind):
    """A stream that ends otherwise raises, with exactly the text that was delivered, and goes on raising the same."""
    response = stream_of(sse(START, delta("Hello"), delta(", ")), *chunks)
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi", recover=False) as stream:
        events = []
        with pytest.raises(kind, match=message) as caught:
            async for event in stream:
                events.append(event)
        for read in (stream.read_batch, stream.until_done, stream.__anext__):
            with pytest.raises(kind) as again:
                await read()
            assert again.value is caught.value

    error = caught.value
    assert EVENTS[:3] == events
    assert ("Hello, ", "gen_1", "unknown", True) == (error.text, error.generation_id, error.billed, error.request_sent)
    assert "incomplete" == error.generation.status == stream.generation.status
    assert "Hello, " == stream.generation.content
    assert response.closed


async def test_events_before_a_break_in_the_same_chunk(make_client):
    """What came before a broken event is delivered first, singly or in a batch."""
    response = stream_of(sse(START, delta("Hello")) + b"data: {\n\n" + sse(delta("never")))
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi", recover=False) as stream:
        assert EVENTS[:2] == await stream.read_batch()
        with pytest.raises(StreamInterruptedError) as caught:
            await stream.read_batch()
    assert isinstance(caught.value.__cause__, ResponseError)


async def test_reason_of_an_error_event(make_client):
    """The API's own words are an attribute."""
    response = stream_of(sse({"type": "error", "message": "overloaded"}))
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi") as stream:
        with pytest.raises(StreamInterruptedError) as caught:
            await stream.until_done()
    assert ("overloaded", "") == (caught.value.reason, caught.value.text)


async def test_event_too_large(make_client):
    """An event above the bound ends the stream, with the text before it."""
    response = stream_of(sse(START, delta("Hello"), delta("x" * 500)))
    client = make_client(FakeTransport(response), max_event_bytes=200)
    async with client.stream("gpt-5", "Hi", recover=False) as stream:
        with pytest.raises(StreamInterruptedError, match="larger than 200 bytes") as caught:
            await stream.until_done()
    assert "Hello" == caught.value.text


# ----------------------------------------------------------------------------------------------------------- recovery


async def recovered(make_client, *answers, **options):
    transport = FakeTransport(stream_of(sse(START, delta("Hello")), RESET), *answers)
    stream = make_client(transport).stream("gpt-5", "Hi", **options)
    async with stream:
        try:
            events = [event async for event in stream]
        except NeuralBoxError as error:
            events = error
    return transport, stream, events


async def test_recovers_the_rest(make_client):
    """A broken stream goes on with the rest of the generation that the API finished; nothing is posted again."""
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
    """When only the last event was missing, it is made up for."""
    _, stream, events = await recovered(make_client, {"id": "gen_1", "status": "completed", "content": "Hello"})

    assert [*EVENTS[:2], GenerationEnd("gen_1")] == events
    assert stream.generation.completed


@pytest.mark.parametrize(
    "answer, billed",
    [
        ({"id": "gen_1", "status": "completed", "content": "Good day"}, "yes"),
        ({"id": "gen_1", "status": "failed", "error": "policy"}, "no"),
        (NotFoundError("404", status=404), "unknown"),
        (ResponseError("not JSON"), "unknown"),
    ],
)
async def test_recovery_in_vain(make_client, answer, billed):
    """Another text, a failure or no generation leave the interruption, with the text so far."""
    _, stream, error = await recovered(make_client, answer)

    assert isinstance(error, StreamInterruptedError)
    assert ("Hello", billed) == (error.text, error.billed)
    assert ("Good day" if billed == "yes" else None) == (error.recovered and error.recovered.content)
    assert "incomplete" == stream.generation.status


async def test_recovery_waits_for_a_pending_generation(make_client, monkeypatch):
    """A generation that is not finished yet is asked for again."""
    monkeypatch.setattr("neuralbox_async._calls._RECOVERY_INTERVAL", 0.001)
    pending = {"id": "gen_1", "status": "pending"}
    transport, stream, _ = await recovered(
        make_client, pending, RateLimitError("", status=429), pending, {"id": "gen_1", "content": "Hello!"}
    )

    assert "Hello!" == stream.generation.content
    assert 5 == len(transport.requests)


async def test_recovery_is_bounded(make_client):
    """A generation that stays pending does not hold the reader for ever."""
    with anyio.fail_after(10):
        _, _, error = await recovered(make_client, {"id": "gen_1", "status": "pending"}, stall_timeout=30, timeout=0.2)

    assert isinstance(error, StreamInterruptedError)


async def test_no_recovery_without_an_id(make_client):
    """Without an id there is nothing to ask for."""
    transport = FakeTransport(stream_of(sse(delta("Hello"))))
    async with make_client(transport).stream("gpt-5", "Hi") as stream:
        with pytest.raises(StreamInterruptedError):
            await stream.until_done()
    assert 1 == len(transport.requests)


# ----------------------------------------------------------------------------------- answers that are no event stream


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "text/plain", ""])
async def test_json_instead_of_events(make_client, content_type):
    """A server that ignores ``stream`` is understood: one delta, then the end."""
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
    """HTML, a failure or an error where events were asked for is an error that says so."""
    async with make_client(FakeTransport(FakeResponse(body))).stream("gpt-5", "Hi") as stream:
        with pytest.raises(StreamInterruptedError, match=message) as caught:
            await stream.until_done()
    assert billed == caught.value.billed


async def test_pending_instead_of_events(make_client):
    """A pending answer where events were asked for is waited for."""
    transport = FakeTransport({"id": 7, "status": "pending"}, {"id": 7, "status": "completed", "content": "Hello"})
    async with make_client(transport).stream("gpt-5", "Hi") as stream:
        assert "Hello" == (await stream.until_done()).content


async def test_events_under_another_content_type(make_client):
    """Events are understood whatever the server calls them."""
    async with make_client(FakeTransport(stream_of(WHOLE, content_type="text/plain"))).stream("m", "Hi") as stream:
        assert COMPLETE == await stream.until_done()


# ---------------------------------------------------------------------------------------- who reads, opens and closes


async def test_cancelled_read_loses_nothing(make_client):
    """A read that timed out loses nothing: the next one goes on."""
    gate = anyio.Event()

    class Slow(FakeResponse):
        async def read_chunk(self, deadline=0.0):
            await gate.wait()
            return await super().read_chunk(deadline)

    response = Slow(*(bytes([byte]) for byte in WHOLE), headers={"content-type": "text/event-stream"})
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi") as stream:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.01)
        gate.set()
        assert EVENTS == [event async for event in stream]


async def test_leaving_closes(make_client):
    """Leaving early closes the connection: by break, exception or cancellation."""
    responses = [stream_of(sse(START, delta("Hello")), ...) for _ in range(3)]
    client = make_client(FakeTransport(*responses))

    async with client.stream("gpt-5", "Hi") as stream:
        async for _ in stream:
            break
    assert "incomplete" == stream.generation.status
    with pytest.raises(ZeroDivisionError):
        async with client.stream("gpt-5", "Hi") as stream:
            1 / 0
    with anyio.move_on_after(0.01):
        async with client.stream("gpt-5", "Hi") as stream:
            await stream.until_done()

    assert [True] * 3 == [response.closed for response in responses]


async def test_reading_in_the_wrong_state(make_client):
    """A stream is read while it is open, and opened once; each misuse says what is wrong."""
    client = make_client(FakeTransport(stream_of(WHOLE)))
    stream = client.stream("gpt-5", "Hi")
    with pytest.raises(StreamStateError, match="not open"):
        await anext(stream)
    async with stream:
        await anext(stream)
        with pytest.raises(StreamStateError, match="opened once"):
            await stream.__aenter__()
    assert [] == [event async for event in stream]


async def test_closed_before_opened(make_client):
    """A stream that was closed before it was opened sends nothing."""
    transport = FakeTransport(stream_of(WHOLE))
    stream = make_client(transport).stream("gpt-5", "Hi")
    await stream.aclose()

    with pytest.raises(StreamStateError):
        await stream.__aenter__()
    assert [] == transport.requests


async def test_closed_while_opening(make_client):
    """A stream that is closed while it is being opened does not stay open."""
    response = stream_of(WHOLE)
    stream = make_client(FakeTransport(response)).stream("gpt-5", "Hi")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_open_expecting_close, stream)
        await anyio.lowlevel.checkpoint()
        await stream.aclose()

    assert response.closed


async def _open_expecting_close(stream):
    with pytest.raises(StreamStateError, match="closed"):
        await stream.__aenter__()


async def test_two_readers(make_client):
    """A second reader is refused at once, and the first is not disturbed."""
    response = stream_of(...)
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi", recover=False) as stream:
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.01)
        with pytest.raises(StreamStateError, match="another task"):
            await anext(stream)
        assert not first.done()
        await stream.aclose()
        with pytest.raises(StreamInterruptedError):
            await first


async def test_client_closed_under_a_reader(make_client):
    """When the client is closed, its reader is told so, with the text so far."""
    response = stream_of(sse(START, delta("Hello")), ClientClosedError("the client was closed during the call"))
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi") as stream:
        with pytest.raises(ClientClosedError) as caught:
            await stream.until_done()
    assert ("Hello", "gen_1") == (caught.value.text, caught.value.generation_id)


async def test_dropped_stream_is_closed(make_client):
    """A stream that is dropped half-read closes its connection."""
    response = stream_of(sse(START), ...)
    stream = make_client(FakeTransport(response)).stream("gpt-5", "Hi")
    await stream.__aenter__()
    await anext(stream)

    del stream
    gc.collect()
    await asyncio.sleep(0.01)

    assert response.closed


async def test_no_task_for_a_dropped_generator(make_client):
    """Closing a half-read stream leaves no generator for the loop to finish in a task of its own."""
    tasks = []
    asyncio.get_running_loop().set_task_factory(
        lambda loop, coroutine, **options: tasks.append(coroutine) or asyncio.Task(coroutine, loop=loop, **options)
    )
    async with make_client(FakeTransport(stream_of(sse(START, delta("a")), ...))).stream("gpt-5", "Hi") as stream:
        await anext(stream)
    del stream
    gc.collect()
    await asyncio.sleep(0.01)
    asyncio.get_running_loop().set_task_factory(None)

    assert [] == tasks


# ------------------------------------------------------------------------------------------------------------- clocks


class Ticking(FakeResponse):
    """An answer whose chunks each take *seconds* on a clock that is moved by hand."""

    def __init__(self, clock, seconds, *chunks):
        super().__init__(*chunks, headers={"content-type": "text/event-stream"})
        self._clock, self._seconds = clock, seconds

    async def read_chunk(self, deadline=float("inf")):
        chunk = await super().read_chunk()
        arrives = self._clock["now"] + (self._seconds if chunk else 0)
        if arrives > deadline:
            self._clock["now"] = deadline
            raise APITimeoutError("no data came in time", phase="stall", request_sent=True)
        self._clock["now"] = arrives
        return chunk


@pytest.fixture
def clock(monkeypatch):
    """A clock for the stream alone, moved by hand."""
    hands = {"now": 1000.0}
    monkeypatch.setattr("neuralbox_async._stream.clock", lambda: lambda: hands["now"])
    return hands


PING, EMPTY, OTHER = b": ping\n\n", sse(delta("")), sse({"type": "ping"})


@pytest.mark.parametrize(
    "chunks, seconds, limits, phase",
    [
        ([sse(START)] + [sse(delta("a"))] * 50 + [sse(END)], 9, {"stall_timeout": 10}, None),
        ([sse(START), sse(delta("a")), sse(END)], 11, {"stall_timeout": 10, "first_event_timeout": 60}, "stall"),
        ([sse(START), *[PING] * 50, sse(END)], 3, {"stall_timeout": 10}, "stall"),
        ([sse(START), *[EMPTY] * 50, sse(END)], 3, {"stall_timeout": 10}, "stall"),
        ([sse(START), *[OTHER] * 50, sse(END)], 3, {"stall_timeout": 10}, "stall"),
        ([PING] * 50, 3, {"first_event_timeout": 20}, "first_event"),
        ([OTHER] * 50, 3, {"first_event_timeout": 20}, "first_event"),
        ([sse(START)] + [sse(delta("a"))] * 50, 3, {"timeout": 20, "stall_timeout": 10}, "total"),
        ([sse(START), *[PING] * 500, sse(END)], 3, {"stall_timeout": None}, None),
        ([*[PING] * 500, sse(START), sse(END)], 3, {"first_event_timeout": None, "stall_timeout": None}, None),
    ],
)
async def test_clocks(make_client, clock, chunks, seconds, limits, phase):
    """Only content feeds the clocks; each that runs out is named; a healthy stream may take for ever."""
    client = make_client(FakeTransport(Ticking(clock, seconds, *chunks)))
    async with client.stream("gpt-5", "Hi", recover=False, **limits) as stream:
        if phase is None:
            assert (await stream.until_done()).completed
        else:
            with pytest.raises(StreamTimeoutError) as caught:
                await stream.until_done()
            assert phase == caught.value.phase


async def test_a_slow_reader_is_no_stall(make_client, clock):
    """The time that the reader takes is not the server's."""
    chunks = [sse(START), *[sse(delta("a"))] * 5, sse(END)]
    client = make_client(FakeTransport(Ticking(clock, 1, *chunks)))
    async with client.stream("gpt-5", "Hi", recover=False, stall_timeout=10) as stream:
        async for _ in stream:
            clock["now"] += 1000
    assert stream.generation.completed


async def test_the_total_holds_while_data_keeps_coming(make_client, clock):
    """The total time ends a stream even when there is always something to read."""
    client = make_client(FakeTransport(Ticking(clock, 0, sse(START), *[sse(delta("a"))] * 50)))
    async with client.stream("gpt-5", "Hi", recover=False, timeout=20) as stream:
        with pytest.raises(StreamTimeoutError) as caught:
            async for _ in stream:
                clock["now"] += 3
    assert "total" == caught.value.phase
