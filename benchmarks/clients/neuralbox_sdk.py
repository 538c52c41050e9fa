"""neuralbox, asynchronous and blocking, as its users use it: everything that is on by default is on."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

from benchmarks.clients.adapter import KEY, NEURALBOX_PATH, PROMPT, Take, base_url
from neuralbox_async import AsyncNeuralBox, ContentDelta
from neuralbox_sync import NeuralBox


class Async:
    """`AsyncNeuralBox`; streams are read by their pieces of text."""

    def __init__(self, port: int, connections: int) -> None:
        self.client = AsyncNeuralBox(KEY, base_url=base_url(port, NEURALBOX_PATH), max_connections=connections)

    async def call(self, model: str) -> str:
        """Generate something and return the id of the answer."""
        return str((await self.client.generate(model, PROMPT)).id)

    async def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        async with self.client.stream(model, PROMPT) as stream:
            async for text in stream.text:
                take(text)

    async def aclose(self) -> None:
        """Close all connections."""
        await self.client.aclose()


class AsyncEvents(Async):
    """The same; streams are read by their events."""

    async def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        async with self.client.stream(model, PROMPT) as stream:
            async for event in stream:
                if isinstance(event, ContentDelta):
                    take(event.delta)


def _prompts(count: int) -> Iterator[str]:
    return (f"{PROMPT} {number}" for number in range(count))


class Batch(Async):
    """The same; many calls are a batch."""

    _journal: Path | None = None

    async def many(self, model: str, count: int, at_once: int) -> AsyncGenerator[str]:
        """Give the ids of *count* answers, *at_once* calls at a time."""
        batch = self.client.generate_many(_prompts(count), model=model, max_concurrency=at_once, journal=self._journal)
        async with batch as results:
            async for result in results:
                yield str(result.generation.id) if result.generation else ""


class JournaledBatch(Batch):
    """The same with a journal, in a folder that vanishes afterwards."""

    async def many(self, model: str, count: int, at_once: int) -> AsyncGenerator[str]:
        """Give the ids of *count* answers, *at_once* calls at a time."""
        with tempfile.TemporaryDirectory() as folder:
            self._journal = Path(folder, "run.jsonl")
            async with contextlib.aclosing(super().many(model, count, at_once)) as ids:
                async for found in ids:
                    yield found


class Semaphore(Async):
    """The same; many calls are what somebody writes who has no batches."""

    async def many(self, model: str, count: int, at_once: int) -> AsyncGenerator[str]:
        """Give the ids of *count* answers, *at_once* calls at a time."""
        room = asyncio.Semaphore(at_once)

        async def call(prompt: str) -> str:
            async with room:
                return str((await self.client.generate(model, prompt)).id)

        for done in asyncio.as_completed([call(prompt) for prompt in _prompts(count)]):
            yield await done


class Blocking:
    """`NeuralBox`; streams are read by their pieces of text."""

    def __init__(self, port: int, connections: int) -> None:
        self.client = NeuralBox(KEY, base_url=base_url(port, NEURALBOX_PATH), max_connections=connections)

    def call(self, model: str) -> str:
        """Generate something and return the id of the answer."""
        return str(self.client.generate(model, PROMPT).id)

    def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        with self.client.stream(model, PROMPT) as stream:
            for text in stream.text:
                take(text)

    def close(self) -> None:
        """Close all connections."""
        self.client.close()


class BlockingEvents(Blocking):
    """The same; streams are read by their events."""

    def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        with self.client.stream(model, PROMPT) as stream:
            for event in stream:
                if isinstance(event, ContentDelta):
                    take(event.delta)
