"""Responses above the size limits."""

import contextlib
import gzip
import tracemalloc

import pytest
from fault_server import STREAM_HEAD, events, respond_once, response
from outcomes import HEAD, MIB, assert_unknown, generate, stream

from neuralbox_async import InsufficientTokensError, ResponseError, StreamInterruptedError


@contextlib.contextmanager
def memory_below(limit):
    """Check that the block never allocates *limit* bytes or more."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        assert tracemalloc.get_traced_memory()[1] - before < limit
    finally:
        tracemalloc.stop()


def endless(head, piece=b"x" * 65536):
    """Return a script that sends *head* and then *piece* without end."""

    async def script(connection):
        await connection.request()
        await connection.send(head)
        while True:
            await connection.send(piece)

    return script


def of_50_mib(status):
    """Return a script that sends a body of 50 MiB."""

    async def script(connection):
        await connection.request()
        await connection.send(f"HTTP/1.1 {status} X\r\nContent-Length: {50 * MIB}\r\n\r\n".encode())
        await connection.send(*([b"x" * 65536] * 800))

    return script


@pytest.mark.parametrize("call", [generate, stream])
@pytest.mark.parametrize("script", [of_50_mib(402), endless(b"HTTP/1.1 402 No\r\n\r\n")], ids=["50 MiB", "endless"])
async def test_huge_error_body(serve, connect, call, script):
    """At most 1 MiB of the body of an error is read."""
    server = serve(script)
    client = connect(server)

    with memory_below(24 * MIB):
        outcome = await call(client)

    assert isinstance(outcome.error, InsufficientTokensError)
    assert MIB == len(outcome.error.body)
    assert len(str(outcome.error)) < 1000
    assert await server.all_closed()
    assert 1 == server.posts


@pytest.mark.parametrize(
    "script",
    [
        of_50_mib(200),
        endless(HEAD + b"\r\n"),
        endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 999),
    ],
    ids=["50 MiB", "endless", "one byte in each chunk"],
)
async def test_huge_body(serve, connect, script):
    """A body above max_response_bytes raises, and the connection is closed."""
    server = serve(script)
    client = connect(server, max_response_bytes=MIB // 16)

    with memory_below(24 * MIB):
        outcome = await generate(client)

    assert isinstance(outcome.error, ResponseError)
    assert "max_response_bytes" in str(outcome.error)
    assert_unknown(outcome.error)
    assert len(outcome.error.body) <= MIB
    assert await server.all_closed()
    assert 1 == server.posts


@pytest.mark.parametrize("status", ["200 OK", "402 No"])
async def test_gzip_bomb(serve, connect, status):
    """The size limits hold for the decompressed body."""
    bomb = gzip.compress(bytes(64 * MIB), 9)
    server = serve(respond_once(response(bomb, "Content-Encoding: gzip", status=status)))
    client = connect(server, max_response_bytes=MIB)

    with memory_below(24 * MIB):
        outcome = await generate(client)

    assert isinstance(outcome.error, ResponseError if status == "200 OK" else InsufficientTokensError)
    assert len(outcome.error.body) <= MIB
    assert await server.all_closed()
    assert 1 == server.posts


@pytest.mark.parametrize("piece", [b"x" * 65536, b"data: x\n" * 8192], ids=["one line", "many lines of one event"])
async def test_event_endless(serve, connect, piece):
    """An event above max_event_bytes breaks the stream, after the events before it were delivered."""
    server = serve(endless(STREAM_HEAD + events("Hello ", "world", end=False) + b"data: ", piece))
    client = connect(server, max_event_bytes=MIB)

    with memory_below(24 * MIB):
        outcome = await stream(client)

    assert isinstance(outcome.error, StreamInterruptedError)
    assert ["Hello ", "world"] == outcome.texts
    assert "max_event_bytes" in str(outcome.error)
    assert await server.all_closed()
    assert 1 == server.posts
