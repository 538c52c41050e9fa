"""Code that type checkers must accept, and code that they must reject, for mypy, pyright and pyrefly; never run."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import assert_type

from neuralbox_async import (
    Account,
    AccountStats,
    AsyncBatch,
    AsyncHistory,
    AsyncNeuralBox,
    AsyncStream,
    Balance,
    BatchProgress,
    BatchReport,
    BatchResult,
    CallEnded,
    ClientUsage,
    ContentDelta,
    Estimate,
    Event,
    GenerateRequest,
    Generation,
    GenerationEnd,
    GenerationFailedError,
    GenerationStart,
    HistoryEntry,
    ImagePart,
    JournalEntry,
    Message,
    Model,
    ModelUsage,
    NeuralBoxError,
    Observer,
    Price,
    RateLimitError,
    Requests,
    ResponseInfo,
    StreamInterruptedError,
    TextPart,
    UnknownEvent,
    Usage,
    UsageTotals,
    WaitTimeoutError,
    read_journal,
)
from neuralbox_async.otel import OpenTelemetryObserver
from neuralbox_sync import Batch, History, NeuralBox, Stream


async def accepted(client: AsyncNeuralBox) -> None:
    reply = await client.generate("gpt-5", "Hi", system="x", temperature=1, max_tokens=None, wait=True, timeout=None)
    assert_type(reply, Generation)
    assert_type(reply.content, str)
    assert_type(reply.tokens_used, int | None)
    assert_type(reply.usage, Usage | None)
    assert_type(reply.created_at, datetime | None)
    await client.generate("gpt-5", [{"role": "user", "content": "Hi"}, Message("assistant", "Hello")])
    await client.generate("gpt-5", [Message("user", "Hi"), reply, {"role": "user", "content": "And?"}])
    await client.generate("gpt-5", Message("user", [TextPart("What?"), ImagePart("https://x")]))
    await client.generate("gpt-5", ({"role": "user", "content": text} for text in ["Hi"]))
    async with client.stream("gpt-5", "Hi") as stream:
        assert_type(stream, AsyncStream)
        assert_type(stream.text_stream, AsyncIterator[str])
        async for event in stream:
            assert_type(event, GenerationStart | ContentDelta | GenerationEnd | UnknownEvent)
    assert_type(await stream.get_final_generation(), Generation)
    assert_type(await client.stream("gpt-5", "Hi").open(wait_for="first_event"), AsyncStream)
    assert_type(await client.retrieve(reply), Generation)
    assert_type(await client.wait(18473, timeout=None), Generation)
    assert_type(client.with_options(timeout=3), AsyncNeuralBox)
    async with AsyncNeuralBox(api_key=lambda: "key", timeout=None) as other:
        assert_type(other, AsyncNeuralBox)


async def accepted_batches(client: AsyncNeuralBox, awaited: AsyncIterator[str]) -> None:
    def show(progress: BatchProgress) -> None:
        assert_type(progress.total, int | None)
        assert_type(progress.waiting_until, datetime | None)

    batch = client.generate_many(
        ["Hi", {"prompt": "Hi", "key": "a", "temperature": 1}, GenerateRequest("gpt-5", "Hi", key="b")],
        model="gpt-5",
        max_concurrency=8,
        ordered=True,
        journal="run.jsonl",
        on_unknown=lambda key: key == "a",
        on_changed="skip",
        include_done=True,
        budget=100,
        limit_to_balance=True,
        max_rate=2.5,
        on_progress=show,
        timeout=None,
        max_retries=0,
    )
    async with batch as results:
        assert_type(results, AsyncBatch)
        async for result in results:
            assert_type(result, BatchResult)
            assert_type(result.generation, Generation | None)
            assert_type(result.error, NeuralBoxError | None)
            assert_type(result.unwrap(), Generation)
        assert_type(await results.read_batch(), list[BatchResult])
    assert_type(batch.report, BatchReport)
    assert_type(batch.report.tokens_used_total, int)
    client.generate_many(awaited, model="gpt-5", on_unknown="retry")
    client.generate_many(({"messages": [{"role": "user", "content": text}]} for text in ["Hi"]), model="gpt-5")
    assert_type(read_journal("run.jsonl"), Iterator[JournalEntry])


async def accepted_account(client: AsyncNeuralBox) -> None:
    assert_type(await client.get_balance(), Balance)
    assert_type(await client.get_account(timeout=None), Account)
    stats = await client.get_stats()
    assert_type(stats, AccountStats)
    assert_type(stats.recent_30d, UsageTotals | None)
    assert_type(await client.list_models(), list[Model])
    assert_type((await client.get_model("gpt-5")).token_cost, int | None)
    assert_type(await client.get_price("dall-e-3", {"quality": "hd"}, count=2), Price)
    history = client.list_generations(category="text", limit=20)
    assert_type(history, AsyncHistory)
    async for entry in history:
        assert_type(entry, HistoryEntry)
    assert_type(await client.estimate(["Hi"], model="gpt-5"), Estimate)
    assert_type(client.usage, ClientUsage)
    assert_type(client.reset_usage().by_model["gpt-5"], ModelUsage)
    assert_type(client.rate_limits.hour.remaining, int | None)
    assert_type((await client.generate("gpt-5", "Hi")).response, ResponseInfo | None)


class Counter:
    """An observer needs nothing but the method."""

    def observe(self, event: Event) -> None:
        if isinstance(event, CallEnded):
            assert_type(event.tokens_used, int | None)


accepted_observer: Observer = Counter()
observed = AsyncNeuralBox("key", observers=[Counter(), OpenTelemetryObserver()])


async def rejected(client: AsyncNeuralBox) -> None:
    await client.generate("gpt-5")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.generate("gpt-5", "Hi", "Be brief.")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.generate("gpt-5", "Hi", temperature="hot")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.stream("gpt-5", "Hi").open(wait_for="head")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.generate("gpt-5", "Hi", stream=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.generate(5, "Hi")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.get_price("gpt-5", 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.list_generations("text")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.stream("gpt-5", "Hi", wait=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    client.generate_many(["Hi"], "gpt-5")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    client.generate_many([5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    client.generate_many(["Hi"], budget="all")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    client.generate_many(["Hi"], on_unknown="pay")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    client.generate_many(["Hi"], on_changed="ask")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    client.generate_many(["Hi"], max_rate="fast")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def blocking(client: NeuralBox) -> None:
    reply = client.generate("gpt-5", "Hi", system="x", temperature=1, max_tokens=None, wait=True, timeout=None)
    assert_type(reply, Generation)
    with client.stream("gpt-5", "Hi") as stream:
        assert_type(stream, Stream)
        for event in stream:
            assert_type(event, GenerationStart | ContentDelta | GenerationEnd | UnknownEvent)
        assert_type(stream.generation, Generation)
        assert_type(stream.get_final_generation(), Generation)
    assert_type(client.stream("gpt-5", "Hi").open(wait_for="first_event"), Stream)
    assert_type(client.retrieve(reply), Generation)
    assert_type(client.wait(18473, timeout=None), Generation)
    assert_type(client.with_options(timeout=3), NeuralBox)
    with NeuralBox("key", timeout=None) as other:
        assert_type(other, NeuralBox)


def blocking_batches(client: NeuralBox) -> None:
    with client.generate_many(["Hi"], model="gpt-5", budget=5, journal="run.jsonl") as results:
        assert_type(results, Batch)
        for result in results:
            assert_type(result, BatchResult)
    assert_type(results.report, BatchReport)


def blocking_account(client: NeuralBox) -> None:
    assert_type(client.get_balance(), Balance)
    assert_type(client.get_account(), Account)
    assert_type(client.get_stats(), AccountStats)
    assert_type(client.list_models(), list[Model])
    assert_type(client.get_model("gpt-5"), Model)
    assert_type(client.get_price("dall-e-3", {"quality": "hd"}, 2), Price)
    history = client.list_generations(limit=20)
    assert_type(history, History)
    assert_type(next(history), HistoryEntry)
    assert_type(client.estimate(["Hi"], model="gpt-5"), Estimate)


def blocking_rejected(client: NeuralBox) -> None:
    client.generate_many(["Hi"], "gpt-5")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    client.generate_many(["Hi"], budget="all")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    client.generate("gpt-5")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.generate("gpt-5", "Hi", temperature="hot")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.generate("gpt-5", "Hi", stream=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.stream("gpt-5", "Hi", wait=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    NeuralBox(timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def errors(
    error: RateLimitError, failed: GenerationFailedError, broken: StreamInterruptedError, waited: WaitTimeoutError
) -> None:
    assert_type(error.retry_after, float | None)
    assert_type(error.status_code, int)
    assert_type(failed.generation, Generation | None)
    assert_type(broken.generation, Generation | None)
    assert_type(broken.recovered, Generation | None)
    assert_type(waited.generation, Generation | None)


def text_or_error(client: NeuralBox, requests: Requests) -> Iterator[tuple[str, str | NeuralBoxError | None]]:
    with client.generate_many(requests, model="gpt-5-nano") as results:
        for result in results:
            yield result.key, result.generation.content if result.generation else result.error


class Tenant(NeuralBox):
    plan = "free"


def subclass(tenant: Tenant) -> None:
    with tenant as opened:
        assert_type(opened, Tenant)
    assert_type(tenant.with_options(timeout=3), Tenant)
