"""
Each way in which a network, a proxy or a server fails, by a table.

What counts each time: which error, what it says of the money, how often the server was asked, how long it took, what
became of the connection, and that no text is lost.
"""

import asyncio
import contextlib
import gzip
import socket
import ssl
import threading
import time
import tracemalloc

import attrs
import pytest
import trustme
from fault_server import (
    STREAM_HEAD,
    answer,
    event,
    events,
    eventually,
    generation,
    reads_and_stalls,
    replies,
    serves,
)

from neuralbox_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    InsufficientTokensError,
    NeuralBoxError,
    ResponseError,
    StreamInterruptedError,
    StreamTimeoutError,
)

SHORT = 0.2  # the timeouts of these tests, in seconds
LONG = SHORT + 2  # and what a busy machine may make of them
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WHOLE = answer(generation())
BODY = WHOLE.partition(b"\r\n\r\n")[2]
MIB = 1024 * 1024


@attrs.frozen
class Outcome:
    """What came of a call that failed."""

    error: NeuralBoxError
    elapsed: float
    texts: list[str]


async def generate(client, **options):
    """Generate, which fails."""
    started = time.monotonic()
    with pytest.raises(NeuralBoxError) as caught:
        await client.generate("gpt-5", "Hi", **options)
    return Outcome(caught.value, time.monotonic() - started, [])


async def stream(client, *, recover=False, **options):
    """Read a stream, which fails."""
    started = time.monotonic()
    texts = []
    with pytest.raises(NeuralBoxError) as caught:
        async with client.stream("gpt-5", "Hi", recover=recover, **options) as opened:
            async for text in opened.text:
                texts.append(text)
    return Outcome(caught.value, time.monotonic() - started, texts)


async def retrieve(client):
    """Ask for a generation, which fails."""
    started = time.monotonic()
    with pytest.raises(NeuralBoxError) as caught:
        await client.retrieve("gen_1")
    return Outcome(caught.value, time.monotonic() - started, [])


def assert_unknown(error):
    """It was sent, once, nobody knows what became of it, and the error says so."""
    assert "unknown" == error.billed
    assert error.request_sent
    assert 1 == error.attempts
    assert error.idempotency_key


def assert_never_sent(error, *, attempts):
    """Nothing left this machine, and the error says so."""
    assert "no" == error.billed
    assert not error.request_sent
    assert attempts == error.attempts


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


# ------------------------------------------------------------------------------------------ the answer's body is broken


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
    assert status == outcome.error.status
    assert ("unknown" if status == 500 else "no") == outcome.error.billed
    assert outcome.elapsed < LONG
    assert await server.all_left()
    assert 1 == server.posts


# ----------------------------------------------------------------------------------------------- more than anyone wants


