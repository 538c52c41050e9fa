"""Kept connections: stale ones, and unexpected bytes on them."""

import asyncio
import time

import pytest
from fault_server import STREAM_HEAD, events, generation, respond_to_each, response
from outcomes import COMPLETE, HEAD, assert_unknown, generate, stream

from neuralbox_async import APIConnectionError


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_stale_connection(serve, connect, how):
    """A connection that the server closed while it was idle is not used again."""

    async def script(connection):
        await connection.request()
        await connection.send(COMPLETE)
        await asyncio.sleep(0.05)
        connection.finish() if how == "closed" else connection.reset()

    server = serve(script)
    client = connect(server)
    for expected in (1, 2):
        assert "Hello" == (await client.generate("gpt-5", "Hi")).content
        assert expected == server.posts
        await asyncio.sleep(0.15)


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("call", [generate, stream])
async def test_connection_closed_after_the_request(serve, connect, how, call):
    """A request on a kept connection that the server read without a response is not sent again: it may be billed."""

    async def script(connection):
        await connection.request()
        await connection.send(COMPLETE)
        await connection.request()
        connection.finish() if how == "closed" else connection.reset()

    server = serve(script)
    client = connect(server)
    await client.generate("gpt-5", "Hi")

    outcome = await call(client)

    assert_unknown(outcome.error)
    assert 2 == server.posts
    assert 1 == len(server.connections)


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("reuse", [True, False])
async def test_connection_closed_while_the_loop_is_blocked(serve, connect, how, reuse):
    """A call on a connection that closed while the loop was blocked may fail, but never posts twice."""

    async def script(connection):
        await connection.request()
        await connection.send(COMPLETE)
        await asyncio.sleep(0.02)
        connection.finish() if how == "closed" else connection.reset()

    server = serve(script)
    client = connect(server, reuse_connections=reuse)
    for calls in range(1, 6):
        try:
            await client.generate("gpt-5", "Hi")
        except APIConnectionError as error:
            assert reuse
            assert_unknown(error)
        assert server.posts <= calls
        assert len(server.connections) <= calls
        time.sleep(0.05)


@pytest.mark.parametrize(
    "late, pause",
    [
        (response(generation("Unsolicited")), 0.0),
        (response(generation("Unsolicited")), 0.05),
        (response(b"", status="408 Request Timeout"), 0.05),
        (response(b"", "Connection: close", status="408 Request Timeout"), 0.05),
        (HEAD, 0.05),
        (b"garbage", 0.05),
    ],
    ids=["a response at once", "a response", "an error", "an error and close", "half a response", "garbage"],
)
async def test_unsolicited_bytes(serve, connect, late, pause):
    """Bytes after a response, at once or later, are never read as the response to the next request."""

    async def script(connection):
        await connection.request()
        await connection.send(response(generation("1")))
        await asyncio.sleep(pause)
        await connection.send(late)
        while True:
            await connection.request()
            await connection.send(response(generation("2")))

    second = respond_to_each(response(generation("2")))
    server = serve(script, second)
    client = connect(server)

    assert "1" == (await client.generate("gpt-5", "Hi")).content
    await asyncio.sleep(0.1)
    assert "2" == (await client.generate("gpt-5", "Hi")).content
    assert "2" == (await client.generate("gpt-5", "Hi")).content
    assert 3 == server.posts


async def test_response_read_to_its_end_frees_the_connection(serve, connect):
    """Consecutive calls and streams share one connection."""
    stream_in_chunks = STREAM_HEAD.replace(b"Connection: close\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n")
    data = events("Hello")
    server = serve(
        respond_to_each(
            COMPLETE,
            stream_in_chunks + b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data),
            response({"error": "bad_request"}, status="400 Bad Request"),
            COMPLETE,
        )
    )
    client = connect(server)

    await client.generate("gpt-5", "Hi")
    async with client.stream("gpt-5", "Hi") as opened:
        await opened.get_final_generation()
    await generate(client)
    await client.generate("gpt-5", "Hi")

    assert 4 == server.posts
    assert 1 == len(server.connections)
