"""A local server and a client of it."""

from __future__ import annotations

import contextlib
import json

import pytest

from neuralbox_async import AsyncNeuralBox, RetryPolicy
from neuralbox_async.testing import FakeResponse, FakeTransport, NeuralBoxServer


@pytest.fixture
def serve():
    """Return a function that starts a server with options."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(NeuralBoxServer(**options))


@pytest.fixture
def server(serve):
    """A server without options."""
    return serve()


@pytest.fixture
async def connect():
    """Return a function that makes a client of a server, which retries without waiting."""
    async with contextlib.AsyncExitStack() as stack:

        def connect(server, **options):
            policy = RetryPolicy(jitter=lambda _low, _high: 0.0)
            client = AsyncNeuralBox(server.api_key, base_url=server.base_url, retry_policy=policy, **options)
            stack.push_async_callback(client.aclose)
            return client

        yield connect


@pytest.fixture
def client(server, connect):
    """A client of the server."""
    return connect(server)


@pytest.fixture
def fake():
    """Return a function that makes a transport which responds with JSON *bodies*, or pairs of status and body."""

    def make(*bodies):
        pairs = (body if isinstance(body, tuple) else (200, body) for body in bodies)
        return FakeTransport(*(FakeResponse(json.dumps(body).encode(), status_code=status) for status, body in pairs))

    return make
