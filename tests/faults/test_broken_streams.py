"""Streams that break or stall, and slow readers."""

import asyncio
import time

import pytest
from broken_responses import BROKEN_STREAMS
from fault_server import STREAM_HEAD, event, events, respond_once
from outcomes import LONG, SHORT, START, stream

from neuralbox_async import StreamInterruptedError, StreamTimeoutError


@pytest.mark.parametrize("script", BROKEN_STREAMS.values(), ids=BROKEN_STREAMS)
async def test_broken_stream(serve, connect, script):
    """A stream that ends without its terminal event raises each time, with the text that was delivered."""
    server = serve(script)
    client = connect(server, stall_timeout=LONG)
    texts = []

    async with client.stream("gpt-5", "Hi", recover=False) as opened:
        with pytest.raises(StreamInterruptedError) as caught:
            async for text in opened.text_stream:
                texts.append(text)
        with pytest.raises(StreamInterruptedError) as again:
            await anext(opened)

    error = caught.value
    assert not isinstance(error, StreamTimeoutError)  # the break is noticed at once
    assert again.value is error
    assert ["Hello ", "world"] == texts
    assert "Hello world" == error.text == error.generation.content == opened.generation.content
    assert "incomplete" == opened.generation.status
    assert "gen_1" == error.generation_id == opened.generation.id
    assert "unknown" == error.billed
    assert error.request_sent
    assert 1 == server.posts
    assert 1 == len(server.connections)
    assert await server.all_closed()


def heartbeats(beat):
    """Return a script that streams some text, and then only *beat*."""

    async def script(connection):
        await connection.request()
        await connection.send(START)
        while True:
            await connection.send(beat, every=0.02)

    return script


STALLED_STREAMS = {
    "silence": respond_once(START, then="stall"),
    "comments": heartbeats(b": ping\n\n"),
    "comments without blank lines": heartbeats(b":\n"),
    "unknown events": heartbeats(event(type="ping")),
    "empty deltas": heartbeats(event(type="content_delta", delta="")),
    "empty events": heartbeats(b"event: ping\n\n"),
    "null deltas": heartbeats(event(type="content_delta", delta=None)),
    "empty data": heartbeats(b"data:\n\n"),
    "events with text": heartbeats(b"event: ping\ndata: all well\n\n"),
    "repeated starts": heartbeats(event(type="generation_start", id="gen_1")),
    "other starts": heartbeats(event(type="generation_start", id="gen_2", model="other")),
    "an unfinished generation": heartbeats(event(id="gen_1", status="pending", progress=5)),
    "an event byte by byte": heartbeats(b"x"),
}


@pytest.mark.parametrize("script", STALLED_STREAMS.values(), ids=STALLED_STREAMS)
async def test_stalled_stream(serve, connect, script):
    """A stream without content times out, also if it sends heartbeats."""
    server = serve(script)
    client = connect(server)

    outcome = await stream(client, stall_timeout=SHORT)

    assert isinstance(outcome.error, StreamTimeoutError)
    assert "stall" == outcome.error.phase
    assert "Hello world" == "".join(outcome.texts) == outcome.error.text
    assert "gen_1" == outcome.error.generation_id
    assert "unknown" == outcome.error.billed
    assert SHORT * 0.9 <= outcome.elapsed < LONG
    assert await server.all_closed()
    assert 1 == server.posts


@pytest.mark.parametrize("beat", [b": ping\n\n", event(type="ping")], ids=["comments", "unknown events"])
async def test_stream_without_first_event(serve, connect, beat):
    """A heartbeat does not count as the first event."""

    async def script(connection):
        await connection.request()
        await connection.send(STREAM_HEAD)
        while True:
            await connection.send(beat, every=0.02)

    server = serve(script)
    client = connect(server)

    outcome = await stream(client, first_event_timeout=SHORT)

    assert isinstance(outcome.error, StreamTimeoutError)
    assert "first_event" == outcome.error.phase
    assert SHORT * 0.9 <= outcome.elapsed < LONG
    assert await server.all_closed()
    assert 1 == server.posts


@pytest.mark.parametrize("busy", [False, True], ids=["eager reader", "busy reader"])
async def test_total_timeout_of_a_stream(serve, connect, busy):
    """The timeout of a whole stream holds while data arrives, and for a reader that does other things between reads."""

    async def script(connection):
        await connection.request()
        await connection.send(STREAM_HEAD)
        while True:
            await connection.send(event(type="content_delta", delta="x") * 8, every=0.005)

    server = serve(script)
    client = connect(server)
    started = time.monotonic()

    with pytest.raises(StreamTimeoutError) as caught:
        async with client.stream("gpt-5", "Hi", recover=False, timeout=3 * SHORT) as opened:
            async for _ in opened.text_stream:
                if busy:
                    await asyncio.sleep(0.001)
                assert time.monotonic() - started < LONG

    assert "total" == caught.value.phase
    assert caught.value.text
    assert await server.all_closed()
    assert 1 == server.posts


async def test_slow_reader(serve, connect):
    """The timeouts of a stream count only while a read waits."""
    server = serve(
        respond_once(
            STREAM_HEAD + events("a"), events("b", start=False, end=False), events("c", start=False), every=0.01
        )
    )
    client = connect(server)

    async with client.stream("gpt-5", "Hi", stall_timeout=0.2, recover=False) as opened:
        async for _ in opened:
            await asyncio.sleep(0.15)

    assert opened.generation.completed


async def test_polling_reader_notices_a_stall(serve, connect):
    """Reads with short timeouts count together: a stalled stream times out for their reader as well."""
    server = serve(heartbeats(b": ping\n\n"))
    client = connect(server)
    started = time.monotonic()

    async with client.stream("gpt-5", "Hi", stall_timeout=SHORT, recover=False) as opened:
        while time.monotonic() - started < LONG:
            try:
                await asyncio.wait_for(anext(opened), 0.05)
            except StreamTimeoutError:
                break
            except TimeoutError:
                continue
        else:
            pytest.fail("the stall was never noticed")
