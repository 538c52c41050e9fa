"""Streams and clients may be closed or left at any moment: readers and calls end at once, and nothing leaks."""

import asyncio
import contextlib
import gc

import anyio
import pytest
from fault_server import STREAM_HEAD, event, events, eventually, reads_and_stalls, replies, serves
from slow_calls import (
    HALF,
    HALF_A_STREAM,
    PENDING,
    SOON,
    THROTTLED,
    WHOLE,
    by_anyio_scope,
    by_task,
    generate,
    read_stream,
    wait,
)

from neuralbox_async import ClientClosedError, StreamStateError

# ----------------------------------------------------------------------------------------------- closing under a reader


async def test_stream_closed_under_its_reader(serve, connect):
    """A reader whose stream is closed is told at once, and the stream is over."""
    server = serve(HALF_A_STREAM)
    async with connect(server).stream("gpt-5", "Hi") as stream:
        reading = asyncio.create_task(stream.get_final_generation())
        await eventually(lambda: "Hello world" == stream.generation.content)
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(StreamStateError):
            await asyncio.wait_for(reading, SOON)
        assert [] == [event async for event in stream]

    assert "Hello world" == stream.generation.content
    assert "incomplete" == stream.generation.status
    assert await server.all_left()
    assert 1 == len(server.requests)


async def test_client_closed_under_a_reader(serve, connect):
    """A reader whose client is closed is told at once, with the text so far."""
    server = serve(HALF_A_STREAM)
    client = connect(server)
    async with client.stream("gpt-5", "Hi") as stream:
        reading = asyncio.create_task(stream.get_final_generation())
        await eventually(lambda: "Hello world" == stream.generation.content)
        await client.aclose()
        with pytest.raises(ClientClosedError) as caught:
            await asyncio.wait_for(reading, SOON)

    assert "Hello world" == caught.value.text
    assert "gen_1" == caught.value.generation_id
    assert "unknown" == caught.value.billed
    assert await server.all_left()
    assert 1 == len(server.requests)


@pytest.mark.parametrize(
    "call, script, billed",
    [
        (generate, reads_and_stalls, "unknown"),
        (generate, HALF, "unknown"),
        (read_stream, reads_and_stalls, "unknown"),
        (generate, serves(THROTTLED), "no"),
        (wait, serves(PENDING), "no"),
        (wait, reads_and_stalls, "no"),
    ],
    ids=["head", "body", "head of a stream", "retry", "pause between polls", "poll"],
)
async def test_client_closed_during_a_call(serve, connect, call, script, billed):
    """A call whose client is closed ends soon with that error, wherever it is, and tells the truth of the money."""
    server = serve(script)
    client = connect(server, timeout=60)
    calling = asyncio.create_task(call(client))
    await eventually(lambda: server.requests)
    await asyncio.sleep(0.05)

    await client.aclose()

    with pytest.raises(ClientClosedError) as caught:
        await asyncio.wait_for(calling, SOON)
    assert billed == caught.value.billed
    assert caught.value.request_sent or call is wait
    assert await server.all_left()
    assert server.posts <= 1


async def test_client_closed_while_calls_wait_for_a_connection(serve, connect):
    """Calls that wait for one of max_connections are told, too: nobody has cancelled their tasks."""
    server = serve(reads_and_stalls)
    client = connect(server, max_connections=1)
    calling = [asyncio.create_task(generate(client)) for _ in range(4)]
    await eventually(lambda: server.posts)

    await client.aclose()

    failures = await asyncio.wait_for(asyncio.gather(*calling, return_exceptions=True), SOON)
    assert [ClientClosedError] * 4 == [type(failure) for failure in failures]
    assert ["unknown", "no", "no", "no"] == [failure.billed for failure in failures]
    assert [True, False, False, False] == [failure.request_sent for failure in failures]
    assert 1 == server.posts


async def test_client_closed_by_another_loop(serve, connect):
    """Closing from another thread, with a loop of its own, ends the calls and streams of this one."""
    server = serve(HALF_A_STREAM)
    client = connect(server)
    async with client.stream("gpt-5", "Hi") as stream:
        reading = asyncio.create_task(stream.get_final_generation())
        await eventually(lambda: "Hello world" == stream.generation.content)
        await asyncio.to_thread(lambda: asyncio.run(client.aclose()))
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(reading, SOON)

    assert await server.all_left()


@pytest.mark.parametrize("call", [generate, read_stream, wait])
async def test_use_after_closing(serve, connect, call):
    """A client that was closed, once or twice, refuses each call before anything is sent."""
    server = serve(serves(WHOLE))
    client = connect(server)
    await client.aclose()
    await client.aclose()

    with pytest.raises(ClientClosedError) as caught:
        await call(client)

    assert not caught.value.request_sent
    assert not server.connections


async def test_closing_inside_a_cancelled_scope(serve, connect):
    """Cleaning up in a scope that is cancelled already closes everything all the same."""
    server = serve(HALF_A_STREAM)
    client = connect(server)

    with anyio.CancelScope() as scope:
        async with client, client.stream("gpt-5", "Hi") as stream:
            await anext(stream)
            scope.cancel()
            await anyio.sleep(SOON)

    assert scope.cancelled_caught
    assert client.closed
    assert await server.all_left()


# ----------------------------------------------------------------------------------------------- leaving a stream early


async def test_two_readers(serve, connect):
    """The second of two tasks that read one stream is refused; the first goes on."""
    server = serve(replies(STREAM_HEAD + events("a", end=False), events("b", start=False), every=0.1))
    async with connect(server).stream("gpt-5", "Hi") as stream:
        await anext(stream)
        await anext(stream)
        first = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(StreamStateError):
            await anext(stream)
        assert "b" == (await first).delta


@pytest.mark.parametrize("how", ["break", "raise", "return"])
async def test_leaving_early(serve, connect, how):
    """Leaving a stream, in whatever way, closes its connection, so that the server stops generating."""
    server = serve(HALF_A_STREAM)
    client = connect(server)

    async def leave():
        async with client.stream("gpt-5", "Hi") as stream:
            async for _ in stream:
                if how == "raise":
                    raise LookupError("of the user")
                if how == "return":
                    return
                break

    with pytest.raises(LookupError, match="of the user") if how == "raise" else contextlib.nullcontext():
        await leave()
    assert await server.all_left()


async def test_dropped_stream(serve, connect):
    """A stream that was entered and forgotten is closed when it is collected."""
    server = serve(HALF_A_STREAM)
    client = connect(server)

    async def forget():
        stream = await client.stream("gpt-5", "Hi").__aenter__()  # as a careless user may
        await anext(stream)

    await forget()
    gc.collect()
    assert await server.all_left()


async def test_flood_of_heartbeats_leaves_room_for_others(serve, connect):
    """A stream of comments at full speed does not keep the loop to itself."""

    async def flood(connection):
        await connection.request()
        await connection.send(STREAM_HEAD, event(type="generation_start", id="g"))
        while True:
            await connection.send(b": ping\n\n" * 8000)

    server = serve(flood)
    client = connect(server)

    assert await by_anyio_scope(read_stream(client), 0.2)
    assert await by_task(read_stream(client), 0.2)
    assert await server.all_left()
