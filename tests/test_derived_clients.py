"""Closing a derived client closes nothing of the client that it is derived from."""

from __future__ import annotations

import asyncio

import pytest

from neuralbox_async import AsyncNeuralBox, ClientClosedError
from neuralbox_async.testing import NeuralBoxServer
from neuralbox_sync import NeuralBox

pytestmark = pytest.mark.usefixtures("no_task_left")


@pytest.fixture
def server():
    with NeuralBoxServer() as server:
        yield server


async def test_closing_a_derived_client(server):
    """Its further calls raise, and the first client goes on with the same connection."""
    async with AsyncNeuralBox(**server.client_options) as client:
        await client.generate("gpt-5", "Hi")
        async with client.with_options(timeout=9) as derived:
            await derived.generate("gpt-5", "Hi")
        await derived.aclose()

        assert (True, False) == (derived.closed, client.closed)
        for call in (
            derived.generate("gpt-5", "Hi"),
            derived.retrieve(1),
            derived.stream("gpt-5", "Hi").__aenter__(),
            derived.with_options(timeout=1).generate("gpt-5", "Hi"),
        ):
            with pytest.raises(ClientClosedError, match="closed"):
                await call
        await client.generate("gpt-5", "Hi")
    assert 3 == len(server.billed)


@pytest.mark.long
@pytest.mark.parametrize("depth", [1, 2, 3000])
async def test_closing_the_first_client(server, depth):
    """A client is closed with the one it is derived from, also when those between them are gone."""
    client = AsyncNeuralBox(**server.client_options)
    derived = client
    for _ in range(depth):
        derived = derived.with_options(timeout=9)
    await derived.generate("gpt-5", "Hi")
    await client.aclose()

    assert derived.closed
    assert derived.with_options(timeout=1).closed
    with pytest.raises(ClientClosedError):
        await derived.generate("gpt-5", "Hi")


async def test_closing_a_client_in_the_middle(server):
    """A derived client closes those that are derived from it, and no sibling."""
    async with AsyncNeuralBox(**server.client_options) as client:
        middle, sibling = client.with_options(timeout=9), client.with_options(timeout=8)
        last = middle.with_options(timeout=7)
        await middle.aclose()

        assert [False, True, False, True] == [each.closed for each in (client, middle, sibling, last)]
        await sibling.generate("gpt-5", "Hi")


@pytest.mark.long
async def test_requests_in_flight_finish(server):
    """A request in flight of a derived client that is closed finishes, and so does its stream: both are paid for."""
    server.delay(0.3, times=1)
    async with AsyncNeuralBox(**server.client_options) as client:
        derived = client.with_options(timeout=9)
        call = asyncio.ensure_future(derived.generate("gpt-5", "Hi"))
        while not server.requests:
            await asyncio.sleep(0.005)
        async with derived.stream("gpt-5", "Hi") as stream:
            await derived.aclose()
            assert "You said: Hi" == (await call).content
            assert (await stream.get_final_generation()).completed


async def test_a_batch_of_a_closed_client(server):
    """A batch of a derived client ends when that client is closed: what was sent has its result."""
    async with AsyncNeuralBox(**server.client_options) as client:
        derived = client.with_options(timeout=9)
        async with derived.generate_many(map(str, range(500)), model="gpt-5", max_concurrency=2) as results:
            first = await anext(results)
            await derived.aclose()
            rest = [result async for result in results]
        assert {"no"} >= {result.error.billed for result in [first, *rest] if result.error is not None}
        assert ClientClosedError is type(results.report.stopped_by)
        assert len(server.billed) == results.report.completed < 500
        assert not client.closed


def test_blocking(server):
    """The blocking client, too, outlives those that are derived from it."""
    with NeuralBox(**server.client_options) as client:
        client.generate("gpt-5", "Hi")
        with client.with_options(timeout=9) as derived:
            derived.generate("gpt-5", "Hi")
        derived.close()
        assert (True, False) == (derived.closed, client.closed)
        with pytest.raises(ClientClosedError):
            derived.generate("gpt-5", "Hi")
        client.generate("gpt-5", "Hi")
        another = client.with_options(timeout=9)
    assert another.closed
    with pytest.raises(ClientClosedError):
        another.generate("gpt-5", "Hi")
    assert 3 == len(server.billed)


async def test_the_first_client_is_busy(server):
    """Leaving the block of a derived client, by an error too, ends no stream, batch or connection of the first one."""
    async with AsyncNeuralBox(**server.client_options) as client:
        async with (
            client.stream("gpt-5", "one two three") as stream,
            client.generate_many(["a", "b", "c"], model="gpt-5", max_concurrency=1) as results,
        ):
            text = await anext(stream.text_stream)
            with pytest.raises(ZeroDivisionError):
                async with client.with_options(api_key=server.api_key) as derived:
                    await derived.generate("gpt-5", "Hi")
                    raise ZeroDivisionError
            text += "".join([piece async for piece in stream.text_stream])
            assert [None] * 3 == [result.error async for result in results]
        connections = server.connections_accepted
        await client.generate("gpt-5", "Hi")
    assert "You said: one two three" == text
    assert connections == server.connections_accepted


def test_the_first_blocking_client_is_busy(server):
    """The same holds for the blocking client."""
    with NeuralBox(**server.client_options) as client:
        with (
            client.stream("gpt-5", "one two three") as stream,
            client.generate_many(["a", "b", "c"], model="gpt-5", max_concurrency=1) as results,
        ):
            with pytest.raises(ZeroDivisionError), client.with_options(timeout=9) as derived:
                derived.generate("gpt-5", "Hi")
                raise ZeroDivisionError
            assert "You said: one two three" == "".join(stream.text_stream)
            assert [None] * 3 == [result.error for result in results]
        connections = server.connections_accepted
        client.generate("gpt-5", "Hi")
    assert connections == server.connections_accepted
