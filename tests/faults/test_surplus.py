"""Paid responses with unusual heads and with surplus bytes: they are read, or the error has the bytes."""

import pytest
from fault_server import STREAM_HEAD, event, events, generation, respond_once, response
from outcomes import BODY, COMPLETE, HEAD, assert_unknown, generate, stream

CHUNKED_STREAM = STREAM_HEAD.replace(b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n")
KIB = 1024


def chunk(data):
    """Return *data* as one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


async def text_of_stream(client):
    """Return the text of a whole stream."""
    async with client.stream("gpt-5", "Hi", recover=False) as opened:
        return (await opened.get_final_generation()).content


async def text_of_generation(client):
    """Return the text of a generation."""
    return (await client.generate("gpt-5", "Hi")).content


@pytest.mark.parametrize("call", [text_of_generation, text_of_stream])
@pytest.mark.parametrize(
    "lines",
    [
        [b"X-Large: " + b"x" * 60 * KIB],
        [b"X-%d: %s" % (number, b"x" * 8 * KIB) for number in range(20)],
        [b"X-%d: 1" % number for number in range(200)],
        [b"X-%d: 1" % number for number in range(900)],
    ],
    ids=["a header of 60 KiB", "160 KiB of headers", "200 headers", "900 headers"],
)
async def test_large_heads(serve, connect, call, lines):
    """A response with large headers, or with many, is read."""
    usual = COMPLETE if call is text_of_generation else STREAM_HEAD + events("Hello")
    status_line, _, rest = usual.partition(b"\r\n")
    server = serve(respond_once(b"\r\n".join([status_line, *lines, rest])))

    assert "Hello" == await call(connect(server))


async def test_a_long_reason(serve, connect):
    """A response with a long reason phrase is read."""
    server = serve(respond_once(response(generation(), status="200 " + "x" * 50 * KIB)))

    assert "Hello" == await text_of_generation(connect(server))


SURPLUS = [
    b"\n",
    b"\0",
    b"x",
    b"}",
    b"garbage\r\n\r\n",
    b"HTTP/1.1 ",
    COMPLETE,
    b"HTTP/1.1 408 Request Timeout\r\n\r\n",
]


@pytest.mark.parametrize("pieces", [1, 2, 3], ids=["together", "in two pieces", "in three pieces"])
@pytest.mark.parametrize("surplus", SURPLUS, ids=repr)
async def test_surplus_behind_a_body(serve, connect, surplus, pieces):
    """A complete response is returned whatever follows it, and its connection is not used again."""
    head, _, body = COMPLETE.partition(b"\r\n\r\n")
    parts = {
        1: [COMPLETE + surplus],
        2: [head + b"\r\n\r\n", body + surplus],
        3: [head + b"\r\n\r\n" + body[:5], body[5:-1], body[-1:] + surplus],
    }[pieces]
    server = serve(respond_once(*parts, then="stall", every=0.03))
    client = connect(server)

    for calls in (1, 2, 3):
        assert "Hello" == await text_of_generation(client)
        assert calls == server.posts == len(server.connections)
    await client.aclose()
    assert await server.all_closed()


@pytest.mark.parametrize("surplus", SURPLUS, ids=repr)
async def test_surplus_behind_a_stream(serve, connect, surplus):
    """A complete stream is returned whatever follows it in the same packet."""
    body = CHUNKED_STREAM + chunk(events("Hello")) + b"0\r\n\r\n"
    server = serve(respond_once(body + surplus, then="stall"))

    client = connect(server)

    assert "Hello" == await text_of_stream(client)
    assert 1 == server.posts
    await client.aclose()
    assert await server.all_closed()


async def test_text_before_a_malformed_chunk_in_the_same_packet(serve, connect):
    """The text of a stream before a malformed chunk is kept, also when it arrives together with the head."""
    start = events("Hello ", "world", end=False)
    server = serve(respond_once(CHUNKED_STREAM + chunk(start) + b"zz\r\n" + event(type="content_delta", delta="!")))

    outcome = await stream(connect(server))

    assert_unknown(outcome.error)
    assert "Hello world" == "".join(outcome.texts) == outcome.error.text


async def test_body_before_a_malformed_chunk_in_the_same_packet(serve, connect):
    """The bytes of a body before a malformed chunk are in the error, also when they arrive together with the head."""
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    server = serve(respond_once(chunked + chunk(BODY[:20]) + b"zz\r\n" + BODY[20:]))

    outcome = await generate(connect(server))

    assert_unknown(outcome.error)
    assert BODY[:20] == outcome.error.body


UNREADABLE = {
    "not HTTP": b"\x00\xff garbage\r\n\r\n" + BODY,
    "a body without a head": BODY,
    "a malformed header": HEAD + b"Content-Length: many\r\n\r\n" + BODY,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("call", [generate, stream])
@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("pieces", [1, 2], ids=["together", "in two pieces"])
@pytest.mark.parametrize("kept", [False, True], ids=["a new connection", "a kept connection"])
async def test_bytes_of_a_response_that_is_not_http(serve, connect, call, data, pieces, kept):
    """The error of a response that cannot be read has the bytes that arrived, and no others."""

    async def script(connection):
        if kept:
            await connection.request()
            await connection.send(COMPLETE)
        await connection.request()
        await connection.send(*([data] if pieces == 1 else [data[:9], data[9:]]), every=0.03)
        connection.finish()

    server = serve(script)
    client = connect(server)
    if kept:
        await client.generate("gpt-5", "Hi")

    outcome = await call(client)

    assert_unknown(outcome.error)
    assert outcome.error.body
    assert data.startswith(outcome.error.body)
    if pieces == 1:
        assert data == outcome.error.body
    assert 1 == len(server.connections)


async def test_the_bytes_in_an_error_are_bounded(serve, connect):
    """The error of a head without end has its first 64 KiB."""
    server = serve(respond_once(HEAD + b"X: 1\r\n" * 100_000, then="stall"))

    outcome = await generate(connect(server))

    assert_unknown(outcome.error)
    assert 64 * KIB == len(outcome.error.body)
