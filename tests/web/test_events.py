"""`server_sent_events`: a browser gets every piece of text and how it ended, and nothing is left open."""

from __future__ import annotations

import asyncio
import gc
import threading

import anyio
import pytest
from event_source import EventSource, interpret
from hypothesis import given
from hypothesis import strategies as st
from stream_bodies import END, RESET, START, WHOLE, delta, sse, stream_of

from neuralbox_async import AsyncNeuralBox, InvalidParameterError, StreamStateError
from neuralbox_async.testing import FakeTransport
from neuralbox_async.web import server_sent_events

pytestmark = pytest.mark.usefixtures("no_task_left")

FAILED = {"type": "error", "error": {"code": "provider_error", "message": "secret of the provider"}}


async def opened(*chunks, **options):
    response = stream_of(*chunks)
    client = AsyncNeuralBox("nb_test", transport=FakeTransport(response))
    return await client.stream("gpt-5", "Hi", recover=False, **options).open(), response


async def sent(*chunks, **options):
    stream, _ = await opened(*chunks)
    received = b"".join([chunk async for chunk in server_sent_events(stream, **options)])
    return interpret(received)


async def test_events():
    """The text arrives, then how the generation ended and its cost; each event has an id."""
    source = await sent(WHOLE)

    assert "Hello, world" == source.text
    assert ("complete", {"finish_reason": None, "tokens_used": 3}) == (source.last.kind, source.last.data)
    assert [str(number) for number in range(1, len(source.events) + 1)] == [event.id for event in source.events]


async def test_without_cost():
    """The cost can be left out; the balance is never sent."""
    assert {"finish_reason": None} == (await sent(WHOLE, cost=False)).last.data


async def test_first_bytes():
    """The first bytes set an id without an event, so a browser that connects again can be recognized at any time."""
    stream, _ = await opened(...)
    events = server_sent_events(stream)
    source = interpret(await anext(events))
    await events.aclose()

    assert ("0", []) == (source.last_id, source.events)


@given(st.lists(st.text(), max_size=6))
def test_any_text(texts):
    """Whatever a model writes, line breaks and colons included, arrives as it is."""

    async def run():
        return await sent(sse(START, *map(delta, texts), END))

    source = asyncio.run(run())
    expected = "".join(texts)
    assert (expected, "complete") == (source.text, source.last.kind)


@pytest.mark.parametrize("end", [FAILED, RESET], ids=["error event", "connection reset"])
async def test_failure(end, caplog):
    """A failure is the last event, after the text that arrived; strangers get no details, which are logged."""
    chunks = [sse(START, delta("Hello"), end)] if isinstance(end, dict) else [sse(START, delta("Hello")), end]
    source = await sent(*chunks)

    assert "Hello" == source.text
    assert "failed" == source.last.kind
    assert {
        "type": "about:blank",
        "title": "Bad Gateway",
        "status": 502,
        "detail": "The text could not be generated.",
    } == source.last.data
    (record,) = (record for record in caplog.records if record.name == "neuralbox.web")
    assert "StreamInterruptedError" in record.getMessage()


async def test_heartbeats():
    """While nothing arrives, comments are sent; they are no events, and lose nothing."""
    stream, response = await opened(sse(START), ...)
    events = server_sent_events(stream, heartbeat=0.01)
    source = EventSource()
    for _ in range(4):
        source.feed(await anext(events))

    assert (3, []) == (source.comments, source.events)
    await events.aclose()
    assert response.closed


@pytest.mark.parametrize("before", [sse(START), sse(START, delta("Hello"))], ids=["before the first text", "after it"])
async def test_a_cancelled_read_closes(before):
    """A read that is cancelled, because the browser has left, closes the stream and ends the events."""
    stream, response = await opened(before, ...)
    events = server_sent_events(stream)
    with anyio.move_on_after(0.02):
        async for _ in events:
            pass

    assert response.closed
    assert [] == [chunk async for chunk in events]


async def test_closed_while_it_waits():
    """Closing from another task ends a read without an event."""
    stream, response = await opened(...)
    events = server_sent_events(stream)
    await anext(events)
    reading = asyncio.ensure_future(anext(events, b""))
    await asyncio.sleep(0.01)
    await events.aclose()

    assert b"" == await reading
    assert response.closed


async def test_closed_from_another_thread():
    """`close`, which Django calls in a thread, closes the stream on its loop."""
    stream, response = await opened(sse(START), ...)
    events = server_sent_events(stream)
    thread = threading.Thread(target=events.close)
    thread.start()
    while not response.closed:
        await asyncio.sleep(0.001)
    thread.join()
    assert [] == [chunk async for chunk in events]


async def test_dropped():
    """Events that are dropped close their stream."""
    stream, response = await opened(sse(START, delta("Hello")), ...)
    events = server_sent_events(stream)
    await anext(events)
    await anext(events)

    del stream, events
    gc.collect()
    await asyncio.sleep(0.01)
    assert response.closed


async def test_a_server_that_waits_for_its_browser(caplog):
    """A server that does not ask for the next item in time, because the browser reads nothing, ends the stream."""
    stream, response = await opened(sse(START, delta("Hello")), ...)
    events = server_sent_events(stream, write_timeout=0.05)
    await anext(events)
    await anext(events)
    while not response.closed:
        await asyncio.sleep(0.01)

    assert [] == [chunk async for chunk in events]
    assert ["a browser has read nothing for 0.05 s: its stream is closed"] == [
        record.getMessage() for record in caplog.records if record.name == "neuralbox.web"
    ]


@pytest.mark.parametrize("options", [{"write_timeout": 0.05}, {"write_timeout": None}])
async def test_waiting_for_the_api(options):
    """The time for which the API sends nothing is not that of a browser."""
    stream, response = await opened(sse(START, delta("Hello")), ...)
    events = server_sent_events(stream, **options)
    await anext(events)
    reading = asyncio.ensure_future(anext(events, b""))
    assert b"Hello" in await reading
    reading = asyncio.ensure_future(anext(events, b""))
    await asyncio.sleep(1)

    assert not reading.done()
    assert not response.closed
    await events.aclose()
    assert b"" == await reading


async def test_not_open():
    """A stream that is not open is an error at once, and so is a heartbeat or a timeout that is no time."""
    client = AsyncNeuralBox("nb_test", transport=FakeTransport())
    with pytest.raises(StreamStateError, match="not open"):
        server_sent_events(client.stream("gpt-5", "Hi"))
    stream, _ = await opened(WHOLE)
    for heartbeat in (0, -1, "15", True, float("nan")):
        with pytest.raises(InvalidParameterError, match="heartbeat"):
            server_sent_events(stream, heartbeat=heartbeat)
        with pytest.raises(InvalidParameterError, match="write_timeout"):
            server_sent_events(stream, write_timeout=heartbeat)
    await stream.aclose()
