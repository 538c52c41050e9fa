"""A call may be given up at any moment and in any way: it ends at once, leaks nothing, and never asks a second time."""

import asyncio
import contextlib
import gc
import random
import threading
import time

import anyio
import pytest
from fault_server import (
    STREAM_HEAD,
    answer,
    event,
    events,
    eventually,
    generation,
    reads_and_stalls,
    replies,
    serves,
)

from neuralbox_async import ClientClosedError, NeuralBoxError, StreamStateError

WHOLE = answer(generation())
STREAM = STREAM_HEAD + events("Hello ", "world")
PENDING = answer({"id": "gen_1", "status": "pending"})
THROTTLED = answer({"error": "rate_limit_exceeded", "message": "slow down", "retry_after": 30}, status="429 Too Many")
HALF = replies(WHOLE[:-10], then="stall")
HALF_A_STREAM = replies(STREAM_HEAD + events("Hello ", "world", end=False), then="stall")
SOON = 1.0  # seconds; what should take none may take this on a busy machine


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


async def generate(client):
    """Generate."""
    await client.generate("gpt-5", "Hi")


async def read_stream(client):
    """Open a stream and read it to its end."""
    async with client.stream("gpt-5", "Hi", recover=False) as stream:
        await stream.until_done()


async def wait(client):
    """Poll for a generation that stays pending."""
    await client.wait("gen_1", poll_interval=0.01)


CALLS = {
    "generate": (generate, dripped(WHOLE)),
    "stream": (read_stream, dripped(STREAM.replace(b"Connection: close\r\n", b""))),
    "retry": (generate, serves(THROTTLED)),
    "wait": (wait, serves(PENDING)),
}


# What gives the call up after so many seconds, and says whether it did; nothing of ours may come out of it.


async def by_task(call, seconds):
    """Cancel the task."""
    task = asyncio.create_task(call)
    await asyncio.sleep(seconds)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


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


async def by_anyio_scope(call, seconds):
    """Use a scope of anyio."""
    with anyio.move_on_after(seconds) as scope:
        await call
    return scope.cancelled_caught


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
        reader = stream.text
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
        assert ["Hello ", "world"] == [await anext(stream.text), await anext(stream.text)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream.text), 0.1)
        assert "!" == await anext(stream.text)

    assert 1 == server.posts


# ----------------------------------------------------------------------------------------------- closing under a reader


async def test_stream_closed_under_its_reader(serve, connect):
    """A reader whose stream is closed is told at once, and the stream is over."""
    server = serve(HALF_A_STREAM)
    async with connect(server).stream("gpt-5", "Hi") as stream:
        reading = asyncio.create_task(stream.until_done())
        await eventually(lambda: "Hello world" == stream.generation.content)
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(StreamStateError):
            await asyncio.wait_for(reading, SOON)
        assert [] == [event async for event in stream]

    assert "Hello world" == stream.generation.content
    assert "incomplete" == stream.generation.status
    assert await server.all_left()
    assert 1 == len(server.requests)


async def test_client_closed_under_a_reader(serve, connect):
    """A reader whose client is closed is told at once, with the text so far."""
    server = serve(HALF_A_STREAM)
    client = connect(server)
    async with client.stream("gpt-5", "Hi") as stream:
        reading = asyncio.create_task(stream.until_done())
        await eventually(lambda: "Hello world" == stream.generation.content)
        await client.aclose()
        with pytest.raises(ClientClosedError) as caught:
            await asyncio.wait_for(reading, SOON)

    assert "Hello world" == caught.value.text
    assert "gen_1" == caught.value.generation_id
    assert "unknown" == caught.value.billed
    assert await server.all_left()
    assert 1 == len(server.requests)


@pytest.mark.parametrize(
    "call, script, billed",
    [
        (generate, reads_and_stalls, "unknown"),
        (generate, HALF, "unknown"),
        (read_stream, reads_and_stalls, "unknown"),
        (generate, serves(THROTTLED), "no"),
        (wait, serves(PENDING), "no"),
        (wait, reads_and_stalls, "no"),
    ],
    ids=["head", "body", "head of a stream", "retry", "pause between polls", "poll"],
)
async def test_client_closed_during_a_call(serve, connect, call, script, billed):
    """A call whose client is closed ends soon with that error, wherever it is, and tells the truth of the money."""
    server = serve(script)
    client = connect(server, timeout=60)
    calling = asyncio.create_task(call(client))
    await eventually(lambda: server.requests)
    await asyncio.sleep(0.05)

    await client.aclose()

    with pytest.raises(ClientClosedError) as caught:
        await asyncio.wait_for(calling, SOON)
    assert billed == caught.value.billed
    assert caught.value.request_sent or call is wait
    assert await server.all_left()
    assert server.posts <= 1


