"""The same faults through the blocking side: whatever breaks, both sides tell the same of it."""

from __future__ import annotations

import asyncio

import pytest
from fault_server import answer, events, replies, serves
from test_broken_streams import BROKEN_STREAMS
from test_response_bodies import BROKEN_BODIES

from neuralbox_async import AsyncNeuralBox, NeuralBoxError, RetryPolicy
from neuralbox_sync import NeuralBox

AT_ONCE = RetryPolicy(jitter=lambda _low, _high: 0.0)

CALLS = {
    **{name: script for name, (script, _) in BROKEN_BODIES.items()},
    "nothing at all": replies(),
    "reset": replies(then="reset"),
    "half a head": replies(b"HTTP/1.1 200 OK\r\nContent-"),
    "no HTTP": replies(b"ICY 200 OK\r\n\r\n"),
    "redirect": replies(b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"),
    "unauthorised": serves(answer({"error": "not_authenticated"}, status="401 No")),
    "out of tokens": serves(answer({"error": "insufficient_tokens"}, status="402 No")),
    "throttled for long": serves(answer({"error": "rate_limit_exceeded", "retry_after": 847}, status="429 Slow")),
    "provider": serves(answer({"error": "provider_error"}, status="500 No")),
    "gateway": serves(answer(b"<html>", status="502 Bad")),
    "failed": serves(answer({"id": 7, "status": "failed", "error": "policy"})),
}


def told(server) -> dict:
    return {"api_key": "nb_test_key", "base_url": server.url, "timeout": 5, "retry_policy": AT_ONCE}


def facts(error: NeuralBoxError, server) -> tuple:
    """What a failure tells, and how many requests the server saw for it."""
    told_of_both = (type(error), error.billed, error.request_sent, error.attempts, error.text, error.generation_id)
    return (*told_of_both, server.posts)


def failure_of_async(server, run) -> NeuralBoxError:
    async def main() -> NeuralBoxError:
        async with AsyncNeuralBox(**told(server)) as client:
            with pytest.raises(NeuralBoxError) as caught:
                await run(client)
            return caught.value

    return asyncio.run(main())


@pytest.mark.parametrize("script", CALLS.values(), ids=CALLS)
def test_calls(serve, script):
    """A call that breaks tells the same, sent as often, whether it blocks or not."""
    awaited, blocked = serve(script), serve(script)
    expected = failure_of_async(awaited, lambda client: client.generate("gpt-5", "Hi"))

    with NeuralBox(**told(blocked)) as client:
        with pytest.raises(NeuralBoxError) as caught:
            client.generate("gpt-5", "Hi")
        assert facts(expected, awaited) == facts(caught.value, blocked)


async def read_async(client) -> None:
    async with client.stream("gpt-5", "Hi", recover=False) as stream:
        await stream.get_final_generation()


@pytest.mark.parametrize("script", BROKEN_STREAMS.values(), ids=BROKEN_STREAMS)
def test_streams(serve, script):
    """A stream that breaks gives the same text and the same error, whether it blocks or not."""
    awaited, blocked = serve(script), serve(script)
    expected = failure_of_async(awaited, read_async)
    pieces = []

    with NeuralBox(**told(blocked)) as client:
        with pytest.raises(NeuralBoxError) as caught, client.stream("gpt-5", "Hi", recover=False) as stream:
            pieces.extend(stream.text_stream)
        assert facts(expected, awaited) == facts(caught.value, blocked)
    assert expected.text == "".join(pieces)


def test_whole_stream(serve):
    """A stream that does not break is whole."""
    server = serve(serves(answer(events("Hello ", "world"), kind="text/event-stream")))
    with NeuralBox(**told(server)) as client, client.stream("gpt-5", "Hi") as stream:
        assert "Hello world" == "".join(stream.text_stream)
    assert 1 == server.posts
