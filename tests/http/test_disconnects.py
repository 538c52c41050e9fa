"""Streams left early and calls cancelled, over real sockets: the server sees the disconnect, and no reader hangs."""

from __future__ import annotations

import asyncio
import gc

import anyio
import pytest

from neuralbox_async import AsyncNeuralBox, ClientClosedError, ContentDelta, StreamStateError
from neuralbox_async.testing import NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")


async def leave_by_break(stream):
    async with stream:
        async for event in stream:
            if isinstance(event, ContentDelta):
                break


async def leave_by_exception(stream):
    with pytest.raises(ZeroDivisionError):
        async with stream:
            await anext(stream)
            1 / 0


async def leave_by_cancellation(stream):
    with anyio.move_on_after(0.1):
        async with stream:
            await stream.get_final_generation()


async def leave_by_task_cancellation(stream):
    async def read() -> None:
        async with stream:
            await stream.get_final_generation()

    task = asyncio.ensure_future(read())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def leave_by_dropping(stream):
    await stream.__aenter__()
    await anext(stream)


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_exception, leave_by_cancellation, leave_by_task_cancellation, leave_by_dropping]
)
async def test_a_stream_left_early(endless, leave):
    """When a stream is left early, in any way, the server sees the disconnect at once, stops, and bills nothing."""
    async with AsyncNeuralBox(**endless.client_options) as client:
        await leave(client.stream("gpt-5", "Hi"))
        gc.collect()
        await endless.wait_for_disconnect_async()
        await endless.wait_until_async(lambda: endless.in_flight == 0)
    assert [] == list(endless.billed)


async def test_a_cancelled_call():
    """A call that is cancelled closes its connection."""
    async with NeuralBoxServer(latency=30) as server, AsyncNeuralBox(**server.client_options) as client:
        with anyio.move_on_after(0.1) as scope:
            await client.generate("gpt-5", "Hi")
        assert scope.cancelled_caught
        await server.wait_for_disconnect_async()
    assert 1 == len(server.requests)


async def test_reads_that_time_out(endless):
    """Reads that time out lose no event of a live stream."""
    async with NeuralBoxServer(event_interval=0.005, reply=" ".join(str(n) for n in range(40))) as server:
        async with AsyncNeuralBox(**server.client_options) as client, client.stream("gpt-5", "Hi") as stream:
            while True:
                try:
                    await asyncio.wait_for(anext(stream), 0.002)
                except TimeoutError:
                    continue
                except StopAsyncIteration:
                    break
    assert " ".join(str(n) for n in range(40)) == stream.generation.content
    assert endless.is_running


async def test_closing_the_client_ends_streams(endless):
    """Closing the client wakes the readers of its streams with an error that keeps the text."""
    client = AsyncNeuralBox(**endless.client_options)
    stream = client.stream("gpt-5", "Hi")

    async def read() -> None:
        with pytest.raises(ClientClosedError) as caught:
            async with stream:
                await stream.get_final_generation()
        assert caught.value.text.startswith("word ")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        while not stream.generation.content:
            await asyncio.sleep(0.01)
        await client.aclose()
    await endless.wait_for_disconnect_async()


async def test_closing_the_client_ends_calls():
    """A call that waits for its response ends when the client is closed, with an error that says it may be billed."""
    async with NeuralBoxServer(latency=30) as server:
        client = AsyncNeuralBox(**server.client_options)
        call = asyncio.ensure_future(client.generate("gpt-5", "Hi"))
        await server.wait_until_async(lambda: server.in_flight == 1)
        await client.aclose()
        with pytest.raises(ClientClosedError) as caught:
            await call
    assert ("unknown", 1) == (caught.value.billed, len(server.requests))


async def test_closing_a_stream_from_another_task(endless):
    """Closing a stream wakes its reader."""
    async with AsyncNeuralBox(**endless.client_options) as client, client.stream("gpt-5", "Hi") as stream:
        reader = asyncio.ensure_future(stream.get_final_generation())
        await asyncio.sleep(0.05)
        await stream.aclose()
        with pytest.raises(StreamStateError, match="closed"):
            await reader
