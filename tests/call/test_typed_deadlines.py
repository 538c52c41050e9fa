"""`parse` and deadlines: when the time for a repair is over, the error has the text that was paid for."""

from __future__ import annotations

import asyncio
import pickle
import time

import anyio
import attrs
import pytest

from neuralbox_async import APITimeoutError, AsyncNeuralBox, ParsingError
from neuralbox_async.testing import NeuralBoxServer
from neuralbox_sync import NeuralBox

pytestmark = [pytest.mark.usefixtures("no_task_left"), pytest.mark.long]

PRICE = 5
INVALID = '{"name": "Oslo", "population": "many"}'
TIMEOUT = 4.0  # of the call; the first generation takes some milliseconds of it, on a busy machine more


@attrs.frozen
class City:
    name: str
    population: int


@attrs.frozen
class Slow:
    """A class whose check of a value takes longer than the call may."""

    name: str
    population: int | str

    def __attrs_post_init__(self):
        time.sleep(TIMEOUT)
        raise ValueError("no such city")


@pytest.fixture
def server():
    with NeuralBoxServer(prices={"gpt-5": PRICE}) as server:
        server.reply_with(INVALID)
        yield server


def parse_blocking(options, output_type):
    with NeuralBox(**options) as client:
        return client.parse("gpt-5", "Norway?", output_type, timeout=TIMEOUT)


async def parse(options, output_type):
    async with AsyncNeuralBox(**options) as client:
        return await client.parse("gpt-5", "Norway?", output_type, timeout=TIMEOUT)


async def parse_in_thread(options, output_type):
    return await anyio.to_thread.run_sync(parse_blocking, options, output_type)


CLIENTS = pytest.mark.parametrize("run", [parse, parse_in_thread], ids=["async", "blocking"])


async def error_of(run, options, output_type=City):
    with pytest.raises(ParsingError) as caught:
        await run(options, output_type)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (INVALID, 1, "yes") == (caught.value.text, caught.value.attempts, caught.value.billed)
    assert (INVALID, 1, "yes") == (copy.text, copy.attempts, copy.billed)
    return caught.value


@CLIENTS
async def test_a_repair_that_waits_for_headers(server, run):
    """The repair ends at the deadline of the call; as it may be billed, the tokens of all are unknown."""
    server.delay(0)
    server.delay(60)

    error = await error_of(run, server.client_options)
    assert isinstance(error.__cause__, APITimeoutError)
    assert (None, "unknown", 2) == (error.tokens_used, error.__cause__.billed, len(server.requests))


@CLIENTS
async def test_a_deadline_before_the_repair_is_sent(server, run):
    """A repair that is not sent costs nothing: here, its key is not there before the deadline."""
    keys = iter([server.api_key])

    async def key():
        return next(keys, None) or await anyio.sleep_forever()

    error = await error_of(run, {"api_key": key, "base_url": server.base_url})
    assert isinstance(error.__cause__, APITimeoutError)
    assert (PRICE, "no", 1) == (error.tokens_used, error.__cause__.billed, len(server.requests))


@CLIENTS
async def test_a_deadline_before_the_repair(server, run):
    """There is no repair after the deadline, which passes while the value is checked."""
    error = await error_of(run, server.client_options, Slow)

    assert "the time is over" in str(error)
    assert (PRICE, None, 1) == (error.tokens_used, error.__cause__, len(server.requests))


async def test_the_timeout_of_a_scope(server):
    """When the user's own scope ends the repair, the cause of its cancellation has the text."""
    server.delay(0)
    server.delay(60)

    async with AsyncNeuralBox(**server.client_options) as client:

        async def expire(scope):
            await server.wait_until_async(lambda: len(server.requests) == 2, timeout=60)
            scope.reschedule(0)

        async with asyncio.TaskGroup() as tasks:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(None) as scope:
                    tasks.create_task(expire(scope))
                    await client.parse("gpt-5", "Norway?", City)

    error = caught.value.__cause__.__cause__
    assert isinstance(error, ParsingError)
    assert (INVALID, 1, None, "yes") == (error.text, error.attempts, error.tokens_used, error.billed)
