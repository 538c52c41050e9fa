"""Kept connections: stale ones, and unexpected bytes on them."""

import asyncio
import json
import threading
import time

import pytest
from fault_server import STREAM_HEAD, events, eventually, generation, respond_to_each, response
from outcomes import COMPLETE, HEAD, assert_unknown, generate, stream


@pytest.fixture(params=["poll", "select"])
def polls(request, monkeypatch):
    """Run the test with `select.poll`, and without it, as on Windows."""
    if request.param == "select":
        monkeypatch.delattr("select.poll")


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


@pytest.mark.usefixtures("polls")
@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_connection_closed_while_the_loop_is_blocked(serve, connect, tls, trusting, how, secure):
    """A call does not use a connection that the server closed while the loop was blocked."""
    received, closed = threading.Event(), threading.Event()

    async def script(connection):
        await connection.request()
        await connection.send(COMPLETE)
        while not received.is_set():
            await asyncio.sleep(0.001)
        connection.writer.close() if how == "closed" else connection.reset()
        asyncio.get_running_loop().call_later(0.1, closed.set)  # it takes up to 40 ms to arrive

    server = serve(script, tls=tls if secure else None)
    client = connect(server, ssl_context=trusting)
    for calls in range(1, 11):
        assert "Hello" == (await client.generate("gpt-5", "Hi")).content
        assert calls == server.posts == len(server.connections)
        received.set()
        assert closed.wait(5)
        received.clear()
        closed.clear()


async def test_connections_closed_while_the_loop_is_blocked(serve, connect):
    """Of many calls at once, none uses a connection that the server closed while the loop was blocked."""

    async def script(connection):
        await connection.request()
        await connection.send(COMPLETE)
        await asyncio.sleep(0.1)
        connection.finish()

    server = serve(script)
    client = connect(server)
    for rounds in range(1, 4):
        calls = [client.generate("gpt-5", "Hi") for _ in range(40)]
        assert 40 * ["Hello"] == [generation.content for generation in await asyncio.gather(*calls)]
        assert 40 * rounds == server.posts
        time.sleep(0.3)


@pytest.mark.usefixtures("polls")
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_idle_connections_are_kept(serve, connect, tls, trusting, secure):
    """A connection that the server keeps is used again, also after the loop was blocked, and with session tickets."""
    server = serve(respond_to_each(COMPLETE), tls=tls if secure else None)
    client = connect(server, ssl_context=trusting)
    for pause in (0, 0.05, 0.2, 0):
        await client.generate("gpt-5", "Hi")
        time.sleep(pause)
        await client.generate("gpt-5", "Hi")
        await asyncio.sleep(pause)
    assert 8 == server.posts
    assert 1 == len(server.connections)


@pytest.mark.usefixtures("polls")
@pytest.mark.parametrize(
    "late, pause",
    [
        (response(generation("Unsolicited")), 0.0),
        (response(generation("Unsolicited")), 0.05),
        (response(b"", status="408 Request Timeout"), 0.05),
        (response(b"", "Connection: close", status="408 Request Timeout"), 0.05),
        (HEAD, 0.05),
        (HEAD, 0.0),
        (b"garbage", 0.05),
        (b"\n", 0.05),
    ],
    ids=[
        "a response at once",
        "a response",
        "an error",
        "an error and close",
        "half a response",
        "half a response at once",
        "garbage",
        "an empty line",
    ],
)
@pytest.mark.parametrize("blocked", [False, True], ids=["idle loop", "blocked loop"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_unsolicited_bytes(serve, connect, tls, trusting, late, pause, blocked, secure):
    """Bytes after a response, at once or later, are never read as the response to the next request."""
    sent = threading.Event()

    async def script(connection):
        await connection.request()
        await connection.send(response(generation("1")))
        await asyncio.sleep(pause)
        await connection.send(late)
        sent.set()
        while True:
            await connection.request()
            await connection.send(response(generation("2")))

    second = respond_to_each(response(generation("2")))
    server = serve(script, second, tls=tls if secure else None)
    client = connect(server, ssl_context=trusting)

    assert "1" == (await client.generate("gpt-5", "Hi")).content
    assert sent.wait(30) if blocked else await asyncio.to_thread(sent.wait, 30)
    time.sleep(0.2) if blocked else await asyncio.sleep(0.2)  # it takes up to 40 ms to arrive
    assert "2" == (await client.generate("gpt-5", "Hi")).content
    assert "2" == (await client.generate("gpt-5", "Hi")).content
    assert [1, 2] == [len(connection.requests) for connection in server.connections]


async def test_responses_that_are_one_ahead(serve, connect):
    """After a surplus response, no caller gets the response of the caller before."""

    async def script(connection):
        first = await connection.request()
        await connection.send(echo(first) + response(generation("Unsolicited")))
        while True:
            await connection.send(echo(await connection.request()))

    def echo(request):
        return response(generation(json.loads(request.body)["messages"][0]["content"]))

    server = serve(script)
    client = connect(server)
    for number in range(10):
        texts = [f"{number} {index}" for index in range(5)]
        answers = await asyncio.gather(*(client.generate("gpt-5", text) for text in texts))
        assert texts == [answer.content for answer in answers]


@pytest.mark.parametrize("head", ["408 Request Timeout", "408 Slow"])
async def test_connection_after_a_408(serve, connect, head):
    """The connection of a 408 is not used again: the response to the request itself may follow."""

    async def script(connection):
        await connection.request()
        await connection.send(response({"error": "timeout"}, status=head), response(generation("late")), every=0.02)
        await connection.request()

    server = serve(script, respond_to_each(response(generation("2"))))
    client = connect(server)

    assert_unknown((await generate(client)).error)
    assert "2" == (await client.generate("gpt-5", "Hi")).content
    assert [1, 1] == [len(connection.requests) for connection in server.connections]
    assert await eventually(lambda: server.ends[0] is not None)


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
