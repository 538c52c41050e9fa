"""Clients that ask before they send a body: ``Expect: 100-continue``."""

from __future__ import annotations

import asyncio
import json

import pytest
from gateways import HI, TOKEN, running

BODY = json.dumps({"model": "gpt-5", "messages": HI}).encode()
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
PATH = "/v1/chat/completions"


async def connect(site, *, path=PATH, version="1.1", **changes):
    """Send the head of a request with a body of which nothing is sent yet; return the connection."""
    port = int(site.gateway.base_url.split(":")[2].removesuffix("/v1"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    headers = {
        "Host": "localhost",
        "Content_Type": "application/json",
        "Content_Length": len(BODY),
        "Expect": "100-continue",
        "Authorization": f"Bearer {TOKEN}",
        **changes,
    }
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    writer.write(f"POST {path} HTTP/{version}\r\n{''.join(lines)}\r\n".encode())
    return reader, writer


async def test_body_is_wanted(server):
    """The body is asked for once, and then the response follows; the connection stays open for the next request."""
    async with running(server, token=TOKEN) as site:
        reader, writer = await connect(site)
        interim = await asyncio.wait_for(reader.readexactly(len(INTERIM)), 60)
        assert () == server.requests
        writer.write(BODY)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        writer.close()

    assert INTERIM == interim
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" not in head
    assert 1 == len(server.billed)


@pytest.mark.parametrize(
    "status, changes",
    [
        (401, {"Authorization": "Bearer wrong"}),
        (403, {"Origin": "https://foreign.example"}),
        (404, {"path": "/v1/completions"}),
        (413, {"Content_Length": 10**12}),
        (415, {"Content_Type": "text/plain"}),
        (417, {"Expect": "a miracle"}),
        (421, {"Host": "foreign.example"}),
    ],
    ids=str,
)
async def test_body_is_not_wanted(server, status, changes):
    """A request that is refused by its head is refused before its body is sent, and the connection is closed."""
    async with running(server, token=TOKEN) as site:
        reader, writer = await connect(site, **changes)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        rest = await asyncio.wait_for(reader.read(), 60)
        writer.close()

    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Connection: close" in head
    assert json.loads(rest)["error"]["message"]
    assert () == server.requests


async def test_no_place_for_the_call(server):
    """When no more calls may wait, the body is not asked for."""
    server.stall(1)
    async with running(server, max_concurrency=1, max_waiting=0) as site:
        first = asyncio.create_task(site.send(stream=True))
        await server.wait_until_async(lambda: server.in_flight == 1)
        reader, writer = await connect(site)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        writer.close()
        first.cancel()

    assert head.startswith(b"HTTP/1.1 429 ")
    assert b"Retry-After: 1\r\n" in head


@pytest.mark.parametrize("changes", [{"version": "1.0"}, {"Expect": "100-Continue"}], ids=str)
async def test_body_that_is_sent_at_once(server, changes):
    """A client that does not wait gets its response, in any case."""
    async with running(server, token=TOKEN) as site:
        reader, writer = await connect(site, Connection="close", **changes)
        writer.write(BODY)
        response = await asyncio.wait_for(reader.read(), 60)
        writer.close()

    assert response.removeprefix(INTERIM).split()[1] == b"200"
    assert 1 == len(server.billed)
