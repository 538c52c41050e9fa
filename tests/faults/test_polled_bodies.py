"""A body in place of a stream, read by a task that polls it with a timeout of its own."""

import asyncio

import pytest
from fault_server import generation, response
from outcomes import SHORT

from neuralbox_async import StreamTimeoutError

POLL = 0.05  # seconds


async def poll(stream):
    """Return the next event; each read is cancelled after a moment, and made again."""
    while True:
        try:
            return await asyncio.wait_for(anext(stream), POLL)
        except TimeoutError as error:
            if isinstance(error, StreamTimeoutError):
                raise


async def test_stall(serve, connect):
    """The reads that were cancelled count for the stall timeout; what had arrived is delivered before the error."""

    async def script(connection):
        await connection.request()
        await connection.send(response(generation())[:-20])
        await connection.until_client_closes()

    client = connect(serve(script))
    async with client.stream("gpt-5", "Hi", recover=False, stall_timeout=4 * POLL) as stream:
        with pytest.raises(StreamTimeoutError) as caught:
            async with asyncio.timeout(20):
                while True:
                    await poll(stream)

    assert ("stall", "unknown") == (caught.value.phase, caught.value.billed)


async def test_a_slow_body(serve, connect):
    """A body that arrives within the stall timeout is read, however often the read is cancelled."""

    async def script(connection):
        await connection.request()
        body = response(generation())
        await connection.send(*[body[i : i + 40] for i in range(0, len(body), 40)], every=POLL)
        await connection.until_client_closes()

    client = connect(serve(script))
    async with client.stream("gpt-5", "Hi", recover=False, stall_timeout=60 * SHORT) as stream:
        assert "Hello" == (await poll(stream)).delta
