"""Who may use the gateway."""

from __future__ import annotations

import asyncio

import pytest
from gateways import TOKEN, running
from yarl import URL

from neuralbox_async import InvalidParameterError
from neuralbox_async.gateway import GatewaySettings

ORIGIN = "https://app.example"


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "0.0.0.0"},
        {"host": "192.0.2.1"},
        {"host": "::"},
        {"host": "example.com"},
        {"token": "short"},
        {"token": "x" * 20 + "\n"},
        {"token": "ключ" * 8},
        {"port": 65536},
        {"port": -1},
        {"max_concurrency": 0},
        {"budget": 0},
        {"budget": True},
        {"max_wait": -1},
        {"max_waiting": -1},
        {"write_timeout": 0},
        {"cors_origins": ["*"]},
        {"cors_origins": ["app.example"]},
        {"allowed_hosts": ["https://ai.example"]},
        {"host": ""},
    ],
    ids=str,
)
def test_invalid_settings(settings):
    """Settings that are not safe, or make no sense, are refused; the error does not show the token."""
    with pytest.raises(InvalidParameterError) as caught:
        GatewaySettings(**settings)

    (name,) = {"token"} if settings.get("host") and "port" not in settings else set(settings)
    assert name == caught.value.parameter
    assert "x" * 20 not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_loopback_needs_no_token(host):
    """A gateway on loopback needs no token."""
    assert GatewaySettings(host=host).token is None


def test_repr():
    """The representation of settings does not show the token."""
    assert TOKEN not in repr(GatewaySettings(token=TOKEN))


@pytest.mark.parametrize(
    "header, status",
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        ("Bearer", 401),
        ("Bearer \udcff", 401),
        (None, 401),
    ],
)
async def test_token(server, header, status):
    """Each endpoint but /healthz needs the token; a wrong one is OpenAI's error, and nothing is sent."""
    async with running(server, token=TOKEN) as site:
        headers = {} if header is None else {"Authorization": header}
        reply = await site.send(headers=headers)
        models = await site.send("GET", "/v1/models", headers=headers)
        health = await site.send("GET", "/healthz")

    assert (status, status, 200) == (reply.status, models.status, health.status)
    if status == 401:
        assert ("authentication_error", "invalid_api_key") == (reply.error["type"], reply.error["code"])
        assert () == server.requests
        assert TOKEN not in reply.body.decode()


async def test_key_of_the_gateway(server):
    """The API gets the key of the gateway, and never what the client sends."""
    async with running(server) as site:
        await site.send(headers={"Authorization": "Bearer sk-of-the-client", "X-Secret": "x"})
    (request,) = server.requests

    assert f"Bearer {server.api_key}" == request.headers["Authorization"]
    assert "sk-of-the-client" not in str(request.headers)
    assert "X-Secret" not in request.headers


@pytest.mark.parametrize(
    "host, status",
    [
        ("localhost", 200),
        ("LOCALHOST:99", 200),
        ("127.0.0.1:99", 200),
        ("[::1]:99", 200),
        ("192.0.2.7", 200),
        ("ai.example", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("user@localhost", 421),
        ("localhost/", 421),
        ("", 421),
    ],
)
async def test_host(server, host, status):
    """A request under a foreign name is refused: a website may have bound its own name to this machine."""
    async with running(server, allowed_hosts=["ai.example"]) as site:
        reply = await site.send(headers={"Host": host})
        health = await site.send("GET", "/healthz", headers={"Host": host})

    assert (status, status) == (reply.status, health.status)
    assert (status == 200) == bool(server.requests)


@pytest.mark.parametrize("version, hosts, status", [("1.0", 0, 200), ("1.1", 0, 400), ("1.0", 1, 200)])
async def test_number_of_hosts(site, version, hosts, status):
    """Only HTTP/1.0 has requests without a host, such as the health checks of HAProxy; browsers always send one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(site.gateway.base_url).port)
    headers = "Host: localhost\r\n" * hosts
    writer.write(f"GET /healthz HTTP/{version}\r\n{headers}\r\n".encode())
    line = await reader.readline()
    writer.close()

    assert status == int(line.split()[1])


@pytest.mark.parametrize("method, path", [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/healthz")])
@pytest.mark.parametrize("origin", [ORIGIN, "null", "http://localhost:8090"])
async def test_pages_that_were_not_named(site, method, path, origin):
    """A request of a website is refused, and its browser is not allowed to read anything."""
    reply = await site.send(method, path, headers={"Origin": origin})
    preflight = await site.send("OPTIONS", path, headers={"Origin": origin})

    assert (403, 403) == (reply.status, preflight.status)
    assert not [name for name in [*reply.headers, *preflight.headers] if name.startswith("Access-Control")]
    assert () == site.server.requests


@pytest.mark.parametrize("stream", [False, True])
async def test_page_that_was_named(server, stream):
    """A page whose origin was named may use the gateway, and read the headers of the cost, also of an error."""
    async with running(server, cors_origins=[ORIGIN], token=TOKEN) as site:
        asked = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
            "Access-Control-Request-Private-Network": "true",
        }
        preflight = await site.send("OPTIONS", headers=asked)
        reply = await site.send(headers={"Origin": ORIGIN, "Authorization": f"Bearer {TOKEN}"}, stream=stream)
        refused = await site.send(headers={"Origin": ORIGIN})
        other = await site.send(headers={"Origin": "https://other.example"})

    assert 204 == preflight.status
    assert "authorization,content-type,x-stainless-os" == preflight.headers["Access-Control-Allow-Headers"]
    assert "true" == preflight.headers["Access-Control-Allow-Private-Network"]
    for response in (preflight, reply, refused):
        assert ORIGIN == response.headers["Access-Control-Allow-Origin"]
        assert "x-neuralbox-tokens-used" in response.headers["Access-Control-Expose-Headers"]
        assert "Origin" == response.headers["Vary"]
    assert (200, 401, 403) == (reply.status, refused.status, other.status)


async def test_preflight_with_odd_names(server):
    """Names of headers that are no names are not repeated."""
    async with running(server, cors_origins=[ORIGIN]) as site:
        asked = {"Origin": ORIGIN, "Access-Control-Request-Headers": "a;b<script>"}
        preflight = await site.send("OPTIONS", headers=asked)

    assert "Access-Control-Allow-Headers" not in preflight.headers
