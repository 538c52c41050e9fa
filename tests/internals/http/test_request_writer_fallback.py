"""`RequestWriter` leaves a request to an aiohttp that it does not know, before it writes a byte of it."""

from __future__ import annotations

import asyncio
import inspect
import sys

import aiohttp
import pytest
from aiohttp.http import StreamWriter
from yarl import URL

from neuralbox_async import AsyncNeuralBox
from neuralbox_async._http import request_writer
from neuralbox_async._http.request_writer import RequestWriter, is_known_aiohttp
from neuralbox_async.testing import NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left", "fast_paths_on", "unknown_again")

REQUEST_ATTRIBUTES = [
    "_timer",
    "_traces",
    "headers",
    "loop",
    "method",
    "original_url",
    "request_info",
    "response_class",
    "session",
    "url",
]


@pytest.fixture
def server():
    with NeuralBoxServer() as running:
        yield running


@pytest.fixture
def unknown_again():
    """Check the signatures of aiohttp again, before the test and after it."""
    is_known_aiohttp.cache_clear()
    yield
    is_known_aiohttp.cache_clear()


@pytest.fixture
def written(monkeypatch):
    """Return a list to which each request adds how it is written: by ``"aiohttp"`` or by ``"us"``."""
    ways = []
    write_bytes, prepare = aiohttp.ClientRequest.write_bytes, RequestWriter._prepare

    async def aiohttp_write_bytes(self, *arguments):
        ways.append("aiohttp")
        return await write_bytes(self, *arguments)

    def our_prepare(self, conn, size):
        prepared = prepare(self, conn, size)
        if prepared is not None:
            ways.append("us")
        return prepared

    monkeypatch.setattr(aiohttp.ClientRequest, "write_bytes", aiohttp_write_bytes)
    monkeypatch.setattr(RequestWriter, "_prepare", our_prepare)
    return ways


@pytest.fixture
def bytes_written(monkeypatch):
    """Return a list to which each write of a client to a connection adds its length."""
    lengths = []
    for name in ("_write", "_writelines"):
        original = getattr(StreamWriter, name)

        def write(self, data, *, original=original):
            if isinstance(self.protocol, aiohttp.client_proto.ResponseHandler):
                lengths.append(len(data) if isinstance(data, bytes) else sum(map(len, data)))
            return original(self, data)

        monkeypatch.setattr(StreamWriter, name, write)
    return lengths


def hide(monkeypatch, owner, name, error=AttributeError):
    """Let the access of `RequestWriter` to an attribute fail; aiohttp itself still has it."""
    missing = object()
    original = inspect.getattr_static(owner, name, missing)

    def get(self):
        if sys._getframe(1).f_code.co_filename == request_writer.__file__:
            raise error(name)
        if name in getattr(self, "__dict__", ()):
            return vars(self)[name]
        if original is missing:
            raise AttributeError(name)
        return original.__get__(self, owner) if hasattr(original, "__get__") else original

    def put(self, value):
        vars(self)[name] = value

    monkeypatch.setattr(owner, name, property(get, put), raising=False)


async def generate(server, *, concurrency=1):
    async with AsyncNeuralBox(**server.client_options, max_retries=0) as client:
        for _ in range(3):  # the third request in a row is written at once
            replies = await asyncio.gather(*(client.generate("gpt-5", f"Hi {n}") for n in range(concurrency)))
            assert [f"You said: Hi {n}" for n in range(concurrency)] == [reply.content for reply in replies]
    assert 3 * concurrency == len(server.requests) == len(server.billed)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_this_aiohttp_is_known(server, written, concurrency):
    """With the installed aiohttp, `RequestWriter` writes the requests."""
    await generate(server, concurrency=concurrency)

    assert ["us"] * (3 * concurrency) == written


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("name", REQUEST_ATTRIBUTES)
async def test_a_missing_attribute_of_requests(server, written, monkeypatch, name, concurrency):
    """Without one of the attributes of a request, aiohttp sends each request, once."""
    hide(monkeypatch, RequestWriter, name)

    await generate(server, concurrency=concurrency)

    assert ["aiohttp"] * (3 * concurrency) == written


async def test_every_attribute_is_covered():
    """The test above hides every attribute of aiohttp's requests that `RequestWriter` reads."""
    request = aiohttp.ClientRequest("GET", URL("http://localhost"), loop=asyncio.get_running_loop())
    names = RequestWriter._prepare.__code__.co_names + RequestWriter.send.__code__.co_names
    called = {"send", "update_body_from_data"}  # their signatures are checked

    assert {*REQUEST_ATTRIBUTES, *called} == {name for name in names if hasattr(request, name)}


