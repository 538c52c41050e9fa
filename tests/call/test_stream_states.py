"""`StreamState`: what entering, reading and closing do in each state, and the transitions between the states."""

from __future__ import annotations

import asyncio
import re
from contextlib import nullcontext

import anyio
import pytest
from stream_bodies import RESET, START, WHOLE, delta, sse, stream_of

from neuralbox_async import APIConnectionError, AsyncStream, StreamInterruptedError, StreamStateError
from neuralbox_async._call.stream_state import TRANSITIONS, StreamState
from neuralbox_async.testing import FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

NEW, OPENING, OPEN, ENDED, COMPLETE, INTERRUPTED, CLOSED = StreamState
OPENED_ONCE, NOT_OPEN = "opened only once", "not open"


class Slow(FakeTransport):
    """A transport whose response does not arrive."""

    async def send(self, request):
        await super().send(request)
        await anyio.sleep_forever()


async def new(make_client):
    return make_client(FakeTransport(stream_of(WHOLE))).stream("gpt-5", "Hi")


async def opening(make_client):
    stream = make_client(Slow(stream_of(WHOLE))).stream("gpt-5", "Hi")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.__aenter__(), 0.01)
    return stream


async def not_opened(make_client):
    stream = make_client(FakeTransport(APIConnectionError("refused")), max_retries=0).stream("gpt-5", "Hi")
    with pytest.raises(APIConnectionError):
        await stream.__aenter__()
    return stream


async def opened(make_client):
    return await (await new(make_client)).__aenter__()


async def ended(make_client):
    stream = await opened(make_client)
    await anext(stream)
    return stream


async def delivered(make_client):
    stream = await opened(make_client)
    await stream.read_batch()
    return stream


async def complete(make_client):
    stream = await opened(make_client)
    await stream.get_final_generation()
    return stream


async def interrupted(make_client):
    transport = FakeTransport(stream_of(sse(START), RESET))
    stream = await make_client(transport).stream("gpt-5", "Hi", recover=False).__aenter__()
    with pytest.raises(StreamInterruptedError):
        await stream.get_final_generation()
    return stream


async def closed(make_client):
    stream = await opened(make_client)
    await stream.aclose()
    return stream


# How the stream gets into its state; the state; the message of entering, None if it is possible; the result of reading:
# an event, the end, or a message; and the state after closing.
TABLE = [
    (new, NEW, None, NOT_OPEN, CLOSED),
    (opening, OPENING, OPENED_ONCE, NOT_OPEN, CLOSED),
    (not_opened, OPENING, OPENED_ONCE, NOT_OPEN, CLOSED),
    (opened, OPEN, OPENED_ONCE, "event", CLOSED),
    (ended, ENDED, OPENED_ONCE, "event", CLOSED),
    (delivered, ENDED, OPENED_ONCE, "end", COMPLETE),
    (complete, COMPLETE, OPENED_ONCE, "end", COMPLETE),
    (interrupted, INTERRUPTED, OPENED_ONCE, "before its terminal event: reset", INTERRUPTED),
    (closed, CLOSED, OPENED_ONCE, "end", CLOSED),
]
ROWS = pytest.mark.parametrize("make, state, enter, read, after_close", TABLE, ids=[row[0].__name__ for row in TABLE])


async def outcome_of_reading(stream):
    try:
        await anext(stream)
    except StopAsyncIteration:
        return "end"
    except (StreamStateError, StreamInterruptedError) as error:
        return error.message
    return "event"


@ROWS
async def test_entering(make_client, make, state, enter, read, after_close):
    """A stream can be entered once, while it is new."""
    stream = await make(make_client)
    assert state is stream._state
    if enter is None:
        async with stream:
            assert OPEN is stream._state
    else:
        with pytest.raises(StreamStateError, match=enter):
            await stream.__aenter__()
        assert state is stream._state
        await stream.aclose()


@ROWS
async def test_reading(make_client, make, state, enter, read, after_close):
    """A stream can be read from its entering to its end; then each read has the same outcome."""
    stream = await make(make_client)
    assert re.search(read, await outcome_of_reading(stream))
    if read != "event":
        assert re.search(read, await outcome_of_reading(stream))
        with pytest.raises((StreamStateError, StreamInterruptedError)) if read != "end" else nullcontext():
            assert [] == await stream.read_batch()
    await stream.aclose()


@ROWS
async def test_closing(make_client, make, state, enter, read, after_close):
    """Closing keeps the final states, completes a delivered stream, and is idempotent."""
    stream = await make(make_client)
    for _ in range(2):
        await stream.aclose()
        assert after_close is stream._state
    assert ("completed" if after_close is COMPLETE else "incomplete") == stream.generation.status
    if after_close is INTERRUPTED:
        with pytest.raises(StreamInterruptedError):
            await anext(stream)
    else:
        assert "end" == await outcome_of_reading(stream)


async def test_get_final_generation_of_a_closed_stream(make_client):
    """A stream that was closed before its end has no final generation."""
    stream = await closed(make_client)
    with pytest.raises(StreamStateError, match="closed before its end"):
        await stream.get_final_generation()


async def test_closed_when_data_arrives(make_client):
    """Data that arrives when the stream is being closed is not delivered."""
    response = stream_of(WHOLE)
    stream = await make_client(FakeTransport(response)).stream("gpt-5", "Hi").__aenter__()
    read = response.read_chunk

    async def read_chunk(deadline):
        chunk = await read(deadline)
        await stream.aclose()
        return chunk

    response.read_chunk = read_chunk
    with pytest.raises(StreamStateError, match="closed while it was being read"):
        await anext(stream)
    assert CLOSED is stream._state
    assert "end" == await outcome_of_reading(stream)


@pytest.mark.parametrize("recovery", [{"id": "gen_1", "content": "Hello!"}, APIConnectionError("no", retryable=False)])
async def test_closed_during_recovery(make_client, recovery):
    """Closing a stream during its recovery ends the read, and the result of the recovery is not used."""

    class Closing(FakeTransport):
        async def send(self, request):
            if request.method == "GET":
                await stream.aclose()
            return await super().send(request)

    transport = Closing(stream_of(sse(START, delta("Hello")), RESET), recovery)
    stream = await make_client(transport).stream("gpt-5", "Hi").__aenter__()
    await stream.read_batch()
    with pytest.raises(StreamStateError, match="closed while it was being read"):
        await anext(stream)
    assert CLOSED is stream._state


async def test_each_transition_happens(make_client, monkeypatch):
    """The transitions of the rows above are those of the table of transitions."""
    seen = set()
    move = AsyncStream._move
    monkeypatch.setattr(
        AsyncStream, "_move", lambda stream, state: seen.add((stream._state, state)) or move(stream, state)
    )
    for make, *_ in TABLE:
        stream = await make(make_client)
        await stream.aclose()
        await outcome_of_reading(await make(make_client))

    assert {(before, after) for before, states in TRANSITIONS.items() for after in states} == seen


async def test_impossible_transition(make_client):
    """A transition that the table does not have is an error."""
    stream = await complete(make_client)
    with pytest.raises(AssertionError, match="COMPLETE cannot become OPEN"):
        stream._move(OPEN)