async def test_client_closed_while_calls_wait_for_a_connection(serve, connect):
    """Calls that wait for one of max_connections are told, too: nobody has cancelled their tasks."""
    server = serve(reads_and_stalls)
    client = connect(server, max_connections=1)
    calling = [asyncio.create_task(generate(client)) for _ in range(4)]
    await eventually(lambda: server.posts)

    await client.aclose()

    failures = await asyncio.wait_for(asyncio.gather(*calling, return_exceptions=True), SOON)
    assert [ClientClosedError] * 4 == [type(failure) for failure in failures]
    assert ["unknown", "no", "no", "no"] == [failure.billed for failure in failures]
    assert [True, False, False, False] == [failure.request_sent for failure in failures]
    assert 1 == server.posts


async def test_client_closed_by_another_loop(serve, connect):
    """Closing from another thread, with a loop of its own, ends the calls and streams of this one."""
    server = serve(HALF_A_STREAM)
    client = connect(server)
    async with client.stream("gpt-5", "Hi") as stream:
        reading = asyncio.create_task(stream.until_done())
        await eventually(lambda: "Hello world" == stream.generation.content)
        await asyncio.to_thread(lambda: asyncio.run(client.aclose()))
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(reading, SOON)

    assert await server.all_left()


@pytest.mark.parametrize("call", [generate, read_stream, wait])
async def test_use_after_closing(serve, connect, call):
    """A client that was closed, once or twice, refuses each call before anything is sent."""
    server = serve(serves(WHOLE))
    client = connect(server)
    await client.aclose()
    await client.aclose()

    with pytest.raises(ClientClosedError) as caught:
        await call(client)

    assert not caught.value.request_sent
    assert not server.connections


async def test_closing_inside_a_cancelled_scope(serve, connect):
    """Cleaning up in a scope that is cancelled already closes everything all the same."""
    server = serve(HALF_A_STREAM)
    client = connect(server)

    with anyio.CancelScope() as scope:
        async with client, client.stream("gpt-5", "Hi") as stream:
            await anext(stream)
            scope.cancel()
            await anyio.sleep(SOON)

    assert scope.cancelled_caught
    assert client.closed
    assert await server.all_left()


# ----------------------------------------------------------------------------------------------- leaving a stream early


async def test_two_readers(serve, connect):
    """The second of two tasks that read one stream is refused; the first goes on."""
    server = serve(replies(STREAM_HEAD + events("a", end=False), events("b", start=False), every=0.1))
    async with connect(server).stream("gpt-5", "Hi") as stream:
        await anext(stream)
        await anext(stream)
        first = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(StreamStateError):
            await anext(stream)
        assert "b" == (await first).delta


@pytest.mark.parametrize("how", ["break", "raise", "return"])
async def test_leaving_early(serve, connect, how):
    """Leaving a stream, in whatever way, closes its connection, so that the server stops generating."""
    server = serve(HALF_A_STREAM)
    client = connect(server)

    async def leave():
        async with client.stream("gpt-5", "Hi") as stream:
            async for _ in stream:
                if how == "raise":
                    raise LookupError("of the user")
                if how == "return":
                    return
                break

    with pytest.raises(LookupError, match="of the user") if how == "raise" else contextlib.nullcontext():
        await leave()
    assert await server.all_left()


async def test_dropped_stream(serve, connect):
    """A stream that was entered and forgotten is closed when it is collected."""
    server = serve(HALF_A_STREAM)
    client = connect(server)

    async def forget():
        stream = await client.stream("gpt-5", "Hi").__aenter__()  # as a careless user may
        await anext(stream)

    await forget()
    gc.collect()
    assert await server.all_left()


async def test_flood_of_heartbeats_leaves_room_for_others(serve, connect):
    """A stream of comments at full speed does not keep the loop to itself."""

    async def flood(connection):
        await connection.request()
        await connection.send(STREAM_HEAD, event(type="generation_start", id="g"))
        while True:
            await connection.send(b": ping\n\n" * 8000)

    server = serve(flood)
    client = connect(server)

    assert await by_anyio_scope(read_stream(client), 0.2)
    assert await by_task(read_stream(client), 0.2)
    assert await server.all_left()
