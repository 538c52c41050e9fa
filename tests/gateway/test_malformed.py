"""Requests that are not HTTP: a fixed error, and nothing of their bytes in the response or in any log."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from gateways import TOKEN, running

PROMPT = "a-secret-prompt"
HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
JSON = "Content-Type: application/json\r\n"


@pytest.mark.parametrize("pause", [0.0, 0.05])
@pytest.mark.parametrize(
    "request_text",
    [
        f"{HEAD}{JSON}Transfer-Encoding: chunked\r\n\r\n{PROMPT}\r\n",
        f"{HEAD}{JSON}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n{PROMPT}\r\n",
        f"POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization : Bearer {TOKEN}\r\nX: {PROMPT}\r\n\r\n",
        f"{HEAD}X: {PROMPT}\0\r\n\r\n",
        f"{HEAD}X: {PROMPT * 1000}\r\n\r\n",
        f"{HEAD}Content-Length: {PROMPT}\r\n\r\n",
        f'{HEAD}{JSON}Content-Length: 2\r\n\r\n{{"{PROMPT} {TOKEN}": 1}}\r\n\r\n',
        f"{PROMPT} {TOKEN}\r\n\r\n",
        f"{PROMPT}\x16\x03\x01 / HTTP/1.1\r\n\r\n",
        f"{HEAD}{JSON}Content-Length: 2\r\n\r\n{{}}GET / HTTP/1.1\r\nAuthorization : {TOKEN} {PROMPT}\r\n\r\n",
    ],
    ids=[
        "chunk size", "later chunk size", "space before the colon", "NUL", "long header", "length", "short length",
        "no HTTP", "method", "second request",
    ],
)  # fmt: skip
async def test_malformed(server, caplog, capfd, monkeypatch, request_text, pause):
    """A malformed request gets OpenAI's error; neither the response nor a log has its bytes."""
    # aiohttp does not report damage that arrives later to the handler, which waits for the body.
    monkeypatch.setattr("neuralbox_async.gateway._exchange._BODY_TIMEOUT", 0.5)
    async with running(server, token=TOKEN) as site:
        with caplog.at_level(logging.DEBUG):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(site.gateway.base_url.split(":")[2][:-3]))
            head, end, rest = request_text.partition("\r\n\r\n")
            writer.write(f"{head}{end}".encode())
            await asyncio.sleep(pause)
            writer.write(rest.encode())
            responses = await asyncio.wait_for(reader.read(), 60)
            writer.close()
            await server.wait_until_async(lambda: not site.gateway._exchanges)

    *_, last = responses.split(b"HTTP/1.")
    head, _, body = last.partition(b"\r\n\r\n")
    assert head[2:5] in {b"400", b"408"}
    assert b"Content-Type: application/json" in head
    assert b"aiohttp" not in head  # nor which versions run here
    assert "invalid_request_error" == json.loads(body)["error"]["type"]
    shown = responses.decode() + caplog.text + "".join(capfd.readouterr())
    assert not [secret for secret in (PROMPT, TOKEN) if secret in shown]
    assert () == server.requests
    assert len(caplog.text.splitlines()) < 5