@pytest.mark.parametrize(
    "owner, name",
    [
        (aiohttp.connector.Connection, "protocol"),
        (aiohttp.base_protocol.BaseProtocol, "writing_paused"),
    ],
)
async def test_a_missing_attribute_of_other_objects(server, written, monkeypatch, owner, name):
    """Without an attribute of the connection or its protocol, aiohttp sends each request."""
    hide(monkeypatch, owner, name)

    await generate(server)

    assert ["aiohttp"] * 3 == written


class ResponseWithMore(aiohttp.ClientResponse):
    def __init__(self, method, url, *, further=None, **parameters):
        super().__init__(method, url, **parameters)


class WriterWithMore(StreamWriter):
    def __init__(self, protocol, loop, *args, further, **parameters):
        super().__init__(protocol, loop, *args, **parameters)


async def send_with_more(self, conn, further=None):
    raise AssertionError


async def write_with_less(self, chunk):
    raise AssertionError


def update_body_with_more(self, body, _stacklevel, further):
    raise AssertionError


async def write_headers_with_more(self, status_line, headers, further):
    raise AssertionError


def not_a_coroutine_function(original):
    def function(self, *args):
        raise AssertionError

    function.__signature__ = inspect.signature(original)
    return function


@pytest.mark.parametrize(
    "owner, name, replacement",
    [
        (aiohttp, "ClientResponse", ResponseWithMore),
        (aiohttp.ClientRequest, "send", send_with_more),
        (aiohttp.ClientRequest, "send", None),
        (aiohttp.ClientRequest, "send", not_a_coroutine_function(aiohttp.ClientRequest.send)),
        (aiohttp.ClientRequest, "update_body_from_data", update_body_with_more),
        (aiohttp.ClientRequest, "update_body_from_data", None),
        (StreamWriter, "write", write_with_less),
        (StreamWriter, "write", None),
        (StreamWriter, "write", not_a_coroutine_function(StreamWriter.write)),
        (StreamWriter, "set_eof", StreamWriter.write),
        (StreamWriter, "write_headers", write_headers_with_more),
        (StreamWriter, "write_headers", not_a_coroutine_function(StreamWriter.write_headers)),
        (request_writer, "StreamWriter", None),
        (request_writer, "StreamWriter", 5),
    ],
)
def test_other_signatures(monkeypatch, owner, name, replacement):
    """With another signature of any function that `RequestWriter` uses, this aiohttp is not known."""
    assert is_known_aiohttp()
    is_known_aiohttp.cache_clear()

    if replacement is None and owner is not request_writer:
        monkeypatch.delattr(owner, name)
    else:
        monkeypatch.setattr(owner, name, replacement)

    assert not is_known_aiohttp()


async def test_another_response_class(server, written, monkeypatch):
    """An aiohttp whose responses take other parameters sends each request, once."""
    monkeypatch.setattr(aiohttp, "ClientResponse", ResponseWithMore)

    await generate(server)

    assert ["aiohttp"] * 3 == written


async def test_another_stream_writer(server, written, monkeypatch):
    """An aiohttp whose stream writer has a further required parameter sends each request, once."""
    monkeypatch.setattr(request_writer, "StreamWriter", WriterWithMore)

    await generate(server)

    assert ["aiohttp"] * 3 == written


async def test_a_deprecated_attribute(server, written, monkeypatch):
    """A warning that an attribute is deprecated, raised as an error, leaves the request to aiohttp."""
    hide(monkeypatch, RequestWriter, "original_url", DeprecationWarning)

    await generate(server)

    assert ["aiohttp"] * 3 == written


@pytest.mark.parametrize("name", ["_traces", "url", "headers"])
async def test_nothing_is_written_before_the_fallback(server, monkeypatch, bytes_written, name):
    """When aiohttp takes over a request, no byte of it has been written."""
    hide(monkeypatch, RequestWriter, name)
    before = []
    write_bytes = aiohttp.ClientRequest.write_bytes

    async def aiohttp_write_bytes(self, *arguments):
        before.append(sum(bytes_written))
        return await write_bytes(self, *arguments)

    monkeypatch.setattr(aiohttp.ClientRequest, "write_bytes", aiohttp_write_bytes)
    async with AsyncNeuralBox(**server.client_options) as client:
        await client.generate("gpt-5", "Hi")

    assert [0] == before
    assert 1 == len(bytes_written)


async def test_switched_off(monkeypatch, written):
    """With the fast paths off, aiohttp sends each request."""
    monkeypatch.setattr("neuralbox_async._fast_paths.enabled", lambda: False)
    with NeuralBoxServer() as server:
        await generate(server)

    assert ["aiohttp"] * 3 == written
