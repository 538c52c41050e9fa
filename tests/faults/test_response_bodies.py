"""Responses with a broken or slow body."""

import gzip

import pytest
from fault_server import answer, replies
from outcomes import BODY, HEAD, LONG, SHORT, WHOLE, assert_unknown, generate

from neuralbox_async import APIConnectionError, APIStatusError, APITimeoutError, ResponseError


def chunked(*chunks, end=b"0\r\n\r\n"):
    """Return an answer in chunks."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + end


LONGER = HEAD + b"Content-Length: %d\r\n\r\n" % (len(BODY) + 10) + BODY
CUT = BODY[:40]

BROKEN_BODIES = {
    "cut short of its length": (replies(WHOLE[:-10]), BODY[:-10]),
    "reset short of its length": (replies(WHOLE[:-10], then="reset"), BODY[:-10]),
    "length larger than the body": (replies(LONGER), BODY),
    "cut between chunks": (replies(chunked(CUT, end=b"")), CUT),
    "reset between chunks": (replies(chunked(CUT, end=b""), then="reset"), CUT),
    "cut inside a chunk": (replies(chunked(CUT, end=b"ff\r\nabc")), CUT + b"abc"),
    "bad size of the second chunk": (replies(chunked(CUT, end=b""), b"zz\r\n", every=0.05), CUT),
    "chunk longer than its size": (replies(chunked(CUT, end=b""), b"3\r\nabcdef\r\n", every=0.05), CUT),
    "no body at all": (replies(HEAD + b"Content-Length: 10\r\n\r\n"), b""),
    "no framing, cut": (replies(HEAD + b"\r\n" + CUT), CUT),
    "HTTP/1.0, cut": (replies(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + CUT), CUT),
    "length smaller than the body": (replies(HEAD + b"Content-Length: 40\r\n\r\n" + BODY), b""),
    "empty": (replies(answer(b"")), b""),
    "not compressed as it says": (replies(answer(BODY, "Content-Encoding: gzip")), b""),
    "compressed and cut": (replies(answer(gzip.compress(BODY)[:-20], "Content-Encoding: gzip")), b""),
}


@pytest.mark.parametrize("script, kept", BROKEN_BODIES.values(), ids=BROKEN_BODIES)
async def test_broken_body(serve, connect, script, kept):
    """A generation whose answer breaks off may be billed: it is not asked for again, and what came is on the error."""
    server = serve(script)
    client = connect(server)

    outcome = await generate(client)

    assert isinstance(outcome.error, APIConnectionError | ResponseError)
    assert_unknown(outcome.error)
    assert outcome.error.body.startswith(kept)
    assert 1 == server.posts
    assert 1 == len(server.connections)
    assert await server.all_left()
    assert outcome.elapsed < LONG


SLOW_BODIES = {
    "stalled": replies(WHOLE[:-10], then="stall"),
    "stalled between chunks": replies(chunked(BODY[:-10], end=b""), then="stall"),
    "stalled before the last chunk": replies(chunked(BODY, end=b""), then="stall"),
    "length larger than the body": replies(LONGER, then="stall"),
    "dripped": replies(WHOLE[:-60], *(bytes([byte]) for byte in WHOLE[-60:]), every=0.02),
}


@pytest.mark.parametrize("script", SLOW_BODIES.values(), ids=SLOW_BODIES)
async def test_slow_body(serve, connect, script):
    """The deadline is a wall clock, whatever still arrives; the connection is closed at once, and what came is kept."""
    server = serve(script)
    client = connect(server, timeout=SHORT)

    outcome = await generate(client)

    assert isinstance(outcome.error, APITimeoutError)
    assert_unknown(outcome.error)
    assert outcome.error.body
    assert BODY.startswith(outcome.error.body)
    assert SHORT <= outcome.elapsed < LONG
    assert await server.all_left()
    assert 1 == server.posts


async def test_what_came_late_is_still_an_answer(serve, connect):
    """HTTP/1.0 without a length, one byte at a time, is a slow answer and no error."""
    server = serve(replies(b"HTTP/1.0 200 OK\r\n\r\n", *(bytes([byte]) for byte in BODY), every=0.001))

    assert "Hello" == (await connect(server).generate("gpt-5", "Hi")).content
    assert await server.all_left()


@pytest.mark.parametrize("status", [400, 402, 429, 500])
@pytest.mark.parametrize("then", ["fin", "reset", "stall"])
async def test_error_whose_body_breaks(serve, connect, status, then):
    """The head of an error says what matters: it stays that error when its body does not come."""
    refusal = answer({"error": "refused", "message": "x" * 500}, status=f"{status} No")
    server = serve(replies(refusal[:-100], then=then))
    client = connect(server, timeout=SHORT, max_retries=0)

    outcome = await generate(client)

    assert isinstance(outcome.error, APIStatusError)
    assert status == outcome.error.status_code
    assert ("unknown" if status == 500 else "no") == outcome.error.billed
    assert outcome.elapsed < LONG
    assert await server.all_left()
    assert 1 == server.posts
