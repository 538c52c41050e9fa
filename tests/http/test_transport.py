"""The transport on aiohttp, over real sockets: connections, failures and recovery."""

from __future__ import annotations

import asyncio
import gzip

import anyio
import pytest

from neuralbox_async import (
    APIConnectionError,
    APITimeoutError,
    AsyncNeuralBox,
    AuthenticationError,
    ProviderError,
    ResponseError,
    StreamInterruptedError,
)
from neuralbox_async.testing import NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")


async def test_generate(server, client):
    """`generate` returns the generation, which is billed once."""
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
    """A stream yields text, and its generation is the one that `generate` returns."""
    async with client.stream("gpt-5", "Hello there") as stream:
        text = "".join([text async for text in stream.text_stream])

    assert text == stream.generation.content == (await client.generate("gpt-5", "Hello there")).content
    assert stream.generation.completed
    assert 2 == len(server.billed)


@pytest.mark.parametrize("dialect", ["a", "b"])
async def test_dialects(dialect):
    """Both dialects of the API work, with `generate`, `stream` and `retrieve`, and so do both status paths."""
    async with NeuralBoxServer(dialect=dialect, status_paths=(dialect,)) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            reply = await client.generate("gpt-5", "Hello")
            async with client.stream("gpt-5", "Hello") as stream:
                streamed = await stream.get_final_generation()
            again = await client.retrieve(reply)

    assert reply.content == streamed.content == again.content
    assert 2 == reply.tokens_used == streamed.tokens_used


async def test_connections_are_reused(server, client):
    """Sequential calls, and streams that are read to their end, share one connection."""
    for _ in range(3):
        await client.generate("gpt-5", "Hi")
        async with client.stream("gpt-5", "Hi") as stream:
            await stream.get_final_generation()
    with pytest.raises(AuthenticationError):
        await client.with_options(api_key="wrong").generate("gpt-5", "Hi")

    assert 1 == server.connections_accepted


async def test_reuse_connections(server):
    """With reuse_connections=False, each call has a connection of its own."""
    async with AsyncNeuralBox(**server.client_options, reuse_connections=False) as client:
        for _ in range(3):
            await client.generate("gpt-5", "Hi")
    assert 3 == server.connections_accepted


async def test_max_connections():
    """At most *max_connections* calls are in flight; the others wait, and none is lost."""
    async with (
        NeuralBoxServer(latency=0.01) as server,
        AsyncNeuralBox(**server.client_options, max_connections=4) as client,
    ):
        replies = await asyncio.gather(*(client.generate("gpt-5", f"Number {n}") for n in range(40)))

    assert [f"Number {n}" in reply.content for n, reply in enumerate(replies)] == [True] * 40
    assert server.peak_in_flight <= 4
    assert 40 == len(server.billed)


async def test_a_timeout_while_waiting_for_a_connection():
    """A call that times out while it waits for a connection was not sent."""
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
    """A request of several megabytes is sent without a warning."""
    text = "word " * 1_000_000
    usage = (await client.generate("gpt-5", text, max_tokens=3)).usage

    assert usage is not None
    assert len(text) < len(server.requests[0].body)


async def test_compressed_responses(server):
    """The bound of a response counts its bytes after decompression."""
    bomb = gzip.compress(b'{"id": 1, "content": "' + b"0" * 50_000_000 + b'"}')
    server.fail(200, body=bomb, headers={"Content-Encoding": "gzip"})
    client = AsyncNeuralBox(**server.client_options, max_response_bytes=1_000_000)
    async with client:
        with pytest.raises(ResponseError, match="larger than 1,000,000 bytes"):
            await client.generate("gpt-5", "Hi")

    await server.wait_until_async(lambda: server.connections == 0)


async def test_refused_connections(server, client):
    """A refused connection is retried, and the error says that nothing was sent."""
    server.close()
    with pytest.raises(APIConnectionError) as caught:
        await client.generate("gpt-5", "Hi")
    assert (False, "no", 3) == (caught.value.request_sent, caught.value.billed, caught.value.attempts)


@pytest.mark.parametrize("when, billed", [("before", 0), ("after", 1)])
@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_dropped_connections(server, client, when, how, billed):
    """A connection that breaks after the request is not retried: it may have been billed."""
    server.drop(when, how=how)
    with pytest.raises(APIConnectionError) as caught:
        await client.generate("gpt-5", "Hi")

    assert ("unknown", 1, True) == (caught.value.billed, caught.value.attempts, caught.value.request_sent)
    assert billed == len(server.billed)
    assert 1 == len(server.requests)


async def test_free_failures_are_retried(server, client):
    """Failures that are documented as never charged are retried, and the success is billed once."""
    server.fail(500, code="provider_error")
    server.fail(503, code="model_unavailable")

    assert "Hi" in (await client.generate("gpt-5", "Hi")).content
    assert (3, 1) == (len(server.requests), len(server.billed))

    server.fail(500, times=3, code="provider_error")
    with pytest.raises(ProviderError):
        await client.generate("gpt-5", "Hi")


async def test_cut_stream_is_recovered(server, client):
    """The missing text of a broken stream is requested from the status endpoint; the generation is billed once."""
    server.cut(4, how="reset", finish=True)
    async with client.stream("gpt-5", "one two three four five") as stream:
        text = "".join([text async for text in stream.text_stream])

    assert "one two three four five" in text
    assert stream.generation.completed
    assert 1 == len(server.billed)
    assert ["POST", "GET"] == [request.method for request in server.requests]


async def test_cut_stream_without_recovery(server, client):
    """Without recovery, the error has the text that arrived."""
    server.cut(4, how="eof")
    with pytest.raises(StreamInterruptedError) as caught:
        async with client.stream("gpt-5", "one two three four five", recover=False) as stream:
            await stream.get_final_generation()

    assert (True, "unknown") == (caught.value.text != "", caught.value.billed)
    assert caught.value.text == stream.generation.content
    assert 0 == len(server.billed)


async def test_stalled_stream(server, client):
    """A stalled stream ends after its stall timeout, and its connection is closed."""
    server.stall(3)
    with anyio.fail_after(10), pytest.raises(StreamInterruptedError):
        async with client.stream("gpt-5", "one two three", stall_timeout=0.1, recover=False) as stream:
            await stream.get_final_generation()
    await server.wait_for_disconnect_async()


async def test_pending_generations():
    """`wait` polls until a pending generation is completed."""
    async with NeuralBoxServer(pending_models=("slow",), pending_seconds=0.05) as server:
        async with AsyncNeuralBox(**server.client_options) as other:
            pending = await other.generate("slow", "Hi")
            assert "pending" == pending.status
            assert "Hi" in (await other.wait(pending, poll_interval=0.02)).content
    assert 1 == len(server.billed)
