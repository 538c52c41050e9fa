"""`DirectSender` sends plain requests as aiohttp's session does, and leaves it those that others want to see."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import subprocess
import sys

import aiohttp
import pytest
from yarl import URL

from neuralbox_async import AsyncNeuralBox, NeuralBoxError
from neuralbox_async._http import direct_sender
from neuralbox_async._http.direct_sender import DirectSender, is_known_aiohttp
from neuralbox_async.testing import NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left", "fast_paths_on")

BODY = {"id": "gen_1", "status": "completed", "content": "mocked", "tokens_used": 1}


@pytest.fixture
def server():
    with NeuralBoxServer() as running:
        yield running


@pytest.fixture
async def client(server):
    async with AsyncNeuralBox(**server.client_options, max_retries=0) as client:
        yield client


@pytest.fixture
def sent(monkeypatch):
    """Return a list to which each request adds who sends it: ``"us"`` or ``"aiohttp"``."""
    senders = []
    ours, theirs = DirectSender.send, aiohttp.ClientRequest.update_host

    async def send(self, request):
        senders.append("us")
        return await ours(self, request)

    def update_host(self, url):  # a step of aiohttp's constructor
        senders.append("aiohttp")
        theirs(self, url)

    monkeypatch.setattr(DirectSender, "send", send)
    monkeypatch.setattr(aiohttp.ClientRequest, "update_host", update_host)
    return senders


async def test_calls_and_streams_go_directly(client, sent):
    """Calls and streams are sent directly, the request of a status is not."""
    reply = await client.generate("gpt-5", "Hi")
    async with client.stream("gpt-5", "Hi") as stream:
        assert "You said: Hi" == (await stream.get_final_generation()).content
    await client.retrieve(reply)

    assert ["us", "us", "aiohttp"] == sent


@pytest.mark.parametrize("name", ["_request", "request"])
async def test_a_wrapper_sees_each_request(client, sent, monkeypatch, name):
    """An instrumentation that wraps a method of the session sees each request."""
    original, seen = getattr(aiohttp.ClientSession, name), []

    @functools.wraps(original)
    def wrapper(self, method, url, **options):
        seen.append((method, options["headers"]["Authorization"]))
        return original(self, method, url, **options)

    await client.generate("gpt-5", "Hi")
    monkeypatch.setattr(aiohttp.ClientSession, name, wrapper)
    await client.generate("gpt-5", "Hi")

    assert [("POST", "***")] == seen
    assert ["us", "aiohttp"] == sent


@pytest.mark.parametrize("name", ["__init__", "send"])
async def test_a_wrapper_of_requests_sees_each(client, sent, monkeypatch, name):
    """A guard that wraps a method of aiohttp's requests sees each request."""
    original, seen = getattr(aiohttp.ClientRequest, name), []

    @functools.wraps(original)
    def wrapper(self, *arguments, **options):
        seen.append(type(self))
        return original(self, *arguments, **options)

    await client.generate("gpt-5", "Hi")
    monkeypatch.setattr(aiohttp.ClientRequest, name, wrapper)
    await client.generate("gpt-5", "Hi")

    assert [aiohttp.ClientRequest] == seen
    assert ["us", "aiohttp"] == sent


class Response(aiohttp.ClientResponse):
    pass


async def pass_on(request, handler):
    return await handler(request)


