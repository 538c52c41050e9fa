"""The buffer into which a connection without TLS receives: what arrives is whole, whatever shares it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from neuralbox_async import AsyncNeuralBox
from neuralbox_async._http.watched_protocol import BUFFER_SIZE
from neuralbox_async.testing import NeuralBoxServer


@pytest.fixture
def echo():
    """A server that answers with the prompt, many times."""
    with NeuralBoxServer(reply=lambda body: body["messages"][0]["content"] * 1000) as running:
        yield running


async def texts(client, prefix):
    """Generate texts of 8 kB to 1.6 MB, 20 at a time, and return whether each is its own."""

    async def call(number):
        prompt = f"{prefix}-{number:03} " * (1 if number % 10 else 200)
        return prompt * 1000 == (await client.generate("gpt-5", prompt)).content

    return await asyncio.gather(*map(call, range(40)))


async def test_texts_are_not_mixed(echo):
    """Connections of one loop share a buffer, and each response is that to its own request, also when it is larger."""
    async with AsyncNeuralBox(**echo.client_options, max_connections=20) as client:
        assert all(await texts(client, "one"))

    assert max(len(request.body or b"") for request in echo.requests) * 1000 > BUFFER_SIZE


def test_loops_in_threads(echo):
    """Loops in several threads do not share a buffer, also with one client."""
    client = AsyncNeuralBox(**echo.client_options, max_connections=5)
    results = {}

    def run(name):
        results[name] = asyncio.run(texts(client, name))

    threads = [threading.Thread(target=run, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert 4 == len(results)
    assert all(map(all, results.values()))
    asyncio.run(client.aclose())
