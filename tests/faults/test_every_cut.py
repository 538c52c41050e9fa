"""A connection cut at any byte: everything that arrived is delivered, and a part never counts as the whole."""

import asyncio
import json

import pytest
from fault_server import event, generation

from neuralbox_async import APIConnectionError, NeuralBoxError, ResponseError, StreamInterruptedError

DELTAS = ["Hé", "€\n"]
EVENTS = [
    event(type="generation_start", id="g"),
    b": ping\n\n",
    *(
        b"data: " + json.dumps({"type": "content_delta", "delta": d}, ensure_ascii=False).encode() + b"\n\n"
        for d in DELTAS
    ),
    event(type="generation_end"),
    b"data: [DONE]\n\n",
]
BODY = json.dumps(generation("Hé€"), ensure_ascii=False).encode()
CONCURRENCY = 8


def framed(framing, content_type, pieces):
    """Return a response with *pieces* as its body: (bytes, whether they are payload) for each part."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n"
    match framing:
        case "length":
            head += f"Content-Length: {sum(map(len, pieces))}\r\n\r\n"
        case "chunks":
            head += "Transfer-Encoding: chunked\r\n\r\n"
        case "close":
            head += "Connection: close\r\n\r\n"
    sent = [(head.encode(), False)]
    for piece in pieces:
        if framing == "chunks":
            sent += [(b"%x\r\n" % len(piece), False), (piece, True), (b"\r\n", False)]
        else:
            sent.append((piece, True))
    return [*sent, (b"0\r\n\r\n", False)] if framing == "chunks" else sent


def cut(sent, length):
    """Return the first *length* bytes of *sent* and their payload, None if the head is incomplete."""
    data = b"".join(piece for piece, _ in sent)[:length]
    payload, offset = b"", 0
    for piece, is_payload in sent:
        if is_payload:
            payload += piece[: max(0, length - offset)]
        offset += len(piece)
    return data, payload if length >= len(sent[0][0]) else None


def cutting(sent, then):
    """Return a script that sends as many bytes as the request's idempotency key says, and then closes or resets."""

    async def script(connection):
        request = await connection.request()
        data, _ = cut(sent, int(request.headers["idempotency-key"]))
        await connection.send(data)
        connection.finish() if then == "fin" else connection.reset()

    return script


async def each_cut(sent, check):
    """Call *check* with every length of *sent*, several concurrently."""
    lengths = iter(range(sum(len(piece) for piece, _ in sent) + 1))

    async def check_some():
        for length in lengths:
            await check(length, cut(sent, length)[1])

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(check_some())


@pytest.mark.parametrize("then", ["fin", "reset"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
async def test_every_cut_of_a_stream(serve, connect, framing, newline, then):
    """A stream cut at any byte yields the deltas that arrived whole, and its error has exactly their text."""
    sent = framed(framing, "text/event-stream", [piece.replace(b"\n", newline) for piece in EVENTS])
    server = serve(cutting(sent, then))
    client = connect(server)
    calls = 0

    async def check(length, payload):
        nonlocal calls
        calls += 1
        # A line ends at its CR, whether or not an LF follows.
        arrived = (payload or b"").replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n\n")
        expected = DELTAS[: max(0, arrived - 2)]
        texts, error = [], None
        try:
            async with client.stream("gpt-5", "Hi", recover=False, idempotency_key=str(length)) as stream:
                async for text in stream.text_stream:
                    texts.append(text)
            assert stream.generation.completed
        except NeuralBoxError as caught:
            error = caught

        assert expected == texts
        assert (error is None) == (arrived > 4)
        if error is not None:
            assert isinstance(error, APIConnectionError if payload is None else StreamInterruptedError)
            assert "".join(expected) == error.text
            assert "unknown" == error.billed
            assert ("g" if arrived else None) == error.generation_id

    await each_cut(sent, check)
    assert calls == server.posts
    assert await server.all_closed()


@pytest.mark.parametrize("then", ["fin", "reset"])
@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
async def test_every_cut_of_a_response(serve, connect, framing, then):
    """The error of a response cut at any byte has the bytes that arrived, and only the whole is a generation."""
    sent = framed(framing, "application/json", [BODY[:50], BODY[50:]])
    whole = sum(len(piece) for piece, _ in sent)
    server = serve(cutting(sent, then))
    client = connect(server)
    calls = 0

    async def check(length, payload):
        nonlocal calls
        calls += 1
        try:
            reply = await client.generate("gpt-5", "Hi", idempotency_key=str(length))
        except (APIConnectionError, ResponseError) as error:
            if payload is None:  # a reset may discard what the client has not read
                head, _ = cut(sent, length)
                assert error.body == head or (then == "reset" and error.body == b"")
            else:
                assert payload == error.body
            assert "unknown" == error.billed
        else:
            assert "Hé€" == reply.content
            assert BODY == payload
            assert length == whole

    await each_cut(sent, check)
    assert calls == server.posts
    assert await server.all_closed()
