"""Clients for the tests of the local server: plain http.client and plain aiohttp."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading

import aiohttp
import attrs
import pytest

from neuralbox_async.testing import NeuralBoxServer


@attrs.frozen
class Response:
    """One HTTP response, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def events(self):
        """The data of each server-sent event: parsed JSON, or the text `[DONE]`."""
        frames = self.body.decode().split("\n\n")
        assert frames.pop() == ""
        return [_data(frame) for frame in frames if not frame.startswith(":")]


def _data(frame):
    assert frame.startswith("data: ")
    text = frame.removeprefix("data: ")
    return text if text == "[DONE]" else json.loads(text)


class Caller:
    """A blocking client of one server that opens a connection for each request."""

    def __init__(self, server):
        self.server = server

    def send(self, method, path, body=None, **headers):
        """Send one request and return the open connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=5)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers = {"Authorization": f"Bearer {self.server.api_key}", **headers}
        with contextlib.ExitStack() as on_error:
            on_error.callback(connection.close)
            connection.request(method, f"/api/v2{path}", data, headers)
            on_error.pop_all()
        return connection

    def request(self, method, path, body=None, **headers):
        """Send one request and return the response."""
        with contextlib.closing(self.send(method, path, body, **headers)) as connection:
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())

    def get(self, path, **headers):
        """GET *path*."""
        return self.request("GET", path, **headers)

    def post(self, body, path="/generate", **headers):
        """POST *body* to *path*."""
        return self.request("POST", path, body, **headers)

    def post_message(self, text="Hello big world", path="/generate", *, model="gpt-5", headers=None, **members):
        """POST one user message."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **members}
        return self.post(body, path, **(headers or {}))

    def read_until_error(self, body):
        """POST *body* and read the response until the connection breaks. Return the data and the exception, if any."""
        with contextlib.closing(self.send("POST", "/generate", body)) as connection:
            response, read = connection.getresponse(), b""
            try:
                while chunk := response.read1():
                    read += chunk
            except (OSError, http.client.HTTPException) as error:
                return read, error
            return read, None


@pytest.fixture
def serve():
    """Start servers with options. All are closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: Caller(stack.enter_context(NeuralBoxServer(**options)))


@pytest.fixture
def caller(serve):
    """A client of a server without options."""
    return serve()


@pytest.fixture
def calling():
    """Create a client of a server that the test starts and stops."""
    return Caller


@pytest.fixture
async def session():
    """A plain aiohttp session."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_read=5)) as session:
        yield session


@pytest.fixture
def thread_names():
    """Return the names of the running threads of local servers."""
    return lambda: [thread.name for thread in threading.enumerate() if thread.name == "NeuralBoxServer"]
