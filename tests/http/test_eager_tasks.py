"""Eager tasks: a task that starts at once, inside its creator, makes no stack that grows with the number of calls."""

from __future__ import annotations

import asyncio
import sys

import pytest

from neuralbox_async import AsyncNeuralBox

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 has no eager tasks")

CALLS = 900  # the interpreter's limit is 1,000 frames


@pytest.fixture
async def eager_client(server):
    """A client in a loop whose tasks are eager."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    async with AsyncNeuralBox(**server.client_options, max_connections=CALLS, connect_timeout=60) as opened:
        yield opened
    loop.set_task_factory(None)


async def generate(client):
    return (await client.generate("gpt-5", "Hi")).content


async def stream(client):
    async with client.stream("gpt-5", "Hi") as opened:
        return (await opened.get_final_generation()).content


@pytest.mark.parametrize("call", [generate, stream])
async def test_calls(eager_client, call):
    """As many calls as the interpreter has frames are in flight at once."""
    texts = await asyncio.gather(*(call(eager_client) for _ in range(CALLS)))

    assert CALLS == len(texts)
    assert all(texts)


async def test_a_batch(eager_client):
    """A batch has as many requests in flight as the interpreter has frames, started without a pause between them."""
    requests = ({"model": "gpt-5", "messages": "Hi"} for _ in range(CALLS))

    async with eager_client.generate_many(requests, max_concurrency=CALLS, max_rate=1e6) as results:
        texts = [result.generation.content async for result in results]

    assert CALLS == len(texts)
    assert all(texts)
