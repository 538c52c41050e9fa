"""Responses with a broken or slow body."""

import pytest
from broken_responses import BROKEN_BODIES, LONGER, chunked
from fault_server import respond_once, response
from outcomes import BODY, COMPLETE, LONG, SHORT, assert_unknown, generate

from neuralbox_async import APIConnectionError, APIStatusError, APITimeoutError, ResponseError


@pytest.mark.parametrize("script, received", BROKEN_BODIES.values(), ids=BROKEN_BODIES)
async def test_broken_body(serve, connect, script, received):
    """A response that breaks off may be billed: it is not retried, and the error has the bytes that arrived."""
    server = serve(script)
    client = connect(server)

    outcome = await generate(client)

    assert isinstance(outcome.error, APIConnectionError | ResponseError)
    assert_unknown(outcome.error)
    assert outcome.error.body.startswith(received)
    assert 1 == server.posts
    assert 1 == len(server.connections)
    assert await server.all_closed()
    assert outcome.elapsed < LONG


SLOW_BODIES = {
    "stalled": respond_once(COMPLETE[:-10], then="stall"),
    "stalled between chunks": respond_once(chunked(BODY[:-10], end=b""), then="stall"),
    "stalled before the last chunk": respond_once(chunked(BODY, end=b""), then="stall"),
    "length larger than the body": respond_once(LONGER, then="stall"),
    "byte by byte": respond_once(COMPLETE[:-60], *(bytes([byte]) for byte in COMPLETE[-60:]), every=0.02),
}


@pytest.mark.parametrize("script", SLOW_BODIES.values(), ids=SLOW_BODIES)
async def test_slow_body(serve, connect, script):
    """The timeout expires while bytes arrive; the connection is closed at once, and the error has the bytes."""
    server = serve(script)
    client = connect(server, timeout=SHORT)

    outcome = await generate(client)

    assert isinstance(outcome.error, APITimeoutError)
    assert_unknown(outcome.error)
    assert outcome.error.body
    assert BODY.startswith(outcome.error.body)
    assert SHORT <= outcome.elapsed < LONG
    assert await server.all_closed()
    assert 1 == server.posts


async def test_slow_complete_body(serve, connect):
    """An HTTP/1.0 response without a length, one byte at a time, is complete."""
    server = serve(respond_once(b"HTTP/1.0 200 OK\r\n\r\n", *(bytes([byte]) for byte in BODY), every=0.001))

    assert "Hello" == (await connect(server).generate("gpt-5", "Hi")).content
    assert await server.all_closed()


@pytest.mark.parametrize("status", [400, 402, 429, 500])
@pytest.mark.parametrize("then", ["fin", "reset", "stall"])
async def test_error_whose_body_breaks(serve, connect, monkeypatch, status, then):
    """An error status raises its error even if the body breaks off or stalls."""
    monkeypatch.setattr("neuralbox_async._call.executor._ERROR_BODY_TIMEOUT", SHORT)
    refusal = response({"error": "refused", "message": "x" * 500}, status=f"{status} No")
    server = serve(respond_once(refusal[:-100], then=then))
    client = connect(server, timeout=2 * LONG, max_retries=0)

    outcome = await generate(client)

    assert isinstance(outcome.error, APIStatusError)
    assert status == outcome.error.status_code
    assert ("unknown" if status == 500 else "no") == outcome.error.billed
    assert outcome.elapsed < LONG
    assert await server.all_closed()
    assert 1 == server.posts
