"""Plain http is for this machine only: by the address that a connection is made to, not by its name."""

from __future__ import annotations

import socket

import pytest
from fault_server import FaultServer, respond_to_each
from secret_checks import CANARY, COMPLETE, assert_no_secret, failure_of, new_client

from neuralbox_async import APIConnectionError, AsyncNeuralBox, InvalidParameterError

REFUSED_URLS = [
    "http://example.com",
    "HTTP://example.com",
    "hTTp://example.com/v2",
    "http://example.com.",
    "http://localhost.example.com",
    "http://127.0.0.1.example.com",
    "http://notlocalhost",
    "http://xlocalhost.",
    "http://localhost..",
    "http://0.0.0.0",
    "http://[::]",
    "http://10.0.0.1",
    "http://[fd00::1]",
    "http://[::ffff:10.0.0.1]",
    "http://127.0.0.1%2eexample.com",
    "http://127.0.0.1%00.example.com",
    "http://127.0.0.1\\@example.com",
    "http://example.com\\.localhost@example.com",
    "http://\uff11\uff12\uff17.0.0.1.example.com",
    # Other notations of 127.0.0.1 and of other addresses: libraries differ about them.
    "http://127.1",
    "http://2130706433",
    "http://0x7f000001",
    "http://0177.0.0.1",
    "http://127.0.0.1.",
    "http://user@localhost",
]


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_refused(url):
    """Plain http to another machine, in any notation, is refused when the client is made, or its URL is."""
    with pytest.raises(InvalidParameterError) as caught:
        AsyncNeuralBox("k", base_url=url)
    assert "base_url" == caught.value.parameter


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "HTTP://LocalHost:8000/v2",
        "http://localhost.",
        "http://api.localhost",
        "http://127.8.9.1",
        "http://[::1]:5",
        "http://[::ffff:127.0.0.1]",
    ],
)
def test_accepted(url):
    """Plain http to this machine is accepted, with the scheme in lower case."""
    assert url.replace("HTTP:", "http:") == AsyncNeuralBox("k", base_url=url)._executor.base_url


PROXIED = [
    ("HTTP://localhost:5", "http://proxy.example", "proxy"),
    ("http://localhost:5", "HTTP://proxy.example", "proxy"),
    ("http://127.0.0.1", "https://proxy.example", "proxy"),
    ("http://127.0.0.1", "http://localhost.proxy.example", "proxy"),
    ("http://127.0.0.1", "http://0.0.0.0:1", "proxy"),
    ("http://127.0.0.1", "http://127.1:1", "proxy"),
    ("http://api.localhost", "http://localhost:1", "base_url"),
    ("HTTP://api.localhost.", "HTTP://127.0.0.1:1", "base_url"),
]


@pytest.mark.parametrize("url, proxy, parameter", PROXIED)
def test_refused_with_a_proxy(url, proxy, parameter):
    """Over plain http, the proxy is on this machine, and no name is left to it but localhost."""
    with pytest.raises(InvalidParameterError) as caught:
        AsyncNeuralBox("k", base_url=url, proxy=proxy)
    assert parameter == caught.value.parameter


@pytest.mark.parametrize("url", ["http://localhost:5", "HTTP://localhost.", "http://[::1]", "HTTPS://example.com"])
@pytest.mark.parametrize("proxy", ["http://user:pw@127.0.0.1:1", "HTTP://localhost:1", "http://[::1]:1"])
def test_accepted_with_a_proxy(url, proxy):
    """A proxy on this machine may be used for this machine, and for https."""
    AsyncNeuralBox("k", base_url=url, proxy=proxy)


@pytest.fixture
def server():
    with FaultServer(respond_to_each(COMPLETE)) as server:
        yield server


@pytest.fixture
def resolve_to(monkeypatch, server):
    """Let each name resolve to some addresses."""

    def resolve(*addresses):
        def resolved(_host, port, _family):
            found = [socket.getaddrinfo(address, port, type=socket.SOCK_STREAM) for address in addresses]
            return [each for group in found for each in group]

        monkeypatch.setattr("neuralbox_async._http.resolver._getaddrinfo", resolved)

    return resolve


@pytest.mark.parametrize("host", ["localhost", "localhost.", "api.localhost", "API.LocalHost"])
async def test_a_name_of_another_machine(server, resolve_to, host):
    """A name that should be this machine's and is not gets no connection, and the error says why."""
    resolve_to("0.0.0.0")  # reaches this server as well, and is no loopback address

    error = await failure_of(new_client(f"http://{host}:{server.port}"))

    assert not server.connections
    assert APIConnectionError is type(error)
    assert (1, False, False, "no") == (error.attempts, error.retryable, error.request_sent, error.billed)
    assert f"{host.lower()} is not this machine" in error.message
    assert "allow_insecure=True" in error.message
    assert_no_secret(error)


async def test_a_proxy_on_another_machine(server, resolve_to):
    """A proxy whose name should be this machine's and is not gets no connection."""
    resolve_to("0.0.0.0")

    error = await failure_of(new_client("http://localhost:9", proxy=f"http://localhost:{server.port}"))

    assert not server.connections
    assert "is not this machine" in error.message


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("0.0.0.0", "127.0.0.1")])
async def test_a_name_of_this_machine(server, resolve_to, addresses):
    """A name of this machine is connected to by its loopback addresses only."""
    resolve_to(*addresses)
    async with new_client(f"HTTP://api.localhost:{server.port}") as client:
        assert "Hello" == (await client.generate("gpt-5", "Hi")).content
    assert f"Bearer {CANARY}" == server.requests[0].headers["authorization"]


async def test_allow_insecure(server, resolve_to):
    """With *allow_insecure*, a name may be any machine's."""
    resolve_to("0.0.0.0")
    async with new_client(f"http://api.example:{server.port}", allow_insecure=True) as client:
        assert "Hello" == (await client.generate("gpt-5", "Hi")).content


async def test_localhost(server):
    """The name localhost, as this system resolves it, is this machine."""
    async with new_client(f"http://localhost:{server.port}") as client:
        assert "Hello" == (await client.generate("gpt-5", "Hi")).content
