"""The most frequent mistakes of callers: each has an error whose message says what to do, in the caller's own world."""

from __future__ import annotations

import asyncio
import re

import attrs
import pytest

from neuralbox_async import AsyncNeuralBox, BatchStateError, InvalidParameterError, NotFoundError, StreamStateError
from neuralbox_async.testing import NeuralBoxServer
from neuralbox_sync import NeuralBox


@pytest.fixture(scope="module")
def server():
    with NeuralBoxServer() as server:
        yield server


@attrs.frozen
class Row:
    """A *mistake* as a function of a client, plain or async, and its *error* with the whole *message*."""

    mistake: object
    error: type
    message: str


async def text():
    return "Hi"


def generate(*args, **options):
    return lambda client: client.generate(*args, **options)


# Mistakes that are written alike in async and in blocking code.
BOTH = {
    "model and prompt are swapped": Row(
        generate("Write a haiku", "gpt-5"),
        InvalidParameterError,
        "model must be a model slug, without spaces (it comes before the messages), not 'Write a haiku'",
    ),
    "model and messages are swapped": Row(
        generate([{"role": "user", "content": "Hi"}], "gpt-5"),
        InvalidParameterError,
        "model must be a model slug, such as 'gpt-5', not [{'role': 'user', 'content': 'Hi'}]",
    ),
    "no model": Row(generate("", "Hi"), InvalidParameterError, "model must be a model slug, such as 'gpt-5', not ''"),
    "no messages": Row(
        generate("gpt-5", []),
        InvalidParameterError,
        "messages must be a string or a non-empty list of messages, not []",
    ),
    "None for the messages": Row(
        generate("gpt-5", None),
        InvalidParameterError,
        "messages must be a string or a non-empty list of messages, not None",
    ),
    "a text in the list of messages": Row(
        generate("gpt-5", ["Hi"]),
        InvalidParameterError,
        "messages[] must be a Message or a dict with 'role' and 'content' (a text alone needs no list), not 'Hi'",
    ),
    "a message without a role": Row(
        generate("gpt-5", [{"content": "Hi"}]),
        InvalidParameterError,
        "messages[].role must be 'system', 'user' or 'assistant', not None",
    ),
    "a role of another API": Row(
        generate("gpt-5", [{"role": "developer", "content": "Hi"}]),
        InvalidParameterError,
        "messages[].role must be 'system', 'user' or 'assistant', not 'developer'",
    ),
    "a message with text instead of content": Row(
        generate("gpt-5", [{"role": "user", "text": "Hi"}]),
        InvalidParameterError,
        "messages[].content must be a string or a non-empty list of parts, not None",
    ),
    "the member stream of the API": Row(
        generate("gpt-5", "Hi", extra_body={"stream": True}),
        InvalidParameterError,
        "extra_body must be without 'stream': call stream() instead, not {'stream': True}",
    ),
    "percent for the temperature": Row(
        generate("gpt-5", "Hi", temperature=70),
        InvalidParameterError,
        "temperature must be a number from 0.0 to 2.0, or None, not 70",
    ),
    "milliseconds in a string": Row(
        generate("gpt-5", "Hi", timeout="500"),
        InvalidParameterError,
        "timeout must be a positive number of seconds, or None, not '500'",
    ),
    "an empty prompt": Row(
        generate("gpt-5", " "), InvalidParameterError, "prompt must be text that is not empty, not ' '"
    ),
    "a prompt instead of a list of prompts": Row(
        lambda client: client.generate_many("Hi", model="gpt-5"),
        InvalidParameterError,
        "requests must be an iterable or async iterable of requests, dicts or strings, not 'Hi'",
    ),
}


async def second_iteration(client):
    async with client.stream("gpt-5", "Hi") as stream:
        assert "You said: Hi" == "".join([text async for text in stream.text_stream])
        async for _ in stream.text_stream:
            pass


async def second_iteration_of_events(client):
    async with client.stream("gpt-5", "Hi") as stream:
        await stream.get_final_generation()
        async for _ in stream:
            pass


async def iteration_after_the_block(client):
    async with client.stream("gpt-5", "Hi") as stream:
        pass
    async for _ in stream:
        pass


async def stream_without_a_block(client):
    async for _ in client.stream("gpt-5", "Hi"):
        pass


async def final_generation_without_a_block(client):
    await client.stream("gpt-5", "Hi").get_final_generation()


