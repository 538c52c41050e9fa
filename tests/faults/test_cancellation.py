"""A call may be given up at any moment and in any way: it ends at once, leaks nothing, and never asks a second time."""

import asyncio
import contextlib
import random
import threading
import time

import pytest
from fault_server import STREAM_HEAD, answer, events, eventually, generation, reads_and_stalls, replies, serves
from slow_calls import (
    HALF,
    HALF_A_STREAM,
    PENDING,
    SOON,
    THROTTLED,
    WHOLE,
    by_anyio_scope,
    by_task,
    generate,
    read_stream,
    wait,
)

from neuralbox_async import NeuralBoxError

STREAM = STREAM_HEAD + events("Hello ", "world")


def dripped(data, parts=12, every=0.004):
    """Return a script that answers each request with *data*, slowly."""
    size = -(-len(data) // parts)

    async def script(connection):
        while True:
            await asyncio.sleep(0.005)
            await connection.request()
            await asyncio.sleep(0.01)
            await connection.send(*(data[at : at + size] for at in range(0, len(data), size)), every=every)

    return script


CALLS = {
    "generate": (generate, dripped(WHOLE)),
    "stream": (read_stream, dripped(STREAM.replace(b"Connection: close\r\n", b""))),
    "retry": (generate, serves(THROTTLED)),
    "wait": (wait, serves(PENDING)),
}


async def by_asyncio_timeout(call, seconds):
    """Use `asyncio.timeout`."""
    try:
        async with asyncio.timeout(seconds) as scope:
            await call
    except TimeoutError as error:
        assert not isinstance(error, NeuralBoxError)
    assert 0 == asyncio.current_task().cancelling()
    return scope.expired()


async def by_wait_for(call, seconds):
    """Use `asyncio.wait_for`."""
    try:
        await asyncio.wait_for(call, seconds)
    except TimeoutError as error:
        assert not isinstance(error, NeuralBoxError)
        return True
    return False


async def by_sibling(call, seconds):
    """Fail beside it in a task group."""

    async def fail():
        await asyncio.sleep(seconds)
        raise LookupError

    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(call)
            group.create_task(fail())
    return task.cancelled()


WAYS = [by_task, by_asyncio_timeout, by_wait_for, by_anyio_scope, by_sibling]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call, script", CALLS.values(), ids=CALLS)
async def test_given_up_at_any_moment(serve, connect, call, script, way):
    """Given up at any moment, a call asked at most once, its connection is closed, and the client goes on."""
    server = serve(script)
    client = connect(server, timeout=60)
    chance = random.Random(7)
    given_up = 0

    for calls in range(1, 9):
        started = time.monotonic()
        given_up += await way(call(client), chance.uniform(0, 0.07))
        assert time.monotonic() - started < SOON
        assert server.posts <= calls
    assert given_up
    if call is not wait:
        keys = [request.headers["idempotency-key"] for request in server.requests]
        assert len(keys) == len(set(keys))
    await client.aclose()
    assert await server.all_left()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "call, script",
    [
        (generate, reads_and_stalls),
        (generate, HALF),
        (read_stream, reads_and_stalls),
        (read_stream, HALF_A_STREAM),
        (wait, HALF),
    ],
    ids=["head", "body", "head of a stream", "stream", "poll"],
)
async def test_connection_of_what_was_given_up(serve, connect, call, script, way):
    """The connection of a call that was given up is closed at once, so that the server can stop; its slot is free."""
    server = serve(script, serves(WHOLE))
    client = connect(server, timeout=60, max_connections=1)

    assert await way(call(client), 0.05)

    assert await server.all_left()
    assert "Hello" == (await client.generate("gpt-5", "Hi", timeout=SOON)).content


CLOCK = 0.12


@pytest.mark.parametrize("first", ["deadline", "cancellation"])
@pytest.mark.parametrize(
    "call, options, script",
    [
        (generate, {"timeout": CLOCK}, reads_and_stalls),
        (generate, {"timeout": CLOCK}, HALF),
        (generate, {"timeout": CLOCK}, replies(THROTTLED[:-10], then="stall")),
        (read_stream, {"first_event_timeout": CLOCK}, reads_and_stalls),
        (read_stream, {"first_event_timeout": CLOCK}, replies(STREAM_HEAD, then="stall")),
        (read_stream, {"stall_timeout": CLOCK}, HALF_A_STREAM),
    ],
    ids=["head", "body", "body of an error", "head of a stream", "first event", "stall"],
)
async def test_cancelled_as_the_deadline_comes(serve, connect, call, options, script, first):
    """Cancelled in the very iteration of the loop in which a clock of ours runs out, a call ends as cancelled."""
    server = serve(script)
    client = connect(server, **options)
    loop = asyncio.get_running_loop()

    for calls in range(1, 6):
        started = loop.time()
        task = asyncio.create_task(call(client))
        await eventually(lambda calls=calls: server.posts == calls)
        await asyncio.sleep(0.01)  # the answer, as far as it comes, has been read
        if loop.time() - started > CLOCK / 2:  # too busy a machine to tell what comes first: once more
            task.cancel()
            await asyncio.wait({task})
            continue
        loop.call_at(started + 2.2 * CLOCK, task.cancel)
        # The loop is held up until both timers have run out, so that they are handled in one iteration.
        time.sleep(started + 2.5 * CLOCK - loop.time())
        if first == "cancellation":
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert calls == server.posts
        break
    assert await server.all_left()


@pytest.mark.parametrize("patience", [0.0005, 0.003, 0.011])
async def test_read_that_is_given_up_loses_nothing(serve, connect, patience):
    """Reads with a time limit of the caller's deliver each event once, in order, wherever they were given up."""
    deltas = [f"{number} €\n" for number in range(12)]
    data = events(*deltas)
    server = serve(replies(STREAM_HEAD, *(data[at : at + 35] for at in range(0, len(data), 35)), every=0.004))
    texts = []
    given_up = 0

    async with connect(server).stream("gpt-5", "Hi", recover=False) as stream:
        reader = stream.text_stream
        while True:
            try:
                texts.append(await asyncio.wait_for(anext(reader), patience))
            except TimeoutError:
                given_up += 1
            except StopAsyncIteration:
                break

    assert deltas == texts
    assert given_up
    assert "".join(deltas) == stream.generation.content
    assert stream.generation.completed


async def test_recovery_that_is_given_up_goes_on(serve, connect):
    """A recovery that was given up begins anew with the next read."""
    asked = threading.Event()

    async def slowly(connection):
        while True:
            await connection.request()
            if asked.is_set():
                await connection.send(answer(generation("Hello world!")))
            asked.set()

    server = serve(replies(STREAM_HEAD + events("Hello ", "world", end=False)), slowly)

    async with connect(server).stream("gpt-5", "Hi") as stream:
        assert ["Hello ", "world"] == [await anext(stream.text_stream), await anext(stream.text_stream)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream.text_stream), 0.1)
        assert "!" == await anext(stream.text_stream)

    assert 1 == server.posts
