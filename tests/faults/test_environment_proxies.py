"""The proxy of the environment carries the calls of clients that are created without one."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest
from fault_server import respond_to_each
from outcomes import COMPLETE, URLOnly, assert_never_sent, generate

from neuralbox_sync import NeuralBox

PASSWORD = "canary_of_the_proxy"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Return a function that sets variables of an environment without a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch.setenv


@pytest.fixture
def server(serve, authority):
    """The API at https://api.example, which only the proxy can reach."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.example").configure_cert(context)
    return serve(respond_to_each(COMPLETE), tls=context)


@pytest.fixture
def proxy(serve, server):
    """A proxy that opens tunnels, all to the server."""

    async def tunnel(connection):
        connection.requests.append(await connection.head())
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            await connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with asyncio.TaskGroup() as both:
                both.create_task(_forward(connection.reader, writer))
                both.create_task(_forward(reader, connection.writer))
        finally:  # the test may end first
            writer.transport.abort()
            await asyncio.sleep(0)

    return serve(tunnel)


async def _forward(reader, writer):
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


def url_of(proxy):
    return f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}"


API = URLOnly("https://api.example/api/v2")


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_a_tunnel(proxy, server, connect, trusting, environment, variable):
    """A call over TLS goes through a tunnel of the proxy, which gets its password and sees nothing of the call."""
    environment(variable, url_of(proxy))
    client = connect(API, ssl_context=trusting)

    assert "Hello" == (await client.generate("gpt-5", "Hi")).content
    (request,) = proxy.requests
    assert ("CONNECT", "api.example:443") == (request.method, request.path)
    assert "Basic dXNlcjpjYW5hcnlfb2ZfdGhlX3Byb3h5" == request.headers["proxy-authorization"]
    assert "authorization" not in request.headers
    assert ["/api/v2/generate"] == [request.path for request in server.requests]
    assert "proxy-authorization" not in server.requests[0].headers


def test_a_tunnel_of_the_blocking_client(proxy, server, trusting, environment):
    """The blocking client takes the same proxy."""
    environment("HTTPS_PROXY", url_of(proxy))
    with NeuralBox("key", base_url=API.url, ssl_context=trusting) as client:
        assert "Hello" == client.generate("gpt-5", "Hi").content
    assert ["CONNECT"] == [request.method for request in proxy.requests]
    assert 1 == server.posts


async def test_plain_http(serve, connect, environment):
    """A call over plain http is sent to the proxy, which the caller has allowed to read it."""
    proxy = serve(respond_to_each(COMPLETE))
    environment("HTTP_PROXY", url_of(proxy))
    client = connect(URLOnly("http://api.example/api/v2"), allow_insecure=True)

    assert "Hello" == (await client.generate("gpt-5", "Hi")).content
    assert ["http://api.example/api/v2/generate"] == [request.path for request in proxy.requests]
    assert "Basic dXNlcjpjYW5hcnlfb2ZfdGhlX3Byb3h5" == proxy.requests[0].headers["proxy-authorization"]


@pytest.mark.parametrize("reason", ["NO_PROXY", "trust_env"])
async def test_no_proxy(proxy, connect, trusting, environment, reason):
    """Without the proxy the client connects itself, which is impossible here."""
    environment("HTTPS_PROXY", url_of(proxy))
    if reason == "NO_PROXY":
        environment("NO_PROXY", "localhost, .example:443")
    options = {"trust_env": False} if reason == "trust_env" else {}

    outcome = await generate(connect(API, ssl_context=trusting, max_retries=0, **options))

    assert_never_sent(outcome.error, attempts=1)
    assert [] == proxy.connections


async def test_this_machine(serve, connect, environment):
    """A local server is reached without the proxy."""
    server = serve(respond_to_each(COMPLETE))
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        environment(variable, "http://127.0.0.1:9")

    assert "Hello" == (await connect(server).generate("gpt-5", "Hi")).content


async def test_an_error_of_the_proxy_has_no_password(serve, connect, trusting, environment):
    """A proxy that refuses the password echoes it, and the error does not have it."""

    async def refuse(connection):
        await connection.head()
        await connection.send(f"HTTP/1.1 407 not {PASSWORD}\r\nX: {PASSWORD}\r\nContent-Length: 0\r\n\r\n".encode())

    environment("HTTPS_PROXY", url_of(serve(refuse)))

    outcome = await generate(connect(API, ssl_context=trusting))

    assert_never_sent(outcome.error, attempts=1)
    assert PASSWORD not in f"{outcome.error} {vars(outcome.error)!r} {outcome.error.__cause__!r}"