async def batch_without_a_block(client):
    async for _ in client.generate_many(["Hi"], model="gpt-5"):
        pass


async def with_instead_of_async_with(client):
    with client:
        pass


async def stream_in_with(client):
    with client.stream("gpt-5", "Hi"):
        pass


async def batch_in_with(client):
    with client.generate_many(["Hi"], model="gpt-5"):
        pass


def for_instead_of_async_for(make):
    async def mistake(client):
        for _ in make(client):
            pass

    return mistake


async def missing_await(client):
    generation = client.generate("gpt-5", "Hi")
    try:
        await client.retrieve(generation)
    finally:
        generation.close()


async def missing_await_in_messages(client):
    prompt = text()
    try:
        await client.generate("gpt-5", prompt)
    finally:
        prompt.close()


READ = "the stream was read to its end, and can be read only once; `generation` has its text"
CLOSED = "the stream is closed: read it inside the block that opened it"
ASYNC = {
    "second iteration": Row(second_iteration, StreamStateError, READ),
    "second iteration of events": Row(second_iteration_of_events, StreamStateError, READ),
    "iteration after the block": Row(iteration_after_the_block, StreamStateError, CLOSED),
    "stream without a block": Row(
        stream_without_a_block,
        StreamStateError,
        "the stream is not open: use `async with client.stream(...) as stream`",
    ),
    "final generation without a block": Row(
        final_generation_without_a_block,
        StreamStateError,
        "the stream is not open: use `async with client.stream(...) as stream`",
    ),
    "batch without a block": Row(
        batch_without_a_block,
        BatchStateError,
        "the batch is not entered: use `async with client.generate_many(...) as results`",
    ),
    "with instead of async with": Row(
        with_instead_of_async_with,
        TypeError,
        "AsyncNeuralBox needs `async with`, not `with`; blocking code uses neuralbox_sync",
    ),
    "stream in with": Row(
        stream_in_with, TypeError, "AsyncStream needs `async with`, not `with`; blocking code uses neuralbox_sync"
    ),
    "batch in with": Row(
        batch_in_with, TypeError, "AsyncBatch needs `async with`, not `with`; blocking code uses neuralbox_sync"
    ),
    "stream in for": Row(
        for_instead_of_async_for(lambda client: client.stream("gpt-5", "Hi")),
        TypeError,
        "AsyncStream needs `async for`, not `for`; blocking code uses neuralbox_sync",
    ),
    "texts of a stream in for": Row(
        for_instead_of_async_for(lambda client: client.stream("gpt-5", "Hi").text_stream),
        TypeError,
        "TextStream needs `async for`, not `for`; blocking code uses neuralbox_sync",
    ),
    "partials in for": Row(
        for_instead_of_async_for(lambda client: client.stream("gpt-5", "Hi", output_type=int).partials()),
        TypeError,
        "Partials needs `async for`, not `for`; blocking code uses neuralbox_sync",
    ),
    "batch in for": Row(
        for_instead_of_async_for(lambda client: client.generate_many(["Hi"], model="gpt-5")),
        TypeError,
        "AsyncBatch needs `async for`, not `for`; blocking code uses neuralbox_sync",
    ),
    "history in for": Row(
        for_instead_of_async_for(lambda client: client.list_generations()),
        TypeError,
        "AsyncHistory needs `async for`, not `for`; blocking code uses neuralbox_sync",
    ),
    "missing await": Row(
        missing_await,
        InvalidParameterError,
        "generation must be a generation with an id, or an id, not <coroutine object>, which was not awaited",
    ),
    "missing await in messages": Row(
        missing_await_in_messages,
        InvalidParameterError,
        "messages must be a string or a non-empty list of messages, not <coroutine object>, which was not awaited",
    ),
}


def blocking_second_iteration(client):
    with client.stream("gpt-5", "Hi") as stream:
        assert "You said: Hi" == "".join(stream.text_stream)
        list(stream.text_stream)


def blocking_second_iteration_of_events(client):
    with client.stream("gpt-5", "Hi") as stream:
        stream.get_final_generation()
        list(stream)


def blocking_iteration_after_the_block(client):
    with client.stream("gpt-5", "Hi") as stream:
        pass
    list(stream)


def blocking_report_without_a_block(client):
    client.generate_many(["Hi"], model="gpt-5").report


async def async_with_instead_of_with(client):
    async with client:
        pass


