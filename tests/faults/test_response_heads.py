"""Responses without a complete head."""

import pytest
from fault_server import generation, never_responds, respond_once, response
from outcomes import BODY, HEAD, LONG, SHORT, assert_never_sent, assert_unknown, generate, stream

from neuralbox_async import APIConnectionError, APITimeoutError, ResponseError, StreamInterruptedError


def mangled(*lines, body=BODY):
    """Return a script that sends a 200 with these header lines."""
    return respond_once(HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body)


async def resets_unread(connection):
    """Reset without reading the request."""
    connection.reset()


async def resets(connection):
    """Read the request and reset."""
    await connection.request()
    connection.reset()


async def closes_unread(connection):
    """Close without reading the request."""
    connection.finish()


async def endless_headers(connection):
    """Send headers without end."""
    await connection.request()
    await connection.send(HEAD)
    while True:
        await connection.send(b"X-More: 1\r\n" * 1000)


async def endless_early_hints(connection):
    """Send 103 responses without end."""
    await connection.request()
    while True:
        await connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", every=0.01)


HEADLESS = {
    "closed without reading": closes_unread,
    "reset after the request": resets,
    "closed after the request": respond_once(),
    "half a status line, closed": respond_once(b"HTTP/1.1 20"),
    "half a head, closed": respond_once(HEAD + b"Content-Le"),
    "half a head, reset": respond_once(HEAD + b"Content-Le", then="reset"),
    "100 Continue, closed": respond_once(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "103, closed": respond_once(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "garbage": respond_once(b"\x00\xff garbage\r\n\r\n", then="stall"),
    "no status line": respond_once(BODY, then="stall"),
    "HTTP/2": respond_once(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", then="stall"),
    "a TLS alert": respond_once(b"\x15\x03\x01\x00\x02\x02\x0a", then="stall"),
    "status of letters": respond_once(b"HTTP/1.1 abc OK\r\n\r\n", then="stall"),
    "status of four digits": respond_once(b"HTTP/1.1 2000 OK\r\n\r\n", then="stall"),
    "one endless header": respond_once(HEAD + b"X: " + b"x" * 100_000, then="stall"),
    "2,000 headers": mangled(*(b"X-%d: 1" % number for number in range(2000))),
    "endless headers": endless_headers,
    "NUL in a header": mangled(b"X: a\0b"),
    "header without colon": mangled(b"no colon"),
    "two lengths": mangled(b"Content-Length: %d" % len(BODY), b"Content-Length: 5"),
    "negative length": mangled(b"Content-Length: -1"),
    "length in letters": mangled(b"Content-Length: many"),
    "length with sign": mangled(b"Content-Length: +%d" % len(BODY)),
    "length and chunks": mangled(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    "bad chunk size": mangled(b"Transfer-Encoding: chunked", body=b"zz\r\nhello\r\n"),
    "204 with a body": respond_once(response(generation(), status="204 No Content")),
    "unknown compression": respond_once(response(b"\x28\xb5\x2f\xfd", "Content-Encoding: zstd"), then="stall"),
}


@pytest.mark.parametrize("call", [generate, stream])
@pytest.mark.parametrize("script", HEADLESS.values(), ids=HEADLESS)
async def test_no_head(serve, connect, call, script):
    """A response without a valid head has an unknown billing status: it is not retried, and its connection closes."""
    server = serve(script)
    client = connect(server)

    outcome = await call(client)

    assert isinstance(outcome.error, APIConnectionError | StreamInterruptedError | ResponseError)
    assert_unknown(outcome.error)
    assert 1 == len(server.connections)
    assert await server.all_closed()
    assert outcome.elapsed < LONG


READABLE = {
    name: HEADLESS[name]
    for name in ("NUL in a header", "header without colon", "two lengths", "length with sign", "204 with a body")
} | {
    "HTTP/2": respond_once(b"HTTP/2 200 OK\r\n\r\n" + BODY),
    "length and chunks": mangled(
        b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    ),
}


@pytest.mark.parametrize("call", [generate, stream])
@pytest.mark.parametrize("script", READABLE.values(), ids=READABLE)
async def test_the_text_behind_a_malformed_head(serve, connect, call, script):
    """The error of a response that is not HTTP has the text and the id in its body."""
    error = (await call(connect(serve(script)))).error

    assert "Hello" == error.text
    assert "gen_1" == error.generation_id
    assert BODY in error.body
    assert_unknown(error)


LENGTHS = {
    "two fields": [b"Content-Length: %d", b"content-length:%d "],
    "a list": [b"Content-Length: %d, %d"],
    "a list and a field": [b"X-A: 1", b"Content-Length: %d ,%d", b"CONTENT-LENGTH: 0%d"],
}


@pytest.mark.parametrize("lines", LENGTHS.values(), ids=LENGTHS)
async def test_equal_lengths(serve, connect, lines):
    """Lengths that are equal are one length, as RFC 9110 (8.6) allows; the connection is used again."""
    head = HEAD + b"".join(line.replace(b"%d", b"%d" % len(BODY)) + b"\r\n" for line in lines) + b"\r\n"

    async def script(connection):
        for _ in range(3):
            await connection.request()
            await connection.send(head + BODY)

    server = serve(script)
    client = connect(server)

    texts = [(await client.generate("gpt-5", "Hi")).content for _ in range(3)]

    assert ["Hello"] * 3 == texts
    assert 1 == len(server.connections)


@pytest.mark.parametrize("call", [generate, stream])
async def test_reset_at_once(serve, connect, call):
    """A reset is retried only if it came before the request took the connection."""
    server = serve(resets_unread)

    outcome = await call(connect(server))

    if outcome.error.request_sent:
        assert "unknown" == outcome.error.billed
    else:
        assert_never_sent(outcome.error, attempts=3)
    assert outcome.error.attempts == len(server.connections)


SLOW_HEADS = {
    "silence": never_responds,
    "half a head, silence": respond_once(HEAD, then="stall"),
    "head byte by byte": respond_once(*(bytes([byte]) for byte in HEAD), every=0.05),
    "endless early hints": endless_early_hints,
}


@pytest.mark.parametrize("script", SLOW_HEADS.values(), ids=SLOW_HEADS)
async def test_slow_head(serve, connect, script):
    """A call whose response does not begin times out, and its connection is closed at once."""
    server = serve(script)
    client = connect(server, timeout=SHORT)

    outcome = await generate(client)

    assert isinstance(outcome.error, APITimeoutError)
    assert "total" == outcome.error.phase
    assert_unknown(outcome.error)
    assert SHORT <= outcome.elapsed < LONG
    assert await server.all_closed()
    assert 1 == server.posts


@pytest.mark.parametrize("script", SLOW_HEADS.values(), ids=SLOW_HEADS)
@pytest.mark.parametrize(
    "timeout, phase", [({"timeout": SHORT}, "total"), ({"first_event_timeout": SHORT}, "first_event")]
)
async def test_slow_head_of_a_stream(serve, connect, script, timeout, phase):
    """A stream whose response does not begin ends at either of its timeouts."""
    server = serve(script)
    client = connect(server)

    outcome = await stream(client, **timeout)

    assert isinstance(outcome.error, APITimeoutError)
    assert phase == outcome.error.phase
    assert_unknown(outcome.error)
    assert SHORT <= outcome.elapsed < LONG
    assert await server.all_closed()
    assert 1 == server.posts