@contextlib.contextmanager
def memory_below(limit):
    """What is allocated inside stays below *limit* bytes at any time."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        assert tracemalloc.get_traced_memory()[1] - before < limit
    finally:
        tracemalloc.stop()


def without_end(head, piece=b"x" * 65536):
    """Return a script that sends *piece* after *head* for ever."""

    async def script(connection):
        await connection.request()
        await connection.send(head)
        while True:
            await connection.send(piece)

    return script


def of_50_mib(status):
    """Return a script that answers with a body of 50 MiB."""

    async def script(connection):
        await connection.request()
        await connection.send(f"HTTP/1.1 {status} X\r\nContent-Length: {50 * MIB}\r\n\r\n".encode())
        await connection.send(*([b"x" * 65536] * 800))

    return script


@pytest.mark.parametrize("call", [generate, stream])
@pytest.mark.parametrize(
    "script", [of_50_mib(402), without_end(b"HTTP/1.1 402 No\r\n\r\n")], ids=["50 MiB", "without end"]
)
async def test_huge_error_body(serve, connect, call, script):
    """Of the body of an error, 1 MiB is read."""
    server = serve(script)
    client = connect(server)

    with memory_below(24 * MIB):
        outcome = await call(client)

    assert isinstance(outcome.error, InsufficientTokensError)
    assert MIB == len(outcome.error.body)
    assert len(str(outcome.error)) < 1000
    assert await server.all_left()
    assert 1 == server.posts


@pytest.mark.parametrize(
    "script",
    [
        of_50_mib(200),
        without_end(HEAD + b"\r\n"),
        without_end(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 999),
    ],
    ids=["50 MiB", "without end", "one byte in each chunk"],
)
async def test_huge_body(serve, connect, script):
    """A body beyond max_response_bytes is not read on, and the connection is closed."""
    server = serve(script)
    client = connect(server, max_response_bytes=MIB // 16)

    with memory_below(24 * MIB):
        outcome = await generate(client)

    assert isinstance(outcome.error, ResponseError)
    assert "max_response_bytes" in str(outcome.error)
    assert_unknown(outcome.error)
    assert len(outcome.error.body) <= MIB
    assert await server.all_left()
    assert 1 == server.posts


@pytest.mark.parametrize("status", ["200 OK", "402 No"])
async def test_gzip_bomb(serve, connect, status):
    """What counts is the size after decompression."""
    bomb = gzip.compress(bytes(64 * MIB), 9)
    server = serve(replies(answer(bomb, "Content-Encoding: gzip", status=status)))
    client = connect(server, max_response_bytes=MIB)

    with memory_below(24 * MIB):
        outcome = await generate(client)

    assert isinstance(outcome.error, ResponseError if status == "200 OK" else InsufficientTokensError)
    assert len(outcome.error.body) <= MIB
    assert await server.all_left()
    assert 1 == server.posts


@pytest.mark.parametrize("piece", [b"x" * 65536, b"data: x\n" * 8192], ids=["one line", "many lines of one event"])
async def test_event_without_end(serve, connect, piece):
    """An event beyond max_event_bytes breaks the stream; what came before it is delivered."""
    server = serve(without_end(STREAM_HEAD + events("Hello ", "world", end=False) + b"data: ", piece))
    client = connect(server, max_event_bytes=MIB)

    with memory_below(24 * MIB):
        outcome = await stream(client)

    assert isinstance(outcome.error, StreamInterruptedError)
    assert ["Hello ", "world"] == outcome.texts
    assert "max_event_bytes" in str(outcome.error)
    assert await server.all_left()
    assert 1 == server.posts


# ------------------------------------------------------------------------------------------------------- broken streams

START = STREAM_HEAD + events("Hello ", "world", end=False)
CHUNKED_START = STREAM_HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"


def streamed_in_chunks(data, end):
    """Return *data* as one chunk of a stream, then *end*."""
    return CHUNKED_START + b"%x\r\n%s\r\n" % (len(data), data) + end


BROKEN_STREAMS = {
    "closed": replies(START),
    "reset": replies(START, then="reset"),
    "closed inside an event": replies(START + b'data: {"type": "content_del'),
    "closed before the blank line": replies(START + b'data: {"type": "content_delta", "delta": "!"}\n'),
    "closed inside a chunk": replies(streamed_in_chunks(events("Hello ", "world", end=False), b"ff\r\ndata: {")),
    "closed by a last chunk": replies(streamed_in_chunks(events("Hello ", "world", end=False), b"0\r\n\r\n")),
    "bad chunk size": replies(
        streamed_in_chunks(events("Hello ", "world", end=False), b""), b"zz\r\n\r\n", then="stall", every=0.05
    ),
    "not JSON": replies(START + b"data: {nope}\n\n" + events("never")),
    "not an object": replies(START + b"data: [1]\n\n" + events("never")),
    "a delta that is no text": replies(START + event(type="content_delta", delta=5) + events("never")),
    "a delta that is missing": replies(START + event(type="content_delta") + events("never")),
    "an error event": replies(START + event(type="error", message="overloaded") + events("never")),
    "an error event without words": replies(START + event(type="error") + events("never")),
    "bad UTF-8 for JSON": replies(START + b"data: \xff\xfe\n\n" + events("never")),
    "lone [DONE]-like": replies(START + b"data: [DONE\n\n"),
}


@pytest.mark.parametrize("script", BROKEN_STREAMS.values(), ids=BROKEN_STREAMS)
async def test_broken_stream(serve, connect, script):
    """A stream that ends without its last event raises, with the text that was delivered, and again each time."""
    server = serve(script)
    client = connect(server, stall_timeout=LONG)
    texts = []

    async with client.stream("gpt-5", "Hi", recover=False) as opened:
        with pytest.raises(StreamInterruptedError) as caught:
            async for text in opened.text:
                texts.append(text)
        with pytest.raises(StreamInterruptedError) as again:
            await anext(opened)

    error = caught.value
    assert not isinstance(error, StreamTimeoutError)  # it broke, and that is noticed at once
    assert again.value is error
    assert ["Hello ", "world"] == texts
    assert "Hello world" == error.text == error.generation.content == opened.generation.content
    assert "incomplete" == opened.generation.status
    assert "gen_1" == error.generation_id == opened.generation.id
    assert "unknown" == error.billed
    assert error.request_sent
    assert 1 == server.posts
    assert 1 == len(server.connections)
    assert await server.all_left()


def heartbeats(beat):
    """Return a script that streams some text, and then nothing but *beat*."""

    async def script(connection):
        await connection.request()
        await connection.send(START)
        while True:
            await connection.send(beat, every=0.02)

    return script


STALLED_STREAMS = {
    "silence": replies(START, then="stall"),
    "comments": heartbeats(b": ping\n\n"),
    "comments without blank lines": heartbeats(b":\n"),
    "unknown events": heartbeats(event(type="ping")),
    "empty deltas": heartbeats(event(type="content_delta", delta="")),
    "empty events": heartbeats(b"event: ping\n\n"),
    "an event dripped": heartbeats(b"x"),
}


@pytest.mark.parametrize("script", STALLED_STREAMS.values(), ids=STALLED_STREAMS)
async def test_stalled_stream(serve, connect, script):
    """Only content keeps a stream alive."""
    server = serve(script)
    client = connect(server)

    outcome = await stream(client, stall_timeout=SHORT)

    assert isinstance(outcome.error, StreamTimeoutError)
    assert "stall" == outcome.error.phase
    assert "Hello world" == "".join(outcome.texts) == outcome.error.text
    assert "gen_1" == outcome.error.generation_id
    assert "unknown" == outcome.error.billed
    assert SHORT * 0.9 <= outcome.elapsed < LONG
    assert await server.all_left()
    assert 1 == server.posts


@pytest.mark.parametrize("beat", [b": ping\n\n", event(type="ping")], ids=["comments", "unknown events"])
async def test_stream_without_first_event(serve, connect, beat):
    """What is no content does not count as the first event."""

    async def script(connection):
        await connection.request()
        await connection.send(STREAM_HEAD)
        while True:
            await connection.send(beat, every=0.02)

    server = serve(script)
    client = connect(server)

    outcome = await stream(client, first_event_timeout=SHORT)

    assert isinstance(outcome.error, StreamTimeoutError)
    assert "first_event" == outcome.error.phase
    assert SHORT * 0.9 <= outcome.elapsed < LONG
    assert await server.all_left()
    assert 1 == server.posts


@pytest.mark.parametrize("busy", [False, True], ids=["eager reader", "busy reader"])
async def test_total_time_of_a_stream(serve, connect, busy):
    """The deadline of a whole stream holds while data flows, and for a reader that does other things in between."""

    async def script(connection):
        await connection.request()
        await connection.send(STREAM_HEAD)
        while True:
            await connection.send(event(type="content_delta", delta="x") * 8, every=0.005)

    server = serve(script)
    client = connect(server)
    started = time.monotonic()

    with pytest.raises(StreamTimeoutError) as caught:
        async with client.stream("gpt-5", "Hi", recover=False, timeout=3 * SHORT) as opened:
            async for _ in opened.text:
                if busy:
                    await asyncio.sleep(0.001)
                assert time.monotonic() - started < LONG

    assert "total" == caught.value.phase
    assert caught.value.text
    assert await server.all_left()
    assert 1 == server.posts


async def test_slow_reader_is_no_stall(serve, connect):
    """The clocks of a stream run only while a read waits."""
    server = serve(
        replies(STREAM_HEAD + events("a"), events("b", start=False, end=False), events("c", start=False), every=0.01)
    )
    client = connect(server)

    async with client.stream("gpt-5", "Hi", stall_timeout=0.2, recover=False) as opened:
        async for _ in opened:
            await asyncio.sleep(0.15)

    assert opened.generation.completed


async def test_polling_reader_notices_a_stall(serve, connect):
    """Reads that are given up after a moment count together: a dead stream ends for their reader, too."""
    server = serve(heartbeats(b": ping\n\n"))
    client = connect(server)
    started = time.monotonic()

    async with client.stream("gpt-5", "Hi", stall_timeout=SHORT, recover=False) as opened:
        while time.monotonic() - started < LONG:
            try:
                await asyncio.wait_for(anext(opened), 0.05)
            except StreamTimeoutError:
                break
            except TimeoutError:
                continue
        else:
            pytest.fail("the stall was never noticed")


# ---------------------------------------------------------------------------------------------- streams that are mended

MENDED = {
    "closed": START,
    "not JSON": START + b"data: {nope}\n\n",
    "too large": START + b"data: " + b"x" * 5000 + b"\n\n",
    "an event cut": START + b"data: {",
}


@pytest.mark.parametrize("then", ["fin", "reset"])
@pytest.mark.parametrize("data", MENDED.values(), ids=MENDED)
async def test_mended_stream(serve, connect, data, then):
    """With an id, a broken stream goes on with the text that the API has kept, to its end; nothing is posted again."""
    server = serve(replies(data, then=then), serves(answer(generation("Hello world, and more"))))
    client = connect(server, max_event_bytes=4000)

    async with client.stream("gpt-5", "Hi") as opened:
        texts = [text async for text in opened.text]

    assert ["Hello ", "world", ", and more"] == texts
    assert opened.generation.completed
    assert 3 == opened.generation.tokens_used
    assert 1 == server.posts


UNMENDABLE = {
    "another text": (serves(answer(generation("Something else"))), "yes"),
    "failed": (serves(answer({"id": "gen_1", "status": "failed", "error": "refused"})), "no"),
    "not found": (serves(answer({"error": "not_found"}, status="404 Not Found")), "unknown"),
    "no answer": (replies(), "unknown"),
    "no sense": (serves(answer(b"<html>")), "unknown"),
}


@pytest.mark.parametrize("script, billed", UNMENDABLE.values(), ids=UNMENDABLE)
async def test_unmendable_stream(serve, connect, script, billed):
    """What cannot be recovered is the interruption that it was."""
    server = serve(replies(START), script)
    client = connect(server, stall_timeout=SHORT)

    outcome = await stream(client, recover=True)

    assert outcome.elapsed < LONG

    assert isinstance(outcome.error, StreamInterruptedError)
    assert "Hello world" == outcome.error.text
    assert "gen_1" == outcome.error.generation_id
    assert 1 == server.posts
    assert billed == outcome.error.billed


async def test_complete_text_is_no_error(serve, connect):
    """Once the last event has been delivered, closing under the reader takes nothing away."""
    server = serve(replies(STREAM_HEAD + events("Hello"), then="stall"))
    client = connect(server)

    for close in (lambda opened: opened.aclose(), lambda _: client.aclose()):
        async with client.stream("gpt-5", "Hi") as opened:
            reading = asyncio.create_task(opened.until_done())
            await asyncio.sleep(0.05)
            await close(opened)
            assert "Hello" == (await reading).content


ANSWERED_AS_JSON = {"usual": "application/json; charset=utf-8", "upper case": "Application/JSON", "wrong": "text/plain"}


@pytest.mark.parametrize("kind", ANSWERED_AS_JSON.values(), ids=ANSWERED_AS_JSON)
async def test_json_instead_of_a_stream(serve, connect, kind):
    """A server that ignores ``stream`` is read all the same: the text has been paid for."""
    server = serve(replies(answer(generation("Hello"), kind=kind)))

    async with connect(server).stream("gpt-5", "Hi") as opened:
        assert ["Hello"] == [text async for text in opened.text]

    assert opened.generation.completed
    assert 1 == server.posts


async def test_failed_generation_instead_of_a_stream(serve, connect):
    """A generation that failed costs nothing, also when it was to be streamed."""
    server = serve(replies(answer({"id": 1, "status": "failed", "error": "refused"})))

    outcome = await stream(connect(server))

    assert "no" == outcome.error.billed
    assert "refused" == outcome.error.reason


async def test_cut_json_instead_of_a_stream(serve, connect):
    """When the JSON that came instead of a stream breaks off, its bytes are kept as those of generate() are."""
    server = serve(replies(WHOLE[:-10]))

    outcome = await stream(connect(server))

    assert isinstance(outcome.error, StreamInterruptedError)
    assert "unknown" == outcome.error.billed
    causes = [outcome.error, outcome.error.__cause__]
    assert any(BODY[:-10] == getattr(cause, "body", None) for cause in causes)


# ------------------------------------------------------------------------------------------------------------ redirects


@pytest.mark.parametrize("call, asked", [(generate, "POST"), (stream, "POST"), (retrieve, "GET")])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_elsewhere(serve, connect, call, asked, status):
    """Nobody is told the key, or asked to generate, because a redirect says so."""
    other = serve(serves(WHOLE))
    server = serve(serves(answer(b"", f"Location: {other.url}/generate", status=f"{status} Moved")))
    client = connect(server)

    outcome = await call(client)

    assert isinstance(outcome.error, APIStatusError)
    assert status == outcome.error.status
    assert f"{other.url}/generate" == outcome.error.headers["location"]
    assert [asked] == [request.method for request in server.requests]
    assert not other.connections


@pytest.mark.parametrize("call", [generate, stream])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_of_a_post_to_the_same_origin(serve, connect, call, status):
    """A POST is not redirected even to where it came from."""
    server = serve(serves(answer(b"", "Location: /api/v2/generate", status=f"{status} Moved"), WHOLE))

    outcome = await call(connect(server))

    assert status == outcome.error.status
    assert 1 == server.posts == len(server.requests)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_of_a_get_to_the_same_origin(serve, connect, status):
    """A GET follows a redirect within its origin, with the key."""
    moved = answer(b"", "Location: /elsewhere?x=1", status=f"{status} Moved", kind="text/plain")

    async def script(connection):
        request = await connection.request()
        await connection.send(WHOLE if request.path == "/elsewhere?x=1" else moved)
        connection.finish()

    server = serve(script)

    assert "Hello" == (await connect(server).retrieve("gen_1")).content
    assert 2 == len(server.requests)
    assert all("Bearer nb_test_key" == request.headers["authorization"] for request in server.requests)


@pytest.mark.parametrize(
    "location",
    [
        "ftp://127.0.0.1/x",
        "//evil.example/x",
        "http://user:pw@127.0.0.1:{port}/x",
        "http://127.0.0.1/x",
        "https://127.0.0.1:{port}/x",
        "",
        "http://[",
    ],
)
async def test_redirect_of_a_get_out_of_its_origin(serve, connect, location):
    """Another scheme, host, port or user is another origin."""
    server = serve()
    server.scripts = (serves(answer(b"", f"Location: {location.format(port=server.port)}", status="302 Found")),)

    outcome = await retrieve(connect(server, max_retries=0))

    assert isinstance(outcome.error, APIStatusError | APIConnectionError)
    assert "no" == outcome.error.billed
    assert 1 == len(server.requests)


async def test_redirect_in_a_circle(serve, connect):
    """Redirects that lead nowhere end."""
    server = serve(serves(answer(b"", "Location: /api/v2/generate/status/gen_1", status="302 Found")))

    outcome = await retrieve(connect(server))

    assert isinstance(outcome.error, APIConnectionError)
    assert not outcome.error.retryable
    assert len(server.requests) <= 10


# ----------------------------------------------------------------------------------------------------- kept connections


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
        await opened.until_done()
    await generate(client)
    await client.generate("gpt-5", "Hi")

    assert 4 == server.posts
    assert 1 == len(server.connections)


# ----------------------------------------------------------------------------------------------- there is no connection


@contextlib.contextmanager
def closed_port():
    """A port of the loopback that refuses connections."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        yield placeholder.getsockname()[1]