async def blocking_stream_in_async_with(client):
    async with client.stream("gpt-5", "Hi"):
        pass


NOT_OPEN = "the stream is not open: use `with client.stream(...) as stream`"
NOT_ENTERED = "the batch is not entered: use `with client.generate_many(...) as results`"
BLOCKING = {
    "second iteration": Row(blocking_second_iteration, StreamStateError, READ),
    "second iteration of events": Row(blocking_second_iteration_of_events, StreamStateError, READ),
    "iteration after the block": Row(blocking_iteration_after_the_block, StreamStateError, CLOSED),
    "stream without a block": Row(lambda client: list(client.stream("gpt-5", "Hi")), StreamStateError, NOT_OPEN),
    "texts without a block": Row(
        lambda client: list(client.stream("gpt-5", "Hi").text_stream), StreamStateError, NOT_OPEN
    ),
    "final generation without a block": Row(
        lambda client: client.stream("gpt-5", "Hi").get_final_generation(), StreamStateError, NOT_OPEN
    ),
    "batch without a block": Row(
        lambda client: list(client.generate_many(["Hi"], model="gpt-5")), BatchStateError, NOT_ENTERED
    ),
    "report without a block": Row(blocking_report_without_a_block, BatchStateError, NOT_ENTERED),
    "async with instead of with": Row(
        async_with_instead_of_with,
        TypeError,
        "NeuralBox needs `with`, not `async with`; async code uses neuralbox_async",
    ),
    "stream in async with": Row(
        blocking_stream_in_async_with,
        TypeError,
        "Stream needs `with`, not `async with`; async code uses neuralbox_async",
    ),
}


async def message_of(row, client):
    """Return the message of the error of *row*, without what differs from run to run."""
    with pytest.raises(row.error) as caught:
        if asyncio.iscoroutine(result := row.mistake(client)):
            await result
    assert row.error is caught.type
    return re.sub(r"<coroutine object .*?>", "<coroutine object>", str(caught.value))


@pytest.mark.parametrize("row", [*BOTH.values(), *ASYNC.values()], ids=[*BOTH, *ASYNC])
async def test_async_code(server, row):
    """The message of each mistake in async code."""
    async with AsyncNeuralBox(**server.client_options) as client:
        assert row.message == await message_of(row, client)


@pytest.mark.parametrize("row", [*BOTH.values(), *BLOCKING.values()], ids=[*BOTH, *BLOCKING])
async def test_blocking_code(server, row):
    """The message of each mistake in blocking code; none recommends what only async code has."""
    with NeuralBox(**server.client_options) as client:
        message = await message_of(row, client)
    assert row.message == message
    assert not re.search(r"await|aclose|Async", message)


@pytest.mark.parametrize(
    "base_url", ["/", "/api", "/api/v2/generate"], ids=["no path", "half a path", "a path that is too long"]
)
async def test_wrong_base_url(server, base_url):
    """The 404 of a wrong `base_url` names the URL that the client used."""
    url = server.base_url.removesuffix("/api/v2") + base_url
    where = f" (POST {url.rstrip('/')}/generate)"
    async with AsyncNeuralBox(server.api_key, base_url=url) as client:
        with pytest.raises(NotFoundError) as caught:
            await client.generate("gpt-5", "Hi")
    with NeuralBox(server.api_key, base_url=url) as client, pytest.raises(NotFoundError) as caught_again:
        client.generate("gpt-5", "Hi")

    assert str(caught.value) == str(caught_again.value)
    assert caught.value.message.startswith("404")
    assert caught.value.message.endswith(where)


async def test_a_stream_can_be_read_in_parts(server):
    """An iteration that is left early and begun again goes on: only one that would be empty is an error."""
    async with AsyncNeuralBox(**server.client_options) as client, client.stream("gpt-5", "one two") as stream:
        parts = [await anext(stream.text_stream)]
        async for part in stream.text_stream:
            parts.append(part)
            break
        parts += [part async for part in stream.text_stream]
        assert "You said: one two" == "".join(parts)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


def test_a_blocking_stream_can_be_read_in_parts(server):
    """The same in blocking code, where events that have arrived are kept until they are read."""
    with NeuralBox(**server.client_options) as client, client.stream("gpt-5", "one two") as stream:
        parts = []
        for part in stream.text_stream:
            parts.append(part)
            break
        parts += list(stream.text_stream)
        assert "You said: one two" == "".join(parts)
        assert next(stream, None) is None
