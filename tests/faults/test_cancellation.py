"""A call that is cancelled at any time and in any way ends at once, leaks nothing and sends no second request."""

import asyncio
import contextlib
import random
import threading
import time

import pytest
from fault_server import (
    STREAM_HEAD,
    events,
    eventually,
    generation,
    never_responds,
    respond_once,
    respond_to_each,
    response,
)
from slow_calls import (
    COMPLETE,
    HALF,
    HALF_A_STREAM,
    PENDING,
    SOON,
    THROTTLED,
    by_anyio_scope,
    by_task,
    generate,
    read_stream,
    wait,
)

from neuralbox_async import NeuralBoxError

STREAM = STREAM_HEAD + events("Hello ", "world")


def slowly(data, parts=12, every=0.004):
    """Return a script that sends *data* to each request, slowly."""
    size = -(-len(data) // parts)

    async def script(connection):
        while True:
            await asyncio.sleep(0.005)
            await connection.request()
            await asyncio.sleep(0.01)
            await connection.send(*(data[at : at + size] for at in range(0, len(data), size)), every=every)

    return script


CALLS = {
    "generate": (generate, slowly(COMPLETE)),
    "stream": (read_stream, slowly(STREAM.replace(b"Connection: close\r\n", b""))),
    "retry": (generate, respond_to_each(THROTTLED)),
    "wait": (wait, respond_to_each(PENDING)),
}


async def by_asyncio_timeout(call, seconds):
    """Cancel with `asyncio.timeout`."""
    try:
        async with asyncio.timeout(seconds) as scope:
            await call
    except TimeoutError as error:
        assert not isinstance(error, NeuralBoxError)
    assert 0 == asyncio.current_task().cancelling()
    return scope.expired()


async def by_wait_for(call, seconds):
    """Cancel with `asyncio.wait_for`."""
    try:
        await asyncio.wait_for(call, seconds)
    except TimeoutError as error:
        assert not isinstance(error, NeuralBoxError)
        return True
    return False


async def by_sibling(call, seconds):
    """Cancel by the failure of another task in the task group."""

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
async def test_cancelled_at_any_time(serve, connect, call, script, way):
    """A call that is cancelled at any time sends at most one request, and the client still works."""
    server = serve(script)
    client = connect(server, timeout=60)
    rng = random.Random(7)
    cancelled = 0

    for calls in range(1, 9):
        started = time.monotonic()
        cancelled += await way(call(client), rng.uniform(0, 0.07))
        assert time.monotonic() - started < SOON
        assert server.posts <= calls
    assert cancelled
    if call is not wait:
        keys = [request.headers["idempotency-key"] for request in server.requests]
        assert len(keys) == len(set(keys))
    await client.aclose()
    assert await server.all_closed()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "call, script",
    [
        (generate, never_responds),
        (generate, HALF),
        (read_stream, never_responds),
        (read_stream, HALF_A_STREAM),
        (wait, HALF),
    ],
    ids=["head", "body", "head of a stream", "stream", "poll"],
)
async def test_connection_of_a_cancelled_call(serve, connect, call, script, way):
    """The connection of a cancelled call is closed at once, so that the server can stop, and its slot is free."""
    server = serve(script, respond_to_each(COMPLETE))
    client = connect(server, timeout=60, max_connections=1)

    assert await way(call(client), 0.05)

    assert await server.all_closed()
    assert "Hello" == (await client.generate("gpt-5", "Hi", timeout=SOON)).content


TIMEOUT = 0.12


@pytest.mark.parametrize("first", ["deadline", "cancellation"])
@pytest.mark.parametrize(
    "call, options, script",
    [
        (generate, {"timeout": TIMEOUT}, never_responds),
        (generate, {"timeout": TIMEOUT}, HALF),
        (generate, {"timeout": TIMEOUT}, respond_once(THROTTLED[:-10], then="stall")),
        (read_stream, {"first_event_timeout": TIMEOUT}, never_responds),
        (read_stream, {"first_event_timeout": TIMEOUT}, respond_once(STREAM_HEAD, then="stall")),
        (read_stream, {"stall_timeout": TIMEOUT}, HALF_A_STREAM),
    ],
    ids=["head", "body", "body of an error", "head of a stream", "first event", "stall"],
)
async def test_cancelled_at_the_deadline(serve, connect, call, options, script, first):
    """A call that is cancelled in the loop iteration in which its timeout expires ends as cancelled."""
    server = serve(script)
    client = connect(server, **options)
    loop = asyncio.get_running_loop()

    for calls in range(1, 6):
        started = loop.time()
        task = asyncio.create_task(call(client))
        await eventually(lambda calls=calls: server.posts == calls)
        await asyncio.sleep(0.01)  # the part of the response that arrives has been read
        if loop.time() - started > TIMEOUT / 2:  # the machine is too busy to control the order: try again
            task.cancel()
            await asyncio.wait({task})
            continue
        loop.call_at(started + 2.2 * TIMEOUT, task.cancel)
        # Block the loop until both timers are due, so that one iteration handles both.
        time.sleep(started + 2.5 * TIMEOUT - loop.time())
        if first == "cancellation":
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert calls == server.posts
        break
    assert await server.all_closed()


@pytest.mark.parametrize("timeout", [0.0005, 0.003, 0.011])
async def test_cancelled_read_loses_nothing(serve, connect, timeout):
    """Reads with a timeout of the caller yield each event once and in order, wherever they were cancelled."""
    deltas = [f"{number} €\n" for number in range(12)]
    data = events(*deltas)
    server = serve(respond_once(STREAM_HEAD, *(data[at : at + 35] for at in range(0, len(data), 35)), every=0.004))
    texts = []
    cancelled = 0

    async with connect(server).stream("gpt-5", "Hi", recover=False) as stream:
        reader = stream.text_stream
        while True:
            try:
                texts.append(await asyncio.wait_for(anext(reader), timeout))
            except TimeoutError:
                cancelled += 1
            except StopAsyncIteration:
                break

    assert deltas == texts
    assert cancelled
    assert "".join(deltas) == stream.generation.content
    assert stream.generation.completed


async def test_cancelled_recovery(serve, connect):
    """A recovery that was cancelled starts again with the next read."""
    requested = threading.Event()

    async def respond_to_the_second(connection):
        while True:
            await connection.request()
            if requested.is_set():
                await connection.send(response(generation("Hello world!")))
            requested.set()

    server = serve(respond_once(STREAM_HEAD + events("Hello ", "world", end=False)), respond_to_the_second)

    async with connect(server).stream("gpt-5", "Hi") as stream:
        assert ["Hello ", "world"] == [await anext(stream.text_stream), await anext(stream.text_stream)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream.text_stream), 0.1)
        assert "!" == await anext(stream.text_stream)

    assert 1 == server.posts