@contextlib.contextmanager
def black_hole():
    """A port of the loopback where no connection comes about: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@attrs.frozen
class Place:
    """Where a client is told to find the API."""

    url: str


@pytest.mark.parametrize("call", [generate, stream])
async def test_refused(connect, call):
    """A connection that is refused is tried again, three times in all; nothing was sent."""
    with closed_port() as port:
        outcome = await call(connect(Place(f"http://127.0.0.1:{port}")))

    assert APIConnectionError is type(outcome.error)
    assert_never_sent(outcome.error, attempts=3)
    assert outcome.elapsed < LONG


@pytest.mark.parametrize("call", [generate, stream])
async def test_black_hole(connect, call):
    """A connection that does not come about ends by connect_timeout, each time."""
    with black_hole() as port:
        outcome = await call(connect(Place(f"http://127.0.0.1:{port}"), connect_timeout=0.2))

    assert isinstance(outcome.error, APITimeoutError)
    assert "connect" == outcome.error.phase
    assert_never_sent(outcome.error, attempts=3)
    assert 0.6 <= outcome.elapsed < LONG


async def test_deadline_while_connecting(connect):
    """The deadline holds for connecting, too: nothing was sent, and the error says so."""
    with black_hole() as port:
        outcome = await generate(connect(Place(f"http://127.0.0.1:{port}"), timeout=SHORT))

    assert isinstance(outcome.error, APITimeoutError)
    assert_never_sent(outcome.error, attempts=1)
    assert SHORT <= outcome.elapsed < LONG


async def test_deadline_while_waiting_for_a_connection(serve, connect):
    """A call that waited in vain for one of max_connections was never sent."""
    server = serve(reads_and_stalls)
    client = connect(server, max_connections=1)
    first = asyncio.create_task(generate(client, timeout=1))
    await eventually(lambda: server.posts)

    outcome = await generate(client, timeout=SHORT)

    assert isinstance(outcome.error, APITimeoutError)
    assert_never_sent(outcome.error, attempts=1)
    assert_unknown((await first).error)
    assert 1 == server.posts


async def test_unknown_name(connect, monkeypatch):
    """A name without an address is looked up again; nothing was sent."""

    def unknown(*_args, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    client = connect(Place("https://api.invalid"))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    outcome = await generate(client)

    assert APIConnectionError is type(outcome.error)
    assert_never_sent(outcome.error, attempts=3)


async def test_name_server_that_hangs(connect, monkeypatch):
    """A look-up that hangs ends by connect_timeout, and holds up neither the call nor closing."""
    over = threading.Event()
    client = connect(Place("https://api.invalid"), connect_timeout=0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: over.wait(10) and [])
    started = time.monotonic()
    try:
        outcome = await generate(client, max_retries=1)
        await client.aclose()
        assert time.monotonic() - started < LONG
    finally:
        over.set()

    assert isinstance(outcome.error, APITimeoutError)
    assert "connect" == outcome.error.phase
    assert_never_sent(outcome.error, attempts=2)


# ------------------------------------------------------------------------------------------------------------------ TLS


@pytest.fixture(scope="module")
def authority():
    """An authority that nobody trusts but who is told to."""
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority):
    """The server's side of TLS for 127.0.0.1."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority):
    """The client's side of TLS, trusting the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("call", [generate, stream])
async def test_untrusted_certificate(serve, connect, tls, call):
    """A certificate that is not trusted is a matter of configuration: not sent, and not tried again."""
    server = serve(serves(WHOLE), tls=tls)

    outcome = await call(connect(server))

    assert APIConnectionError is type(outcome.error)
    assert not outcome.error.retryable
    assert_never_sent(outcome.error, attempts=1)
    assert 0 == server.posts


async def test_certificate_of_another_host(serve, connect, authority, trusting):
    """So is one for another name."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    server = serve(serves(WHOLE), tls=context)

    outcome = await generate(connect(server, ssl_context=trusting))

    assert_never_sent(outcome.error, attempts=1)
    assert 0 == server.posts


