"""The same faults through `NeuralBox`: its errors have the same facts as those of `AsyncNeuralBox`."""

from __future__ import annotations

import asyncio

import pytest
from broken_responses import BROKEN_BODIES, BROKEN_STREAMS
from fault_server import events, respond_once, respond_to_each, response

from neuralbox_async import AsyncNeuralBox, NeuralBoxError, RetryPolicy
from neuralbox_sync import NeuralBox

NO_BACKOFF = RetryPolicy(jitter=lambda _low, _high: 0.0)

CALLS = {
    **{name: script for name, (script, _) in BROKEN_BODIES.items()},
    "no response": respond_once(),
    "reset": respond_once(then="reset"),
    "half a head": respond_once(b"HTTP/1.1 200 OK\r\nContent-"),
    "not HTTP": respond_once(b"ICY 200 OK\r\n\r\n"),
    "redirect": respond_once(b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"),
    "unauthorised": respond_to_each(response({"error": "not_authenticated"}, status="401 No")),
    "out of tokens": respond_to_each(response({"error": "insufficient_tokens"}, status="402 No")),
    "throttled for long": respond_to_each(
        response({"error": "rate_limit_exceeded", "retry_after": 847}, status="429 Slow")
    ),
    "provider": respond_to_each(response({"error": "provider_error"}, status="500 No")),
    "gateway": respond_to_each(response(b"<html>", status="502 Bad")),
    "failed": respond_to_each(response({"id": 7, "status": "failed", "error": "policy"})),
}


def options_for(server) -> dict:
    return {"api_key": "nb_test_key", "base_url": server.url, "timeout": 5, "retry_policy": NO_BACKOFF}


def facts(error: NeuralBoxError, server) -> tuple:
    """Return the facts of *error* and the number of POST requests."""
    of_the_error = (type(error), error.billed, error.request_sent, error.attempts, error.text, error.generation_id)
    return (*of_the_error, server.posts)


def failure_of_async(server, run) -> NeuralBoxError:
    async def main() -> NeuralBoxError:
        async with AsyncNeuralBox(**options_for(server)) as client:
            with pytest.raises(NeuralBoxError) as caught:
                await run(client)
            return caught.value

    return asyncio.run(main())


@pytest.mark.parametrize("script", CALLS.values(), ids=CALLS)
def test_calls(serve, script):
    """A blocking call that fails has the same error and the same number of requests as an async one."""
    async_server, blocking_server = serve(script), serve(script)
    expected = failure_of_async(async_server, lambda client: client.generate("gpt-5", "Hi"))

    with NeuralBox(**options_for(blocking_server)) as client:
        with pytest.raises(NeuralBoxError) as caught:
            client.generate("gpt-5", "Hi")
        assert facts(expected, async_server) == facts(caught.value, blocking_server)


async def read_async(client) -> None:
    async with client.stream("gpt-5", "Hi", recover=False) as stream:
        await stream.get_final_generation()


@pytest.mark.parametrize("script", BROKEN_STREAMS.values(), ids=BROKEN_STREAMS)
def test_streams(serve, script):
    """A blocking stream that breaks has the same text and the same error as an async one."""
    async_server, blocking_server = serve(script), serve(script)
    expected = failure_of_async(async_server, read_async)
    pieces = []

    with NeuralBox(**options_for(blocking_server)) as client:
        with pytest.raises(NeuralBoxError) as caught, client.stream("gpt-5", "Hi", recover=False) as stream:
            pieces.extend(stream.text_stream)
        assert facts(expected, async_server) == facts(caught.value, blocking_server)
    assert expected.text == "".join(pieces)


def test_complete_stream(serve):
    """A blocking stream that does not break yields the whole text."""
    server = serve(respond_to_each(response(events("Hello ", "world"), content_type="text/event-stream")))
    with NeuralBox(**options_for(server)) as client, client.stream("gpt-5", "Hi") as stream:
        assert "Hello world" == "".join(stream.text_stream)
    assert 1 == server.posts
