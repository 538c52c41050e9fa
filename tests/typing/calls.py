"""What type checkers must accept, and what they must refuse: read by mypy and pyright, never run."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import assert_type

from neuralbox_async import (
    AsyncNeuralBox,
    AsyncStream,
    ContentDelta,
    Generation,
    GenerationEnd,
    GenerationStart,
    ImagePart,
    Message,
    RateLimitError,
    TextPart,
    UnknownEvent,
    Usage,
)
from neuralbox_sync import NeuralBox, Stream


async def accepted(client: AsyncNeuralBox) -> None:
    reply = await client.generate("gpt-5", "Hi", system="x", temperature=1, max_tokens=None, wait=True, timeout=None)
    assert_type(reply, Generation)
    assert_type(reply.content, str)
    assert_type(reply.tokens_used, int | None)
    assert_type(reply.usage, Usage | None)
    assert_type(reply.created_at, datetime | None)
    await client.generate("gpt-5", [{"role": "user", "content": "Hi"}, Message("assistant", "Hello")])
    await client.generate("gpt-5", Message("user", [TextPart("What?"), ImagePart("https://x")]))
    await client.generate("gpt-5", ({"role": "user", "content": text} for text in ["Hi"]))
    async with client.stream("gpt-5", "Hi") as stream:
        assert_type(stream, AsyncStream)
        assert_type(stream.text, AsyncIterator[str])
        async for event in stream:
            assert_type(event, GenerationStart | ContentDelta | GenerationEnd | UnknownEvent)
    assert_type(await stream.until_done(), Generation)
    assert_type(await client.retrieve(reply), Generation)
    assert_type(await client.wait(18473, timeout=None), Generation)
    assert_type(client.with_options(timeout=3), AsyncNeuralBox)
    async with AsyncNeuralBox(api_key=lambda: "key", timeout=None) as other:
        assert_type(other, AsyncNeuralBox)


async def refused(client: AsyncNeuralBox) -> None:
    await client.generate("gpt-5")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.generate("gpt-5", "Hi", "Be brief.")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.generate("gpt-5", "Hi", temperature="hot")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.generate("gpt-5", "Hi", stream=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.generate(5, "Hi")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.stream("gpt-5", "Hi", wait=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def blocking(client: NeuralBox) -> None:
    reply = client.generate("gpt-5", "Hi", system="x", temperature=1, max_tokens=None, wait=True, timeout=None)
    assert_type(reply, Generation)
    with client.stream("gpt-5", "Hi") as stream:
        assert_type(stream, Stream)
        for event in stream:
            assert_type(event, GenerationStart | ContentDelta | GenerationEnd | UnknownEvent)
        assert_type(stream.generation, Generation)
        assert_type(stream.until_done(), Generation)
    assert_type(client.retrieve(reply), Generation)
    assert_type(client.wait(18473, timeout=None), Generation)
    assert_type(client.with_options(timeout=3), NeuralBox)
    with NeuralBox("key", timeout=None) as other:
        assert_type(other, NeuralBox)


def blocking_refused(client: NeuralBox) -> None:
    client.generate("gpt-5")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.generate("gpt-5", "Hi", temperature="hot")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.generate("gpt-5", "Hi", stream=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.stream("gpt-5", "Hi", wait=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    NeuralBox(timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def errors(error: RateLimitError) -> None:
    assert_type(error.retry_after, float | None)
    assert_type(error.status, int)
