"""Clients that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import pytest
from gateways import HI, running

from neuralbox_async.gateway._server import Server, _Connection
from neuralbox_async.testing import NeuralBoxServer

WORD = "word " * 20_000


@contextlib.asynccontextmanager
async def deaf_client(site, **members):
    """Send a request for a completion on a connection from which nothing is read."""
    port = int(site.gateway.base_url.split(":")[2].removesuffix("/v1"))
    body = json.dumps({"model": "gpt-5", "messages": HI, **members}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, ("127.0.0.1", port))
        await loop.sock_sendall(connection, f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        yield connection


async def test_stream_frees_its_slot(log):
    """A client that does not read its stream is disconnected; the stream of the API is closed, and its slot is free."""
    with NeuralBoxServer(reply=lambda request: iter(lambda: WORD, None) if request.get("stream") else "Hi") as server:
        async with running(server, max_concurrency=1, write_timeout=0.3) as site, deaf_client(site, stream=True):
            await server.wait_for_disconnect_async()
            reply = await site.send()

    assert 200 == reply.status
    assert any("it has read nothing for 0.3 s" in line for line in log())
    assert any("disconnected gpt-5" in line for line in log())


async def test_whole_text_is_kept(log, monkeypatch):
    """A whole text that the client does not read is kept for its repetition, and not paid for again."""
    with NeuralBoxServer(reply=WORD * 100) as server:
        async with running(server, write_timeout=0.3) as site:
            async with deaf_client(site):
                await server.wait_until_async(lambda: any("read nothing" in line for line in log()))
            # The next client reads, but a busy machine may stop for longer than the timeout.
            monkeypatch.setattr(_Connection, "_watch", lambda _: None)
            body = json.dumps({"model": "gpt-5", "messages": HI}).encode()
            reply = await site.send(body=body, headers={"x-stainless-retry-count": "1"})

    assert WORD * 100 == reply.json["choices"][0]["message"]["content"]
    assert 1 == len(server.billed)


async def test_gateway_stops_meanwhile():
    """A client that does not read does not delay the end of the gateway."""
    with NeuralBoxServer(reply=lambda _: iter(lambda: WORD, None)) as server:
        async with running(server, shutdown_timeout=0.1) as site, deaf_client(site, stream=True):
            await server.wait_until_async(lambda: server.in_flight == 1)
            site.gateway.stop()
            await asyncio.wait_for(site.task, 60)
            await server.wait_for_disconnect_async()


class Transport(asyncio.Transport):
    """A transport whose client takes bytes when the test says so."""

    def __init__(self):
        super().__init__()
        self.unsent, self.aborted = 100_000, False

    def get_write_buffer_size(self):
        return self.unsent

    def close(self):
        pass

    def abort(self):
        self.aborted = True


@pytest.fixture
async def connection():
    """A connection without a request."""
    connection = Server(lambda _: None, write_timeout=3600.0)()
    connection.connection_made(Transport())
    yield connection
    connection.connection_lost(None)


async def test_slow_client_is_kept(connection):
    """A client that reads a little in each period is not disconnected; one that then stops is."""
    transport = connection.transport
    connection.pause_writing()
    for _ in range(3):
        transport.unsent -= 1
        connection._check(transport)
    assert not transport.aborted
    connection._check(transport)
    assert transport.aborted


async def test_room_ends_the_watch(connection):
    """Once the buffer has room, nothing is watched until it is full again."""
    for _ in range(2):
        connection.pause_writing()
        assert connection._stall_timer is not None
        connection.resume_writing()
        assert connection._stall_timer is None
