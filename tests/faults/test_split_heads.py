"""Heads of responses that arrive in pieces: the responses are read, and their connections used again."""

import asyncio

import aiohttp
import pytest
from fault_server import respond_to_each
from outcomes import BODY, COMPLETE

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(BODY), BODY)
)
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
RESPONSES = {
    "a length": COMPLETE,
    "chunks and a trailer": CHUNKED,
    "an interim response before it": INTERIM + COMPLETE,
    "two interim responses before it": b"HTTP/1.1 102 Processing\r\n\r\n" + INTERIM + COMPLETE,
    "an empty line before it": b"\r\n" + COMPLETE,
}
PAUSE = 0.001  # seconds between two pieces


@pytest.mark.parametrize("data", RESPONSES.values(), ids=RESPONSES)
async def test_a_response_in_two_pieces(serve, connect, data):
    """Wherever a response is divided, it is read, and its connection is used again."""
    places = range(1, len(data), 9)

    async def script(connection):
        for at in places:
            await connection.request()
            await connection.send(data[:at], data[at:], every=PAUSE)

    server = serve(script)
    client = connect(server)

    for _ in places:
        assert "Hello" == (await client.generate("gpt-5", "Hi")).content
    assert 1 == len(server.connections)


async def test_a_response_byte_by_byte(serve, connect):
    """A response is read whose bytes arrive one by one, and its connection is used again."""
    data = INTERIM + COMPLETE

    async def script(connection):
        for _ in range(2):
            await connection.request()
            await connection.send(*(data[at : at + 1] for at in range(len(data))), every=PAUSE)

    server = serve(script)
    client = connect(server)

    for _ in range(2):
        assert "Hello" == (await client.generate("gpt-5", "Hi")).content
    assert 1 == len(server.connections)


async def test_surplus_behind_a_head_in_two_pieces(serve, connect):
    """A stray byte behind a response costs nothing, wherever the interim response before it is divided."""
    places = range(1, len(INTERIM), 5)

    async def script(connection):
        await connection.request()
        at = places[connection.number]
        await connection.send(INTERIM[:at], INTERIM[at:] + COMPLETE + b"x", every=PAUSE)

    server = serve(script)
    client = connect(server)

    for calls, _ in enumerate(places, 1):
        assert "Hello" == (await client.generate("gpt-5", "Hi")).content
        assert calls == server.posts == len(server.connections)


async def test_a_response_that_arrives_before_the_request(serve, connect, monkeypatch):
    """Its connection is not used again: what follows it is not the response to the next request."""
    connect_once = aiohttp.TCPConnector.connect

    async def connect_slowly(self, *arguments, **options):
        connection = await connect_once(self, *arguments, **options)
        await asyncio.sleep(0.1)  # other tasks of the loop take that long
        return connection

    async def early(connection):
        await connection.send(COMPLETE + b"HTTP/1.1 200 OK\r\nX-Of: the first request\r\n")

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", connect_slowly)
    server = serve(early, respond_to_each(COMPLETE))
    client = connect(server, timeout=10)

    for connections in (1, 2):
        assert "Hello" == (await client.generate("gpt-5", "Hi")).content
        assert connections == len(server.connections)
