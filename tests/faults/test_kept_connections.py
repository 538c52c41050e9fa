"""Kept connections: stale ones, and unexpected bytes on them."""

import asyncio
import time

import pytest
from fault_server import STREAM_HEAD, answer, events, generation, serves
from outcomes import HEAD, WHOLE, assert_unknown, generate, stream

from neuralbox_async import APIConnectionError


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_stale_connection(serve, connect, how):
    """A connection that the server has closed while it was idle is not used again."""

    async def script(connection):
        await connection.request()
        await connection.send(WHOLE)
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
async def test_connection_that_is_closed_as_the_request_comes(serve, connect, how, call):
    """On a kept connection, too, a request that was taken and not answered is not sent again: it may be billed."""

    async def script(connection):
        await connection.request()
        await connection.send(WHOLE)
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
async def test_connection_that_is_closed_while_the_loop_is_busy(serve, connect, how, reuse):
    """When the loop had no time to notice, a call may fail, but never posts twice; on a fresh connection it is well."""

    async def script(connection):
        await connection.request()
        await connection.send(WHOLE)
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
        (answer(generation("Foreign")), 0.0),
        (answer(generation("Foreign")), 0.05),
        (answer(b"", status="408 Request Timeout"), 0.05),
        (answer(b"", "Connection: close", status="408 Request Timeout"), 0.05),
        (HEAD, 0.05),
        (b"garbage", 0.05),
    ],
    ids=["an answer at once", "an answer", "a refusal", "a refusal and close", "half an answer", "garbage"],
)
async def test_what_nobody_asked_for(serve, connect, late, pause):
    """Bytes after an answer, at once or later, are never taken for the answer to the next request."""

    async def script(connection):
        await connection.request()
        await connection.send(answer(generation("1")))
        await asyncio.sleep(pause)
        await connection.send(late)
        while True:
            await connection.request()
            await connection.send(answer(generation("2")))

    second = serves(answer(generation("2")))
    server = serve(script, second)
    client = connect(server)

    assert "1" == (await client.generate("gpt-5", "Hi")).content
    await asyncio.sleep(0.1)
    assert "2" == (await client.generate("gpt-5", "Hi")).content
    assert "2" == (await client.generate("gpt-5", "Hi")).content
    assert 3 == server.posts


async def test_answer_read_to_its_end_frees_the_connection(serve, connect):
    """Calls and streams after one another share one connection."""
    stream_in_chunks = STREAM_HEAD.replace(b"Connection: close\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n")
    data = events("Hello")
    server = serve(
        serves(
            WHOLE,
            stream_in_chunks + b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data),
            answer({"error": "bad_request"}, status="400 Bad Request"),
            WHOLE,
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