async def test_trusted_certificate(serve, connect, tls, trusting):
    """With a context of one's own, one's own authority is trusted."""
    server = serve(serves(WHOLE), tls=tls)

    assert "Hello" == (await connect(server, ssl_context=trusting).generate("gpt-5", "Hi")).content


async def hello_and_http(connection):
    """Answer whatever comes in plain HTTP."""
    await connection.reader.read(10)
    await connection.send(answer({"error": "bad_request"}, status="400 Bad Request"))
    connection.finish()


async def hello_and_silence(connection):
    """Take the first bytes of a handshake and say nothing."""
    await connection.reader.read(10)


async def hello_and_close(connection):
    """Take the first bytes of a handshake and close."""
    await connection.reader.read(10)
    connection.finish()


@pytest.mark.parametrize("script", [hello_and_http, hello_and_silence, hello_and_close])
async def test_no_handshake(serve, connect, script):
    """Where nobody speaks TLS nothing is sent; connect_timeout holds for the handshake."""
    server = serve(script, scheme="https")

    outcome = await generate(connect(server, connect_timeout=0.2))

    assert isinstance(outcome.error, APIConnectionError)
    assert "no" == outcome.error.billed
    assert not outcome.error.request_sent
    assert outcome.elapsed < LONG
    assert await server.all_left()


