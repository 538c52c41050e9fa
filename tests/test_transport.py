"""aiohttp behind the seam, over real sockets: connections, loops, disconnects, and mocks as users make them."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import aiohttp
import anyio
import pytest
from aioresponses import aioresponses

from neuralbox_async import (
    APIConnectionError,
    APITimeoutError,
    AsyncNeuralBox,
    AuthenticationError,
    ClientClosedError,
    ContentDelta,
    ProviderError,
    ResponseError,
    RetryPolicy,
    StreamInterruptedError,
    StreamStateError,
    UnsupportedEventLoopError,
)
from neuralbox_async.testing import NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

AT_ONCE = RetryPolicy(uniform=lambda low, _high: low)


@pytest.fixture
def server():
    with NeuralBoxServer() as running:
        yield running


@pytest.fixture
async def client(server):
    async with AsyncNeuralBox(**server.client_options, retry_policy=AT_ONCE) as opened:
        yield opened


async def test_generate(server, client):
    """A generation comes back over real HTTP, and is billed once."""
    reply = await client.generate("gpt-5", "Hello there")

    assert "Hello there" in reply.content
    assert ("completed", "gpt-5", 2, server.balance) == (
        reply.status,
        reply.model,
        reply.tokens_used,
        reply.balance_remaining,
    )
    assert reply.created_at is not None
    assert reply.created_at.tzinfo is not None
    assert 1 == len(server.billed)


async def test_stream(server, client):
    """A stream comes back event by event, and what it accumulates is what `generate` returns."""
    async with client.stream("gpt-5", "Hello there") as stream:
        text = "".join([text async for text in stream.text])

    assert text == stream.generation.content == (await client.generate("gpt-5", "Hello there")).content
    assert stream.generation.completed
    assert 2 == len(server.billed)


@pytest.mark.parametrize("dialect", ["a", "b"])
async def test_dialects(dialect):
    """Both dialects are understood, whole and streamed, and both status paths."""
    async with NeuralBoxServer(dialect=dialect, status_paths=(dialect,)) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            reply = await client.generate("gpt-5", "Hello")
            async with client.stream("gpt-5", "Hello") as stream:
                streamed = await stream.until_done()
            again = await client.retrieve(reply)

    assert reply.content == streamed.content == again.content
    assert 2 == reply.tokens_used == streamed.tokens_used


async def test_connections_are_reused(server, client):
    """Calls one after the other, and streams read to their end, share one connection."""
    for _ in range(3):
        await client.generate("gpt-5", "Hi")
        async with client.stream("gpt-5", "Hi") as stream:
            await stream.until_done()
    with pytest.raises(AuthenticationError):
        await client.with_options(api_key="wrong").generate("gpt-5", "Hi")

    assert 1 == server.connections_accepted


async def test_connections_are_not_reused_on_request(server):
    """With reuse_connections=False each call has a connection of its own."""
    async with AsyncNeuralBox(**server.client_options, reuse_connections=False) as client:
        for _ in range(3):
            await client.generate("gpt-5", "Hi")
    assert 3 == server.connections_accepted


async def test_max_connections():
    """No more calls are in flight than connections are allowed; the others wait, and none is lost."""
    async with (
        NeuralBoxServer(latency=0.01) as server,
        AsyncNeuralBox(**server.client_options, max_connections=4) as client,
    ):
        replies = await asyncio.gather(*(client.generate("gpt-5", f"Number {n}") for n in range(40)))

    assert [f"Number {n}" in reply.content for n, reply in enumerate(replies)] == [True] * 40
    assert server.peak_in_flight <= 4
    assert 40 == len(server.billed)


async def test_waiting_for_a_connection_ends_with_the_deadline():
    """A call that got no connection in time was not sent."""
    async with (
        NeuralBoxServer(latency=5) as server,
        AsyncNeuralBox(**server.client_options, max_connections=1) as client,
    ):
        first = asyncio.ensure_future(client.generate("gpt-5", "Hi"))
        await server.wait_until_async(lambda: server.in_flight == 1)
        with pytest.raises(APITimeoutError) as caught:
            await client.generate("gpt-5", "Hi", timeout=0.05)
        first.cancel()
        await asyncio.wait([first])

    assert (False, "no") == (caught.value.request_sent, caught.value.billed)
    assert 1 == len(server.requests)


async def test_large_request(server, client):
    """A request of several megabytes goes out without a warning and without blocking the loop for its length."""
    text = "word " * 1_000_000
    server_side = (await client.generate("gpt-5", text, max_tokens=3)).usage

    assert server_side is not None
    assert len(text) < len(server.requests[0].body)


async def test_compressed_answers(server, client):
    """Compressed answers are taken, and counted as they are after decompression."""
    import gzip

    bomb = gzip.compress(b'{"id": 1, "content": "' + b"0" * 50_000_000 + b'"}')
    server.fail(200, body=bomb, headers={"Content-Encoding": "gzip"})
    client = AsyncNeuralBox(**server.client_options, max_response_bytes=1_000_000)
    async with client:
        with pytest.raises(ResponseError, match="larger than 1,000,000 bytes"):
            await client.generate("gpt-5", "Hi")

    await server.wait_until_async(lambda: server.connections == 0)


async def test_refused_connections(server, client):
    """A server that is not there was sent nothing, so the call is tried again, and then the error says so."""
    server.close()
    with pytest.raises(APIConnectionError) as caught:
        await client.generate("gpt-5", "Hi")
    assert (False, "no", 3) == (caught.value.request_sent, caught.value.billed, caught.value.attempts)


@pytest.mark.parametrize("when, billed", [("before", 0), ("after", 1)])
@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_dropped_connections(server, client, when, how, billed):
    """A connection that breaks after the request is not tried again: whether it was billed cannot be known."""
    server.drop(when, how=how)
    with pytest.raises(APIConnectionError) as caught:
        await client.generate("gpt-5", "Hi")

    assert ("unknown", 1, True) == (caught.value.billed, caught.value.attempts, caught.value.request_sent)
    assert billed == len(server.billed)
    assert 1 == len(server.requests)


async def test_documented_failures_are_tried_again(server, client):
    """What the vendor documents as never charged is tried again, and billed once in the end."""
    server.fail(500, code="provider_error")
    server.fail(503, code="model_unavailable")

    assert "Hi" in (await client.generate("gpt-5", "Hi")).content
    assert (3, 1) == (len(server.requests), len(server.billed))

    server.fail(500, times=3, code="provider_error")
    with pytest.raises(ProviderError):
        await client.generate("gpt-5", "Hi")


async def test_cut_stream_is_recovered(server, client):
    """The text that a broken stream still owes is fetched from the status endpoint; it is billed once."""
    server.cut(4, how="reset", finish=True)
    async with client.stream("gpt-5", "one two three four five") as stream:
        text = "".join([text async for text in stream.text])

    assert "one two three four five" in text
    assert stream.generation.completed
    assert 1 == len(server.billed)
    assert ["POST", "GET"] == [request.method for request in server.requests]


async def test_cut_stream_without_recovery(server, client):
    """Without recovery the text that came is in the error."""
    server.cut(4, how="eof")
    with pytest.raises(StreamInterruptedError) as caught:
        async with client.stream("gpt-5", "one two three four five", recover=False) as stream:
            await stream.until_done()

    assert (True, "unknown") == (caught.value.text != "", caught.value.billed)
    assert caught.value.text == stream.generation.content
    assert 0 == len(server.billed)


async def test_stalled_stream(server, client):
    """A stream that falls silent ends in time, and the server sees the connection close."""
    server.stall(3)
    with anyio.fail_after(10), pytest.raises(StreamInterruptedError):
        async with client.stream("gpt-5", "one two three", stall_timeout=0.1, recover=False) as stream:
            await stream.until_done()
    await server.wait_for_disconnect_async()


async def test_pending(client):
    """A pending generation is waited for, over real HTTP."""
    async with NeuralBoxServer(pending_models=("slow",), pending_seconds=0.05) as server:
        async with AsyncNeuralBox(**server.client_options) as other:
            pending = await other.generate("slow", "Hi")
            assert "pending" == pending.status
            assert "Hi" in (await other.wait(pending, poll_interval=0.02)).content
    assert 1 == len(server.billed)


# -------------------------------------------------------------------------------------------------------- disconnects


@pytest.fixture
def endless():
    with NeuralBoxServer(event_interval=0.01, reply="word " * 100_000) as running:
        yield running


async def leave_by_break(stream):
    async with stream:
        async for event in stream:
            if isinstance(event, ContentDelta):
                break


async def leave_by_exception(stream):
    with pytest.raises(ZeroDivisionError):
        async with stream:
            await anext(stream)
            1 / 0


async def leave_by_cancellation(stream):
    with anyio.move_on_after(0.1):
        async with stream:
            await stream.until_done()


async def leave_by_task_cancellation(stream):
    async def read() -> None:
        async with stream:
            await stream.until_done()

    task = asyncio.ensure_future(read())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def leave_by_dropping(stream):
    await stream.__aenter__()
    await anext(stream)


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_exception, leave_by_cancellation, leave_by_task_cancellation, leave_by_dropping]
)
async def test_leaving_a_stream(endless, leave):
    """However a stream is left early, the server sees the disconnect at once, stops, and bills nothing."""
    async with AsyncNeuralBox(**endless.client_options) as client:
        await leave(client.stream("gpt-5", "Hi"))
        gc.collect()
        await endless.wait_for_disconnect_async(2.0)
        await endless.wait_until_async(lambda: endless.in_flight == 0)
    assert [] == list(endless.billed)


async def test_cancelling_a_call():
    """A call that is cancelled closes its connection, and the next call is fine."""
    async with NeuralBoxServer(latency=30) as server, AsyncNeuralBox(**server.client_options) as client:
        with anyio.move_on_after(0.1) as scope:
            await client.generate("gpt-5", "Hi")
        assert scope.cancelled_caught
        await server.wait_for_disconnect_async(2.0)
    assert 1 == len(server.requests)


async def test_cancelled_read_loses_nothing(endless):
    """Reads that time out lose no event of a live stream."""
    async with NeuralBoxServer(event_interval=0.005, reply=" ".join(str(n) for n in range(40))) as server:
        async with AsyncNeuralBox(**server.client_options) as client, client.stream("gpt-5", "Hi") as stream:
            while True:
                try:
                    await asyncio.wait_for(anext(stream), 0.002)
                except TimeoutError:
                    continue
                except StopAsyncIteration:
                    break
    assert " ".join(str(n) for n in range(40)) == stream.generation.content
    assert endless.is_running


async def test_closing_the_client_wakes_readers(endless):
    """Closing the client ends the streams being read and the calls waiting, each with a clear error."""
    client = AsyncNeuralBox(**endless.client_options)
    stream = client.stream("gpt-5", "Hi")

    async def read() -> None:
        with pytest.raises(ClientClosedError) as caught:
            async with stream:
                await stream.until_done()
        assert caught.value.text.startswith("word ")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await asyncio.sleep(0.1)
        await client.aclose()
    await endless.wait_for_disconnect_async(2.0)


async def test_closing_the_client_ends_calls():
    """A call that waits for its answer ends when the client is closed, and says that it may be billed."""
    async with NeuralBoxServer(latency=30) as server:
        client = AsyncNeuralBox(**server.client_options)
        call = asyncio.ensure_future(client.generate("gpt-5", "Hi"))
        await server.wait_until_async(lambda: server.in_flight == 1)
        await client.aclose()
        with pytest.raises(ClientClosedError) as caught:
            await call
    assert ("unknown", 1) == (caught.value.billed, len(server.requests))


async def test_closing_a_stream_from_another_task(endless):
    """Closing a stream wakes its reader."""
    async with AsyncNeuralBox(**endless.client_options) as client, client.stream("gpt-5", "Hi") as stream:
        reader = asyncio.ensure_future(stream.until_done())
        await asyncio.sleep(0.05)
        await stream.aclose()
        with pytest.raises(StreamStateError, match="closed"):
            await reader


# --------------------------------------------------------------------------------------------------------- many loops


def test_loops_in_turn(server):
    """One client serves several event loops, one after the other."""
    client = AsyncNeuralBox(**server.client_options)

    async def once() -> str:
        return (await client.generate("gpt-5", "Hi")).content

    assert ["You said: Hi"] * 4 == [asyncio.run(once()) for _ in range(4)]
    asyncio.run(client.aclose())


def test_a_loop_that_was_closed_by_hand(server):
    """A loop that was closed without ado does not disturb the next."""
    client = AsyncNeuralBox(**server.client_options, reuse_connections=False)
    for _ in range(2):
        loop = asyncio.new_event_loop()
        assert "Hi" in loop.run_until_complete(client.generate("gpt-5", "Hi")).content
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_threads(server):
    """One client serves several threads, each with a loop of its own."""
    client = AsyncNeuralBox(**server.client_options)
    replies = []

    async def several(name: str) -> None:
        for reply in await asyncio.gather(*(client.generate("gpt-5", f"{name}-{n}") for n in range(5))):
            replies.append(reply.content)

    threads = [threading.Thread(target=lambda n=n: asyncio.run(several(str(n)))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sorted(f"You said: {name}-{n}" for name in range(8) for n in range(5)) == sorted(replies)
    asyncio.run(client.aclose())


def test_closing_from_another_loop(endless):
    """Closing in one loop closes what another loop has open."""
    client = AsyncNeuralBox(**endless.client_options)
    started = threading.Event()
    errors = []

    async def read() -> None:
        async with client.stream("gpt-5", "Hi") as stream:
            await anext(stream)
            started.set()
            await stream.until_done()

    def run() -> None:
        try:
            asyncio.run(read())
        except ClientClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    asyncio.run(client.aclose())
    thread.join(10)
    assert 1 == len(errors)


def test_nothing_is_left(server):
    """Clients that are never closed leave no warning and nothing on stderr, whatever ran on them."""
    program = f"""
