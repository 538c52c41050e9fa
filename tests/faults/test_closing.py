"""Streams and clients that are closed or left at any time: readers and calls end at once, and nothing leaks."""

import asyncio
import contextlib
import gc

import anyio
import pytest
from fault_server import STREAM_HEAD, event, events, eventually, never_responds, respond_once, respond_to_each
from slow_calls import (
    COMPLETE,
    HALF,
    HALF_A_STREAM,
    PENDING,
    SOON,
    THROTTLED,
    by_anyio_scope,
    by_task,
    generate,
    read_stream,
    wait,
)

from neuralbox_async import ClientClosedError, StreamStateError

# ----------------------------------------------------------------------------------------------- closing during a read


async def test_stream_closed_during_a_read(serve, connect):
    """A read raises at once when its stream is closed; then the stream has ended."""
    server = serve(HALF_A_STREAM)
    async with connect(server).stream("gpt-5", "Hi") as stream:
        reading = asyncio.create_task(stream.get_final_generation())
        await eventually(lambda: "Hello world" == stream.generation.content)
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(StreamStateError):
            await asyncio.wait_for(reading, SOON)
        with pytest.raises(StreamStateError, match="is closed"):
            [event async for event in stream]

    assert "Hello world" == stream.generation.content
    assert "incomplete" == stream.generation.status
    assert await server.all_closed()
    assert 1 == len(server.requests)


async def test_client_closed_during_a_read(serve, connect):
    """A read raises at once, with the text so far, when the client is closed."""
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
    assert await server.all_closed()
    assert 1 == len(server.requests)


@pytest.mark.parametrize(
    "call, script, billed",
    [
        (generate, never_responds, "unknown"),
        (generate, HALF, "unknown"),
        (read_stream, never_responds, "unknown"),
        (generate, respond_to_each(THROTTLED), "no"),
        # An error of a status request does not show the bill of the generation.
        (wait, respond_to_each(PENDING), "unknown"),
        (wait, never_responds, "unknown"),
    ],
    ids=["head", "body", "head of a stream", "retry", "pause between status requests", "poll"],
)
async def test_client_closed_during_a_call(serve, connect, call, script, billed):
    """A call whose client is closed raises soon, in any phase, with the right billing status."""
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
    if script is HALF:
        assert ("gen_1", "Hello") == (caught.value.generation_id, caught.value.text)
    assert await server.all_closed()
    assert server.posts <= 1


async def test_client_closed_while_calls_wait_for_a_connection(serve, connect):
    """Calls that wait for one of max_connections raise `ClientClosedError`, not a cancellation."""
    server = serve(never_responds)
    client = connect(server, max_connections=1)
    calling = [asyncio.create_task(generate(client)) for _ in range(4)]
    await eventually(lambda: server.posts)

    await client.aclose()

    errors = await asyncio.wait_for(asyncio.gather(*calling, return_exceptions=True), SOON)
    assert [ClientClosedError] * 4 == [type(error) for error in errors]
    assert ["unknown", "no", "no", "no"] == [error.billed for error in errors]
    assert [True, False, False, False] == [error.request_sent for error in errors]
    assert 1 == server.posts


async def test_client_closed_by_another_loop(serve, connect):
    """Closing in another thread, with a loop of its own, ends the streams of this loop."""
    server = serve(HALF_A_STREAM)
    client = connect(server)
    async with client.stream("gpt-5", "Hi") as stream:
        reading = asyncio.create_task(stream.get_final_generation())
        await eventually(lambda: "Hello world" == stream.generation.content)
        await asyncio.to_thread(lambda: asyncio.run(client.aclose()))
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(reading, SOON)

    assert await server.all_closed()


@pytest.mark.parametrize("call", [generate, read_stream, wait])
async def test_use_after_closing(serve, connect, call):
    """A closed client raises for each call before anything is sent."""
    server = serve(respond_to_each(COMPLETE))
    client = connect(server)
    await client.aclose()
    await client.aclose()

    with pytest.raises(ClientClosedError) as caught:
        await call(client)

    assert not caught.value.request_sent
    assert not server.connections


async def test_closing_inside_a_cancelled_scope(serve, connect):
    """Leaving the client and a stream in a cancelled scope closes both."""
    server = serve(HALF_A_STREAM)
    client = connect(server)

    with anyio.CancelScope() as scope:
        async with client, client.stream("gpt-5", "Hi") as stream:
            await anext(stream)
            scope.cancel()
            await anyio.sleep(SOON)

    assert scope.cancelled_caught
    assert client.closed
    assert await server.all_closed()


# ----------------------------------------------------------------------------------------------- leaving a stream early


async def test_two_readers(serve, connect):
    """The second of two tasks that read one stream gets an error; the first continues."""
    server = serve(respond_once(STREAM_HEAD + events("a", end=False), events("b", start=False), every=0.1))
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
    """Leaving a stream in any way closes its connection, so that the server stops generating."""
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
    assert await server.all_closed()


async def test_garbage_collected_stream(serve, connect):
    """A stream that was entered and not left is closed when it is garbage-collected."""
    server = serve(HALF_A_STREAM)
    client = connect(server)

    async def enter_and_forget():
        stream = await client.stream("gpt-5", "Hi").__aenter__()  # no `async with`
        await anext(stream)

    await enter_and_forget()
    gc.collect()
    assert await server.all_closed()


async def test_flood_of_heartbeats(serve, connect):
    """A stream of comments at full speed does not block the loop."""

    async def flood(connection):
        await connection.request()
        await connection.send(STREAM_HEAD, event(type="generation_start", id="g"))
        while True:
            await connection.send(b": ping\n\n" * 8000)

    server = serve(flood)
    client = connect(server)

    assert await by_anyio_scope(read_stream(client), 0.2)
    assert await by_task(read_stream(client), 0.2)
    assert await server.all_closed()
