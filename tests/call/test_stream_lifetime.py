"""`AsyncStream`: opening, reading, closing, and leaving it early."""

from __future__ import annotations

import asyncio
import gc

import anyio
import anyio.lowlevel
import pytest
from stream_bodies import EVENTS, START, WHOLE, delta, sse, stream_of

from neuralbox_async import ClientClosedError, StreamStateError
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")


async def test_cancelled_read_loses_nothing(make_client):
    """A read that times out loses nothing: the next one continues."""
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
    """Leaving early by break, exception or cancellation closes the connection."""
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
            await stream.get_final_generation()

    assert [True] * 3 == [response.closed for response in responses]


async def test_misuse(make_client):
    """A stream can be read only after it was entered, and entered only once."""
    client = make_client(FakeTransport(stream_of(WHOLE)))
    stream = client.stream("gpt-5", "Hi")
    with pytest.raises(StreamStateError, match="not open"):
        await anext(stream)
    async with stream:
        await anext(stream)
        with pytest.raises(StreamStateError, match="opened only once"):
            await stream.__aenter__()
    with pytest.raises(StreamStateError, match="closed"):
        [event async for event in stream]
    assert [] == await stream.read_batch()


async def test_closed_before_opened(make_client):
    """A stream that was closed before it was entered sends nothing."""
    transport = FakeTransport(stream_of(WHOLE))
    stream = make_client(transport).stream("gpt-5", "Hi")
    await stream.aclose()

    with pytest.raises(StreamStateError):
        await stream.__aenter__()
    assert [] == transport.requests


async def test_closed_while_opening(make_client):
    """Closing a stream while it is being opened closes its response."""
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
    """A second reader gets an error at once, and does not disturb the first; closing ends the read of the first."""
    response = stream_of(...)
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi", recover=False) as stream:
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.01)
        with pytest.raises(StreamStateError, match="another task"):
            await anext(stream)
        assert not first.done()
        await stream.aclose()
        with pytest.raises(StreamStateError, match="closed while it was being read"):
            await first


async def test_client_closed_during_a_read(make_client):
    """Closing the client ends a read with an error that has the text so far, and each later read raises it again."""
    response = stream_of(sse(START, delta("Hello")), ClientClosedError("the client was closed during the call"))
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi") as stream:
        with pytest.raises(ClientClosedError) as caught:
            await stream.get_final_generation()
        with pytest.raises(ClientClosedError) as again:
            await anext(stream)
    assert caught.value is again.value
    assert ("Hello", "gen_1", "unknown", 1) == (
        caught.value.text,
        caught.value.generation_id,
        caught.value.billed,
        caught.value.attempts,
    )


async def test_dropped_stream_is_closed(make_client):
    """Deleting a half-read stream closes its connection."""
    response = stream_of(sse(START), ...)
    stream = make_client(FakeTransport(response)).stream("gpt-5", "Hi")
    await stream.__aenter__()
    await anext(stream)

    del stream
    gc.collect()
    await asyncio.sleep(0.01)

    assert response.closed


async def test_no_task_for_the_generator(make_client):
    """Closing a half-read stream closes its generator, so that the loop makes no task to finalize it."""
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