import asyncio, gc, aiohttp
from neuralbox_async import AsyncNeuralBox
client = AsyncNeuralBox({server.api_key!r}, base_url={server.base_url!r})
async def main():
    await client.generate("gpt-5", "Hi")
    async with client.stream("gpt-5", "Hi") as stream:
        await anext(stream)
    assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()
for _ in range(4):
    asyncio.run(main())
async def dropped():
    await AsyncNeuralBox({server.api_key!r}, base_url={server.base_url!r}).generate("gpt-5", "Hi")
    gc.collect()
    await asyncio.sleep(0.05)
asyncio.run(dropped())
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # What asyncio's debug mode says of a machine that is slow just now is no leak.
    said = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert ("done\n", [], 0) == (done.stdout, said, done.returncode)


def test_no_loop():
    """Outside asyncio there is one clear error."""
    client = AsyncNeuralBox("key")
    coroutine = client.generate("gpt-5", "Hi")
    with pytest.raises((UnsupportedEventLoopError, RuntimeError)):
        coroutine.send(None)


def test_trio(server):
    """Under trio the error says what to use instead, and that way works."""
    trio = pytest.importorskip("trio")

    async def main() -> None:
        with pytest.raises(UnsupportedEventLoopError, match="neuralbox_sync"):
            await AsyncNeuralBox(**server.client_options).generate("gpt-5", "Hi")

    trio.run(main)


