"""The types of the values of batches and streams, for mypy, pyright and pyrefly; never run."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal, assert_type

import attrs

from neuralbox_async import AsyncBatch, AsyncNeuralBox, AsyncStream, BatchResult, Generation
from neuralbox_sync import Batch, NeuralBox, Stream


@attrs.frozen
class Word:
    text: str
    length: int


async def batches(client: AsyncNeuralBox) -> None:
    async with client.generate_many(["Hi"], model="gpt-5", output_type=Word, max_repairs=2) as results:
        assert_type(results, AsyncBatch[Word])
        async for result in results:
            assert_type(result, BatchResult[Word])
            assert_type(result.value, Word | None)
            assert_type(result.unwrap(), Generation)
        assert_type(await results.read_batch(), list[BatchResult[Word]])
    lists = client.generate_many(["Hi"], model="gpt-5", output_type=list[int])
    assert_type((await anext(lists)).value, list[int] | None)


async def streams(client: AsyncNeuralBox) -> None:
    async with client.stream("gpt-5", "Hi", output_type=Word) as stream:
        assert_type(stream, AsyncStream[Word])
        assert_type(stream.partials(), AsyncIterator[Any])
        assert_type(await stream.get_final_value(), Word)


async def untyped(client: AsyncNeuralBox, batch: AsyncBatch, stream: AsyncStream, result: BatchResult) -> None:
    batch = client.generate_many(["Hi"], model="gpt-5")
    stream = client.stream("gpt-5", "Hi")
    result = await anext(batch)
    assert_type(result.generation, Generation | None)
    assert_type(await stream.get_final_generation(), Generation)


def takes_any(batch: AsyncBatch, stream: Stream, result: BatchResult) -> None: ...


def annotations_without_a_type(client: AsyncNeuralBox, blocking: NeuralBox, result: BatchResult[Word]) -> None:
    takes_any(client.generate_many(["Hi"], output_type=Word), blocking.stream("gpt-5", "Hi", output_type=Word), result)


def blocking_batches(client: NeuralBox) -> None:
    with client.generate_many(["Hi"], model="gpt-5", output_type=Word, max_repairs=2) as results:
        assert_type(results, Batch[Word])
        for result in results:
            assert_type(result, BatchResult[Word])
            assert_type(result.value, Word | None)


def blocking_streams(client: NeuralBox) -> None:
    with client.stream("gpt-5", "Hi", output_type=Word) as stream:
        assert_type(stream, Stream[Word])
        assert_type(stream.partials(), Iterator[Any])
        assert_type(stream.get_final_value(), Word)


def special_forms(client: AsyncNeuralBox, word: type[Word] | None, dynamic: Any) -> None:
    assert_type(client.generate_many(["Hi"], output_type=Word | int), AsyncBatch[Word | int])
    assert_type(client.generate_many(["Hi"], output_type=Literal["a", "b"]), AsyncBatch[Literal["a", "b"]])
    assert_type(client.generate_many(["Hi"], output_type=Annotated[int, "in meters"]), AsyncBatch[int])
    assert_type(client.generate_many(["Hi"], output_type=dynamic), AsyncBatch[Any])
    assert_type(client.generate_many(["Hi"]), AsyncBatch[Any])
    takes_any(
        client.generate_many(["Hi"], output_type=word),
        NeuralBox().stream("m", "Hi", output_type=word),
        BatchResult(index=0, key=0),
    )
    assert_type(client.stream("gpt-5", "Hi", output_type=Word | int), AsyncStream[Word | int])
    assert_type(client.stream("gpt-5", "Hi", output_type=Literal["a", "b"]), AsyncStream[Literal["a", "b"]])
    assert_type(client.stream("gpt-5", "Hi", output_type=Annotated[int, "in meters"]), AsyncStream[int])


def blocking_special_forms(client: NeuralBox) -> None:
    assert_type(client.generate_many(["Hi"], output_type=Word | int), Batch[Word | int])
    assert_type(client.generate_many(["Hi"], output_type=Literal["a", "b"]), Batch[Literal["a", "b"]])
    assert_type(client.generate_many(["Hi"], output_type=Annotated[int, "in meters"]), Batch[int])
    assert_type(client.generate_many(["Hi"]), Batch[Any])
    assert_type(client.stream("gpt-5", "Hi", output_type=Word | int), Stream[Word | int])
    assert_type(client.stream("gpt-5", "Hi", output_type=Literal["a", "b"]), Stream[Literal["a", "b"]])
    assert_type(client.stream("gpt-5", "Hi"), Stream[Any])


def rejected(client: AsyncNeuralBox, blocking: NeuralBox) -> None:
    client.generate_many(["Hi"], output_type=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    blocking.stream("gpt-5", "Hi", output_type=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
