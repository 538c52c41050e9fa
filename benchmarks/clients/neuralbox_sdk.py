"""neuralbox, asynchronous and blocking, as its users use it: everything that is on by default is on."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Iterator
from datetime import date
from pathlib import Path

import attrs

from benchmarks.clients.adapter import KEY, NEURALBOX_PATH, PROMPT, Address, OnText
from neuralbox_async import AsyncNeuralBox, ContentDelta
from neuralbox_sync import NeuralBox


class Async:
    """`AsyncNeuralBox`; streams are read as text."""

    def __init__(self, address: Address, connections: int) -> None:
        url = address.url(NEURALBOX_PATH)
        self.client = AsyncNeuralBox(KEY, base_url=url, max_connections=connections, ssl_context=address.ssl_context)

    async def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        return str((await self.client.generate(model, PROMPT)).id)

    async def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        async with self.client.stream(model, PROMPT) as stream:
            async for text in stream.text_stream:
                on_text(text)

    async def aclose(self) -> None:
        """Close all connections."""
        await self.client.aclose()


class AsyncEvents(Async):
    """`AsyncNeuralBox`; streams are read as typed events."""

    async def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        async with self.client.stream(model, PROMPT) as stream:
            async for event in stream:
                if isinstance(event, ContentDelta):
                    on_text(event.delta)


@attrs.frozen
class Hotel:
    """The object that the server generates for the model ``typed``."""

    title: str
    city: str
    stars: int
    price: float
    pool: bool
    rooms: int
    languages: list[str]
    opened: date


class Parse(Async):
    """`AsyncNeuralBox.parse` where the server generates JSON, that is not in the warm-up."""

    async def call(self, model: str) -> str:
        """Generate a `Hotel` and return the id of the generation."""
        if model != "typed":
            return await super().call(model)
        return str((await self.client.parse(model, PROMPT, Hotel)).generation.id)


def _prompts(count: int) -> Iterator[str]:
    return (f"{PROMPT} {number}" for number in range(count))


class Batch(Async):
    """`AsyncNeuralBox.generate_many` without a journal."""

    _journal: Path | None = None

    async def run_batch(self, model: str, count: int, concurrency: int) -> AsyncGenerator[str]:
        """Yield the ids of *count* generations, with up to *concurrency* calls in flight."""
        batch = self.client.generate_many(
            _prompts(count), model=model, max_concurrency=concurrency, journal=self._journal
        )
        async with batch as results:
            async for result in results:
                yield str(result.generation.id) if result.generation else ""


class JournaledBatch(Batch):
    """`AsyncNeuralBox.generate_many` with a journal in a temporary directory."""

    async def run_batch(self, model: str, count: int, concurrency: int) -> AsyncGenerator[str]:
        """Yield the ids of *count* generations, with up to *concurrency* calls in flight."""
        with tempfile.TemporaryDirectory() as directory:
            self._journal = Path(directory, "run.jsonl")
            async with contextlib.aclosing(super().run_batch(model, count, concurrency)) as ids:
                async for generation_id in ids:
                    yield generation_id


class Semaphore(Async):
    """A batch without `generate_many`: one task per request, and an `asyncio.Semaphore`."""

    async def run_batch(self, model: str, count: int, concurrency: int) -> AsyncGenerator[str]:
        """Yield the ids of *count* generations, with up to *concurrency* calls in flight."""
        semaphore = asyncio.Semaphore(concurrency)

        async def call(prompt: str) -> str:
            async with semaphore:
                return str((await self.client.generate(model, prompt)).id)

        for next_id in asyncio.as_completed([call(prompt) for prompt in _prompts(count)]):
            yield await next_id


class Blocking:
    """`NeuralBox`; streams are read as text."""

    def __init__(self, address: Address, connections: int) -> None:
        url = address.url(NEURALBOX_PATH)
        self.client = NeuralBox(KEY, base_url=url, max_connections=connections, ssl_context=address.ssl_context)

    def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        return str(self.client.generate(model, PROMPT).id)

    def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        with self.client.stream(model, PROMPT) as stream:
            for text in stream.text_stream:
                on_text(text)

    def close(self) -> None:
        """Close all connections."""
        self.client.close()


class BlockingBatch(Async):
    """`NeuralBox.generate_many`, whose iterator runs in the thread that reads the results."""

    def __init__(self, address: Address, connections: int) -> None:
        super().__init__(address, connections)
        self.blocking = Blocking(address, connections)

    async def run_batch(self, model: str, count: int, concurrency: int) -> AsyncGenerator[str]:
        """Yield the ids of *count* generations, with up to *concurrency* calls in flight."""
        batch = self.blocking.client.generate_many(_prompts(count), model=model, max_concurrency=concurrency)
        with batch as results:  # blocks the event loop, which has nothing else to do
            for result in results:
                yield str(result.generation.id) if result.generation else ""

    async def aclose(self) -> None:
        """Close all connections."""
        await super().aclose()
        self.blocking.close()


class BlockingEvents(Blocking):
    """`NeuralBox`; streams are read as typed events."""

    def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        with self.client.stream(model, PROMPT) as stream:
            for event in stream:
                if isinstance(event, ContentDelta):
                    on_text(event.delta)