def test_uvloop(server):
    """uvloop is an asyncio loop like another."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> str:
        async with AsyncNeuralBox(**server.client_options) as client:
            async with client.stream("gpt-5", "Hi") as stream:
                await stream.until_done()
            return (await client.generate("gpt-5", "Hi")).content

    assert "Hi" in uvloop.run(main())


# ---------------------------------------------------------------------------------------------------------- in a fork


async def test_forgetting_what_was_inherited(server, client):
    """A forked child gives up the parent's connections without touching them."""
    await client.generate("gpt-5", "Hi")
    transport = client._caller.shared.transport
    (inherited,) = transport._sockets
    kept = inherited.dup()

    transport.forget_inherited()

    assert [] == list(transport._sockets)
    assert "Hi" in (await client.generate("gpt-5", "Hi")).content
    assert 2 == server.connections_accepted
    assert 2 == server.connections
    kept.close()


# ---------------------------------------------------------------------------------------------------- mocked by users


class Response(aiohttp.ClientResponse):
    """What aioresponses makes, with the argument that aiohttp 3.14 wants."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"stream_writer": SimpleNamespace(output_size=0), **kwargs})


@pytest.fixture
def mocked(monkeypatch):
    monkeypatch.setattr("aioresponses.core.ClientResponse", Response)
    with aioresponses() as mock:
        yield mock


REQUEST = SimpleNamespace(real_url="https://example.com")
URL = "https://neuralbox.top/api/v2/generate"


async def test_aioresponses(mocked):
    """Users who mock aiohttp can mock this SDK: a generation, a stream, an error."""
    mocked.post(URL, payload={"id": "gen_1", "content": "Hello"})
    mocked.post(URL, status=500, payload={"error": "provider_error"})
    mocked.post(
        URL,
        body=b'data: {"type": "content_delta", "delta": "Hi"}\n\ndata: [DONE]\n\n',
        content_type="text/event-stream",
    )
    async with AsyncNeuralBox("key", max_retries=0) as client:
        assert "Hello" == (await client.generate("gpt-5", "Hi")).content
        with pytest.raises(ProviderError):
            await client.generate("gpt-5", "Hi")
        async with client.stream("gpt-5", "Hi") as stream:
            assert "Hi" == (await stream.until_done()).content


@pytest.mark.parametrize(
    "exception, attempts, billed",
    [
        (aiohttp.ServerDisconnectedError(), 1, "unknown"),
        (ConnectionResetError("reset"), 1, "unknown"),
        (aiohttp.ClientConnectorError(None, OSError("refused")), 3, "no"),
        (aiohttp.ConnectionTimeoutError("late"), 3, "no"),
        (aiohttp.ClientHttpProxyError(REQUEST, (), status=407, message="who?"), 1, "no"),
        (aiohttp.ClientHttpProxyError(REQUEST, (), status=502, message="oops"), 3, "no"),
        (aiohttp.InvalidURL("x"), 1, "no"),
        (aiohttp.ServerFingerprintMismatch(b"a", b"b", "h", 1), 1, "no"),
        (aiohttp.ClientResponseError(REQUEST, (), status=400, message="bad"), 1, "unknown"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_mocked_failures(mocked, monkeypatch, exception, attempts, billed):
    """What a mock raises is understood as if it were real, and never shown as such."""
    monkeypatch.setattr(aiohttp.ClientConnectorError, "__str__", lambda _self: "refused")
    mocked.post(URL, exception=exception, repeat=True)
    async with AsyncNeuralBox("key", retry_policy=AT_ONCE) as client:
        with pytest.raises(APIConnectionError) as caught:
            await client.generate("gpt-5", "Hi")
    assert (attempts, billed) == (caught.value.attempts, caught.value.billed)
    assert caught.value.__cause__ is exception


def test_loop_is_not_kept_alive(server):
    """A client does not keep the loops that it has served."""
    client = AsyncNeuralBox(**server.client_options)

    async def once() -> weakref.ref:
        await client.generate("gpt-5", "Hi")
        return weakref.ref(asyncio.get_running_loop())

    first = asyncio.run(once())
    asyncio.run(once())
    gc.collect()
    assert first() is None


def test_start_is_quick():
    """Making a client opens nothing and starts nothing."""
    started = time.process_time()
    threads = threading.active_count()
    for _ in range(100):
        AsyncNeuralBox("key")
    assert threads == threading.active_count()
    assert time.process_time() - started < 5