@pytest.mark.parametrize("then", ["fin", "reset"])
async def test_tls_cut(serve, connect, tls, trusting, then):
    """A stream whose TLS is cut off without a goodbye is not complete."""

    async def script(connection):
        await connection.request()
        await connection.send(START)
        await asyncio.sleep(0.05)
        if then == "fin":  # of TCP, below TLS
            connection.writer.get_extra_info("socket")._sock.shutdown(socket.SHUT_WR)
        else:
            connection.reset()

    server = serve(script, tls=tls)

    outcome = await stream(connect(server, ssl_context=trusting))

    assert isinstance(outcome.error, StreamInterruptedError)
    assert ["Hello ", "world"] == outcome.texts
    assert 1 == server.posts


# -------------------------------------------------------------------------------------------------------------- proxies


def as_proxy(*pieces, then="fin"):
    """Return a script that answers CONNECT with *pieces*."""

    async def script(connection):
        await connection.head()
        connection.note("CONNECT")
        await connection.send(*pieces)
        if then == "fin":
            connection.finish()

    return script


PROXIES = {
    "407": (as_proxy(b"HTTP/1.1 407 Auth\r\nContent-Length: 0\r\n\r\n"), 1),
    "403": (as_proxy(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"), 1),
    "502": (as_proxy(b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n"), 3),
    "200, closed": (as_proxy(b"HTTP/1.1 200 OK\r\n\r\n"), None),
    "200, no tunnel": (as_proxy(b"HTTP/1.1 200 OK\r\n\r\n", answer(b"hello"), then="stall"), None),
    "200, silence": (as_proxy(b"HTTP/1.1 200 OK\r\n\r\n", then="stall"), 3),
    "closed": (as_proxy(), 3),
    "half a head": (as_proxy(b"HTTP/1.1 200 O"), 3),
    "garbage": (as_proxy(b"garbage\r\n\r\n", then="stall"), None),
    "silence": (as_proxy(then="stall"), 3),
}


@pytest.mark.parametrize("script, attempts", PROXIES.values(), ids=PROXIES)
@pytest.mark.parametrize("call", [generate, stream])
async def test_proxy(serve, connect, call, script, attempts):
    """A proxy that makes no tunnel has forwarded nothing; connect_timeout holds for it, and its password stays."""
    server = serve(script)
    proxy = f"http://user:canary@127.0.0.1:{server.port}"
    client = connect(
        Place("https://api.example/api/v2"), proxy=proxy, connect_timeout=0.2, timeout=3, first_event_timeout=3
    )

    outcome = await call(client)

    assert isinstance(outcome.error, APIConnectionError)
    assert_never_sent(outcome.error, attempts=attempts or outcome.error.attempts)
    assert outcome.elapsed < LONG
    assert "canary" not in repr(vars(outcome.error)) + str(outcome.error)
    assert await server.all_left()


async def test_proxy_refused(connect):
    """A proxy that is not there is tried again."""
    with closed_port() as port:
        client = connect(Place("https://api.example/api/v2"), proxy=f"http://127.0.0.1:{port}")
        outcome = await generate(client)

    assert_never_sent(outcome.error, attempts=3)


async def test_proxy_of_plain_http(serve, connect):
    """A plain request goes through a proxy with the proxy's password, too."""
    server = serve(serves(WHOLE))
    client = connect(Place("http://localhost:9/api/v2"), proxy=f"http://user:pw@127.0.0.1:{server.port}")

    assert "Hello" == (await client.generate("gpt-5", "Hi")).content
    assert ["http://localhost:9/api/v2/generate"] == [request.path for request in server.requests]
    assert "Basic dXNlcjpwdw==" == server.requests[0].headers["proxy-authorization"]


# -------------------------------------------------------------------------------------------------------------- uploads

LARGE = "x" * (8 * MIB)


async def test_refusal_of_a_large_upload(serve, connect):
    """A refusal that comes before the body was read is that refusal."""

    async def script(connection):
        await connection.head()
        await connection.send(answer({"error": "too_large"}, "Connection: close", status="413 Too Large"))
        await connection.until_left()

    server = serve(script)
    with pytest.raises(APIStatusError) as caught:
        await connect(server).generate("gpt-5", LARGE)

    assert 413 == caught.value.status
    assert await server.all_left()
    assert 1 == len(server.connections)


async def test_reset_of_a_large_upload(serve, connect):
    """An upload that is reset has an unknown outcome, and no writer is left."""

    async def script(connection):
        await connection.head()
        await connection.reader.read(65536)
        connection.reset()

    server = serve(script)
    with pytest.raises(APIConnectionError) as caught:
        await connect(server).generate("gpt-5", LARGE)

    assert_unknown(caught.value)
    assert 1 == len(server.connections)


async def test_upload_that_is_stuck(serve, connect):
    """The deadline ends an upload that nobody reads."""

    async def script(connection):
        connection.writer.transport.pause_reading()
        await asyncio.sleep(20)
        connection.reset()

    server = serve(script)
    started = time.monotonic()
    with pytest.raises(APITimeoutError) as caught:
        await connect(server, timeout=0.8).generate("gpt-5", "x" * (16 * MIB))

    assert_unknown(caught.value)
    assert time.monotonic() - started < 10
    assert 1 == len(server.connections)


# -------------------------------------------------------------------------------------------------------------- waiting


async def test_waiting_lives_through_a_poll_that_hangs(serve, connect, monkeypatch):
    """One question that is never answered does not use up the time for waiting."""
    monkeypatch.setattr("neuralbox_async._calls._QUESTION_TIME", SHORT)
    server = serve(reads_and_stalls, serves(WHOLE))

    done = await connect(server).wait("gen_1", timeout=5, poll_interval=0.01)

    assert done.completed
    assert 2 == len(server.requests)


async def test_generation_that_is_lost_while_waiting(serve, connect, monkeypatch):
    """When waiting fails, the generation was posted all the same: the error has its id, and does not call it free."""
    monkeypatch.setattr("random.uniform", lambda _low, _high: 0.0)  # no pause before the first question
    pending = answer({"id": "gen_1", "status": "pending"})
    server = serve(serves(pending, answer({"error": "not_authenticated"}, status="401 No")))

    with pytest.raises(APIStatusError) as caught:
        await connect(server).generate("gpt-5", "Hi", wait=True)

    assert 1 == server.posts
    assert "gen_1" == caught.value.generation_id
    assert "unknown" == caught.value.billed
