"""Responses without a complete head."""

import pytest
from fault_server import answer, generation, reads_and_stalls, replies
from outcomes import BODY, HEAD, LONG, SHORT, assert_never_sent, assert_unknown, generate, stream

from neuralbox_async import APIConnectionError, APITimeoutError, ResponseError, StreamInterruptedError


def mangled(*lines, body=BODY):
    """Return a script that answers 200 with these header lines."""
    return replies(HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body)


async def resets_unread(connection):
    """Accept, and reset without a word."""
    connection.reset()


async def resets(connection):
    """Read the request, and reset."""
    await connection.request()
    connection.reset()


async def closes_unread(connection):
    """Accept, and close without a word."""
    connection.finish()


async def headers_without_end(connection):
    """Send header after header, for ever."""
    await connection.request()
    await connection.send(HEAD)
    while True:
        await connection.send(b"X-More: 1\r\n" * 1000)


async def early_hints_without_end(connection):
    """Send 103 after 103."""
    await connection.request()
    while True:
        await connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", every=0.01)


# ---------------------------------------------------------------------------------------- the answer's head never comes


HEADLESS = {
    "closed without reading": closes_unread,
    "reset after the request": resets,
    "closed after the request": replies(),
    "half a status line, closed": replies(b"HTTP/1.1 20"),
    "half a head, closed": replies(HEAD + b"Content-Le"),
    "half a head, reset": replies(HEAD + b"Content-Le", then="reset"),
    "100 Continue, closed": replies(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "103, closed": replies(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "garbage": replies(b"\x00\xff garbage\r\n\r\n", then="stall"),
    "no status line": replies(BODY, then="stall"),
    "HTTP/2": replies(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", then="stall"),
    "a TLS alert": replies(b"\x15\x03\x01\x00\x02\x02\x0a", then="stall"),
    "status of letters": replies(b"HTTP/1.1 abc OK\r\n\r\n", then="stall"),
    "status of four digits": replies(b"HTTP/1.1 2000 OK\r\n\r\n", then="stall"),
    "one endless header": replies(HEAD + b"X: " + b"x" * 100_000, then="stall"),
    "300 headers": mangled(*(b"X-%d: 1" % number for number in range(300))),
    "endless headers": headers_without_end,
    "NUL in a header": mangled(b"X: a\0b"),
    "header without colon": mangled(b"nothing to see"),
    "two lengths": mangled(b"Content-Length: %d" % len(BODY), b"Content-Length: 5"),
    "negative length": mangled(b"Content-Length: -1"),
    "length in words": mangled(b"Content-Length: many"),
    "length with sign": mangled(b"Content-Length: +%d" % len(BODY)),
    "length and chunks": mangled(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    "bad chunk size": mangled(b"Transfer-Encoding: chunked", body=b"zz\r\nhello\r\n"),
    "204 with a body": replies(answer(generation(), status="204 No Content")),
    "compressed by no known way": replies(answer(generation(), "Content-Encoding: zstd"), then="stall"),
}


@pytest.mark.parametrize("call", [generate, stream])
@pytest.mark.parametrize("script", HEADLESS.values(), ids=HEADLESS)
async def test_no_head(serve, connect, call, script):
    """Without an understandable head the outcome is unknown: the call is not repeated, and the connection is closed."""
    server = serve(script)
    client = connect(server)

    outcome = await call(client)

    assert isinstance(outcome.error, APIConnectionError | StreamInterruptedError | ResponseError)
    assert_unknown(outcome.error)
    assert 1 == len(server.connections)
    assert await server.all_left()
    assert outcome.elapsed < LONG


@pytest.mark.parametrize("call", [generate, stream])
async def test_reset_before_anything(serve, connect, call):
    """Whether a reset came before the connection took the request is known: only then is it made again."""
    server = serve(resets_unread)

    outcome = await call(connect(server))

    if outcome.error.request_sent:
        assert "unknown" == outcome.error.billed
    else:
        assert_never_sent(outcome.error, attempts=3)
    assert outcome.error.attempts == len(server.connections)


SLOW_HEADS = {
    "silence": reads_and_stalls,
    "half a head, silence": replies(HEAD, then="stall"),
    "head dripped": replies(*(bytes([byte]) for byte in HEAD), every=0.05),
    "early hints without end": early_hints_without_end,
}


@pytest.mark.parametrize("script", SLOW_HEADS.values(), ids=SLOW_HEADS)
async def test_slow_head(serve, connect, script):
    """The deadline ends a call whose answer does not begin; its connection is closed at once."""
    server = serve(script)
    client = connect(server, timeout=SHORT)

    outcome = await generate(client)

    assert isinstance(outcome.error, APITimeoutError)
    assert "total" == outcome.error.phase
    assert_unknown(outcome.error)
    assert SHORT <= outcome.elapsed < LONG
    assert await server.all_left()
    assert 1 == server.posts


@pytest.mark.parametrize("script", SLOW_HEADS.values(), ids=SLOW_HEADS)
@pytest.mark.parametrize(
    "clock, phase", [({"timeout": SHORT}, "total"), ({"first_event_timeout": SHORT}, "first_event")]
)
async def test_slow_head_of_a_stream(serve, connect, script, clock, phase):
    """Either clock of a stream ends one whose answer does not begin."""
    server = serve(script)
    client = connect(server)

    outcome = await stream(client, **clock)

    assert isinstance(outcome.error, APITimeoutError)
    assert phase == outcome.error.phase
    assert_unknown(outcome.error)
    assert SHORT <= outcome.elapsed < LONG
    assert await server.all_left()
    assert 1 == server.posts
