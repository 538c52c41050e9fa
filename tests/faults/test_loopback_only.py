"""With NEURALBOX_LOOPBACK_ONLY in the environment, no connection leaves this machine."""

from __future__ import annotations

import functools
import re
from unittest.mock import Mock

import aiohttp
import pytest
from aioresponses import aioresponses
from fault_server import respond_to_each
from outcomes import COMPLETE, URLOnly, assert_never_sent, generate, stream

from neuralbox_async import APIConnectionError, InvalidParameterError, NeuralBoxError
from neuralbox_async.testing import FakeTransport
from neuralbox_sync import NeuralBox

RULE = "on this machine while NEURALBOX_LOOPBACK_ONLY is set (by the pytest plugin, so that tests cost nothing)"


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch):
    """Set the variable, in an environment without a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NEURALBOX_LOOPBACK_ONLY", "1")


@pytest.fixture
def server(serve):
    return serve(respond_to_each(COMPLETE))


def elsewhere(server):
    """Return a URL that is not loopback, but would reach *server*."""
    return URLOnly(f"http://0.0.0.0:{server.port}/api/v2")


@pytest.mark.parametrize("call", [generate, stream])
async def test_another_machine(server, connect, call):
    """A call to another machine is an error that names the URL, before there is a connection."""
    outcome = await call(connect(elsewhere(server), allow_insecure=True))

    assert InvalidParameterError is type(outcome.error)
    assert f"base_url must be {RULE}, not 'http://0.0.0.0:{server.port}'" == outcome.error.message
    assert_never_sent(outcome.error, attempts=1)
    assert [] == server.connections


@pytest.mark.parametrize("count", [1, 20])
async def test_a_batch(server, connect, count):
    """A batch to another machine is one error of the reader, not one of each row, and nothing is sent."""
    client = connect(elsewhere(server), allow_insecure=True)
    read = []
    async with client.generate_many(map(str, range(count)), model="gpt-5") as results:
        with pytest.raises(InvalidParameterError, match=f"base_url must be {re.escape(RULE)}") as caught:
            read += [result async for result in results]

    assert ([], []) == (read, server.connections)
    assert (caught.value, 0) == (results.report.stopped_by, results.report.failed)


def test_the_blocking_client(server):
    """The blocking client raises the same error."""
    with NeuralBox("key", base_url=elsewhere(server).url, allow_insecure=True) as client:
        with pytest.raises(InvalidParameterError, match="base_url must be on this machine"):
            client.generate("gpt-5", "Hi")
        with client.generate_many(["a", "b"], model="gpt-5") as results:
            with pytest.raises(InvalidParameterError, match="base_url must be on this machine"):
                list(results)
    assert [] == server.connections


async def test_a_client_that_was_created_before(server, connect, monkeypatch):
    """It holds for a client that was created before the variable was set, if that has no connections yet."""
    monkeypatch.delenv("NEURALBOX_LOOPBACK_ONLY")
    client = connect(elsewhere(server), allow_insecure=True)
    monkeypatch.setenv("NEURALBOX_LOOPBACK_ONLY", "1")

    assert isinstance((await generate(client)).error, InvalidParameterError)
    assert [] == server.connections


@pytest.mark.parametrize("url", ["https://api.example/v2", "http://api.example/v2"])
async def test_a_proxy_on_this_machine(server, connect, url):
    """A proxy on this machine would pass the call on to another, so it gets none."""
    proxy = f"http://127.0.0.1:{server.port}"
    outcome = await generate(connect(URLOnly(url), proxy=proxy, allow_insecure=True))

    assert "base_url" == outcome.error.parameter
    assert [] == server.connections


async def test_a_proxy_on_another_machine(server, connect):
    """A call to this machine that a proxy elsewhere would carry is an error, which does not show the proxy."""
    proxy = f"http://user:canary@0.0.0.0:{server.port}"
    outcome = await generate(connect(URLOnly("https://localhost:9/v2"), proxy=proxy))

    assert f"proxy must be {RULE}" == outcome.error.message
    assert [] == server.connections


async def test_a_name_of_this_machine_that_resolves_elsewhere(server, connect, monkeypatch):
    """A name that should be this machine's gets no other address, with https as well."""
    address = (2, 1, 6, "", ("0.0.0.0", server.port))
    monkeypatch.setattr("neuralbox_async._http.resolver._getaddrinfo", lambda *_: [address])
    outcome = await generate(connect(URLOnly(f"https://localhost:{server.port}/v2")))

    assert "localhost is not this machine, and NEURALBOX_LOOPBACK_ONLY is set" in outcome.error.message
    assert [] == server.connections


async def test_a_batch_of_which_no_request_can_be_sent(connect, monkeypatch):
    """What prevents each connection, and no retry would change, is one error of the reader, not one of each row."""
    monkeypatch.setattr("neuralbox_async._http.resolver._getaddrinfo", lambda *_: [(2, 1, 6, "", ("0.0.0.0", 9))])
    read = []
    client = connect(URLOnly("https://localhost:9/v2"))
    async with client.generate_many(map(str, range(20)), model="gpt-5") as results:
        with pytest.raises(APIConnectionError, match="is not this machine, and NEURALBOX_LOOPBACK_ONLY") as caught:
            read += [result async for result in results]

    assert (caught.value, 0, []) == (results.report.stopped_by, results.report.failed, read)


async def test_this_machine(server, connect):
    """Calls to this machine work, through a proxy on it as well."""
    assert "Hello" == (await connect(server).generate("gpt-5", "Hi")).content
    client = connect(URLOnly("http://localhost:9/v2"), proxy=f"http://127.0.0.1:{server.port}")
    assert "Hello" == (await client.generate("gpt-5", "Hi")).content


async def test_what_opens_no_connection(connect):
    """A fake transport and mocks of aiohttp work, whatever the URL: they open no connection."""
    reply = {"id": "gen_1", "status": "completed", "content": "Hi"}
    remote = URLOnly("https://neuralbox.top/api/v2")

    assert "Hi" == (await connect(remote, transport=FakeTransport(reply)).generate("gpt-5", "Hi")).content
    with aioresponses() as mocked:
        response_class = functools.partial(aiohttp.ClientResponse, stream_writer=Mock())
        mocked.post(f"{remote.url}/generate", payload=reply, response_class=response_class)
        assert "Hi" == (await connect(remote).generate("gpt-5", "Hi")).content


@pytest.mark.parametrize("value", ["", None])
async def test_without_it(server, connect, monkeypatch, value):
    """Without a value of the variable, calls may leave this machine."""
    monkeypatch.delenv("NEURALBOX_LOOPBACK_ONLY")
    if value is not None:
        monkeypatch.setenv("NEURALBOX_LOOPBACK_ONLY", value)
    try:
        await connect(elsewhere(server), allow_insecure=True).generate("gpt-5", "Hi")
    except NeuralBoxError as error:  # where 0.0.0.0 is no address to connect to
        assert not isinstance(error, InvalidParameterError)