@pytest.mark.parametrize(
    "options",
    [
        {"trace_configs": None},  # made in the test: it needs a running loop
        {"middlewares": (pass_on,)},
        {"headers": {"X-Team": "search"}},
        {"skip_auto_headers": ["Accept"]},
        {"response_class": Response},
        {"request_class": type("Request", (aiohttp.ClientRequest,), {})},
        {"base_url": URL("http://127.0.0.1:9/")},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_sessions_that_others_change(server, sent, monkeypatch, options):
    """What an instrumentation adds to each session, in its constructor, is respected."""
    original = aiohttp.ClientSession.__init__
    if "trace_configs" in options:
        options = {"trace_configs": [aiohttp.TraceConfig()]}

    @functools.wraps(original)
    def init(self, *arguments, **given):
        original(self, *arguments, **{**given, **options})

    with monkeypatch.context() as patch:
        patch.setattr(aiohttp.ClientSession, "__init__", init)
        async with AsyncNeuralBox(**server.client_options) as client:
            await client.generate("gpt-5", "Hi")
            patch.undo()  # the session is still the one that was changed
            await client.generate("gpt-5", "Hi")

    assert ["aiohttp", "aiohttp"] == sent


async def test_a_proxy_that_others_set(server, sent, monkeypatch):
    """A proxy that somebody adds to each session is used."""
    original = aiohttp.ClientSession.__init__

    @functools.wraps(original)
    def init(self, *arguments, **options):
        original(self, *arguments, **options, proxy="http://127.0.0.1:9")

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", init)
    async with AsyncNeuralBox(**server.client_options, max_retries=0) as client:
        with pytest.raises(NeuralBoxError, match=r"127\.0\.0\.1:9"):
            await client.generate("gpt-5", "Hi")

    assert () == server.requests


async def test_another_class_of_sessions(server, sent, monkeypatch):
    """A class that replaces aiohttp's gets the requests."""
    seen = []
    with pytest.warns(DeprecationWarning, match="Inheritance"):

        class Session(aiohttp.ClientSession):
            async def _request(self, *arguments, **options):
                seen.append(arguments)
                return await super()._request(*arguments, **options)

    monkeypatch.setattr(aiohttp, "ClientSession", Session)
    async with AsyncNeuralBox(**server.client_options) as client:
        await client.generate("gpt-5", "Hi")

    assert [("POST", f"{server.base_url}/generate")] == seen
    assert ["aiohttp"] == sent


async def test_debug_mode(client, sent):
    """In asyncio's debug mode aiohttp sends: it notes where each request comes from."""
    await client.generate("gpt-5", "Hi")
    asyncio.get_running_loop().set_debug(True)
    await client.generate("gpt-5", "Hi")

    assert ["us", "aiohttp"] == sent


MOCKED = f"""
import asyncio, contextlib, sys
from types import SimpleNamespace
import aiohttp, aioresponses
from neuralbox_async import AsyncNeuralBox
from neuralbox_async.testing import NeuralBoxServer

class Response(aiohttp.ClientResponse):  # with the argument that aiohttp 3.14 requires
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{{"stream_writer": SimpleNamespace(output_size=0), **kwargs}})

aioresponses.core.ClientResponse = Response

async def main():
    with NeuralBoxServer() as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            for is_mocked in map(int, sys.argv[1]):
                with aioresponses.aioresponses() if is_mocked else contextlib.nullcontext() as mock:
                    if mock is not None:
                        mock.post(f"{{server.base_url}}/generate", payload={BODY!r})
                    print((await client.generate("gpt-5", "Hi")).content)
        print(len(server.billed))

asyncio.run(main())
"""


@pytest.mark.process
@pytest.mark.parametrize("mocked", ["1101", "0110"])
def test_a_mock_sees_each_request(mocked):
    """A mock gets the requests, also if it is there before the transport is loaded; others go to the server."""
    command = [sys.executable, "-c", MOCKED, mocked]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    contents = ["mocked" if digit == "1" else "You said: Hi" for digit in mocked]
    assert [*contents, str(mocked.count("0"))] == ran.stdout.split("\n")[:-1], ran.stderr


@pytest.mark.parametrize(
    "method, url, body, headers",
    [
        ("GET", "http://localhost/generate", None, {}),
        ("POST", "http://localhost/generate", b"", {}),
        ("POST", "http://localhost/generate", bytearray(b"{}"), {}),
        ("POST", "http://localhost/generate", b"x" * 20_000, {}),
        ("POST", "http://user:password@localhost/generate", b"{}", {}),
        ("POST", "http://localhost/generate#fragment", b"{}", {}),
        ("POST", "ftp://localhost/generate", b"{}", {}),
        ("POST", "http:///generate", b"{}", {}),
        ("POST", "http://[/generate", b"{}", {}),
        ("POST", "/generate", b"{}", {}),
        ("POST", "http://localhost/generate", b"{}", {"Expect": "100-continue"}),
        ("POST", "http://localhost/generate", b"{}", {"HOST": "example.com"}),
        ("POST", "http://localhost/generate", b"{}", {"transfer-encoding": "chunked"}),
        ("POST", "http://localhost/generate", b"{}", {"USER-AGENT": "twice"}),
    ],
)
async def test_what_is_not_plain(client, method, url, body, headers):
    """A request that aiohttp would treat in a special way is left to it."""
    await client.generate("gpt-5", "Hi")
    (session,) = client._executor.shared.transport._sessions.values()
    usual = {"User-Agent": "tests", "Content-Type": "application/json"}

    assert session.direct_sender.new_request("POST", "http://localhost/generate?a=b", usual, b"{}") is not None
    assert session.direct_sender.new_request(method, url, {**usual, **headers}, body) is None


@pytest.mark.parametrize("missing", ["User-Agent", "Content-Type"])
async def test_headers_that_aiohttp_adds(client, missing):
    """A request without a header that aiohttp would add is left to it."""
    await client.generate("gpt-5", "Hi")
    (session,) = client._executor.shared.transport._sessions.values()
    headers = {"User-Agent": "tests", "Content-Type": "application/json"}
    del headers[missing]

    assert session.direct_sender.new_request("POST", "http://localhost/generate", headers, b"{}") is None


async def with_more(self, *, further=None):
    raise AssertionError


def test_each_option_of_a_request_is_known():
    """The session of this aiohttp has no option that is not known here."""
    assert direct_sender._OPTIONS >= set(inspect.signature(aiohttp.ClientSession._request).parameters)


@pytest.mark.parametrize(
    "owner, name, replacement",
    [
        (aiohttp.BaseConnector, "connect", with_more),
        (aiohttp.BaseConnector, "connect", None),
        (aiohttp.ClientResponse, "start", with_more),
        (direct_sender, "ResponseHandler", None),
        (direct_sender.ResponseHandler, "set_response_params", with_more),
        (direct_sender, "TimerNoop", None),
        (direct_sender, "_METHODS", (None, *direct_sender._METHODS[1:])),
        (direct_sender, "_METHODS", (with_more, *direct_sender._METHODS[1:])),
        (direct_sender, "_METHODS", (*direct_sender._METHODS[:4], functools.partial(print))),
    ],
)
def test_an_unknown_aiohttp(monkeypatch, owner, name, replacement):
    """With another form of anything that is used here, this aiohttp is not known."""
    assert is_known_aiohttp.__wrapped__()

    monkeypatch.setattr(owner, name, replacement)

    assert not is_known_aiohttp.__wrapped__()


async def test_the_session_without_a_sender(server, sent, monkeypatch):
    """With an aiohttp that is not known, the session sends each request."""
    monkeypatch.setattr(direct_sender, "is_known_aiohttp", lambda: False)
    async with AsyncNeuralBox(**server.client_options) as client:
        await client.generate("gpt-5", "Hi")

    assert ["aiohttp"] == sent


async def failures(server):
    """Return what is known of each error, for failures before and after the request is sent."""
    options = {**server.client_options, "max_retries": 0}
    silent = await asyncio.start_server(close_at_once, "127.0.0.1", 0)
    garbled = await asyncio.start_server(respond_with_garbage, "127.0.0.1", 0)
    urls = {
        "refused": "http://127.0.0.1:9",
        "no such host": "https://no-such-host.invalid",
        "not TLS": server.base_url.replace("http:", "https:"),
        "closed": f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}",
        "garbled": f"http://127.0.0.1:{garbled.sockets[0].getsockname()[1]}",
        "late": server.base_url,
    }
    server.delay(30)
    errors = {}
    for name, url in urls.items():
        async with AsyncNeuralBox(**{**options, "base_url": url, "timeout": 1 if name == "late" else 30}) as client:
            with pytest.raises(NeuralBoxError) as caught:
                await client.generate("gpt-5", "Hi")
        error = caught.value
        details = [getattr(error, fact, None) for fact in ("billed", "request_sent", "phase", "retryable", "body")]
        errors[name] = type(error), *details, re.sub(r":\d+", ":PORT", str(error))
    for peer in silent, garbled:
        peer.close()
        await peer.wait_closed()
    return errors


async def close_at_once(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def respond_with_garbage(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"garbage\r\n\r\n")
    writer.close()


@pytest.mark.long
async def test_the_same_errors(server, sent, monkeypatch):
    """An error says the same as one of aiohttp's session."""
    ours = await failures(server)
    monkeypatch.setattr("neuralbox_async._fast_paths.enabled", lambda: False)
    theirs = await failures(server)

    assert ours == theirs
