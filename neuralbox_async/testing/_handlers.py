"""Run generations: as one response, as a pending job, or as a stream with optional injected faults."""

from __future__ import annotations

import asyncio
import logging
from itertools import islice
from typing import TYPE_CHECKING, Final

from neuralbox_async.testing._exchange import DisconnectedError
from neuralbox_async.testing._faults import Cut, ErrorEvent, Stall, StreamFault
from neuralbox_async.testing._responses import DONE, HEARTBEAT, delta_event, end_event, error_event, start_event
from neuralbox_async.testing._text import echo, tokenize

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator

    from aiohttp import web

    from neuralbox_async.testing._exchange import Exchange
    from neuralbox_async.testing._faults import Fault
    from neuralbox_async.testing._request_parsing import Dialect, GenerationRequest
    from neuralbox_async.testing._settings import Settings
    from neuralbox_async.testing._store import AccountStore, Generation

logger = logging.getLogger("neuralbox.testing")

VIOLATION: Final = "Provider error: content policy violation"
INTERRUPTED: Final = "Interrupted: the connection was lost"

# Without an event interval, events are written in batches of this size. Between them the event loop can detect a
# disconnect.
_BATCH_BYTES: Final = 16 * 1024


class GenerationHandler:
    """Handles valid generation requests."""

    def __init__(self, settings: Settings, store: AccountStore, next_texts: deque[str]) -> None:
        self._settings = settings
        self._store = store
        self._next_texts = next_texts

    async def run(self, exchange: Exchange, request: GenerationRequest) -> Generation:
        """Run a generation that is not streamed, or leave it pending.

        Raises:
            HTTPError: 402 if the balance does not cover the price.
            DisconnectedError: if the client disconnected and the setting `stop_on_disconnect` is true.
        """
        generation, is_new = self._get_or_create(exchange, request)
        if is_new:
            await self._wait_latency(exchange, generation)
            self._finish(request, generation)
        return generation

    async def stream(
        self, exchange: Exchange, request: GenerationRequest, dialect: Dialect, fault: Fault | None
    ) -> web.StreamResponse:
        """Run a generation as a stream. If the client disconnects, the generation stops and is not billed.

        Raises:
            HTTPError: 402 if the balance does not cover the price.
            DisconnectedError: if the client disconnected or *fault* closed the connection.
        """
        generation, _ = self._get_or_create(exchange, request)
        try:
            await exchange.sleep(self._settings.latency)
            response = await exchange.start_stream()
            events = self._events(generation, dialect)
            if isinstance(fault, StreamFault):
                await self._write_with_fault(exchange, response, events, generation, fault)
            else:
                await self._write(exchange, response, events)
            await response.write_eof()
        except (DisconnectedError, ConnectionError):
            self._store.fail(generation, INTERRUPTED)
            raise
        return response

    async def wait(self, exchange: Exchange, seconds: float, *, stream: bool) -> None:
        """Wait for *seconds*. A disconnect ends the wait of a *stream*, and of any request if `stop_on_disconnect`.

        Raises:
            DisconnectedError: if a disconnect ended the wait.
        """
        if stream or self._settings.stop_on_disconnect:
            await exchange.sleep(seconds)
        elif seconds:
            await asyncio.sleep(seconds)

    def _get_or_create(self, exchange: Exchange, request: GenerationRequest) -> tuple[Generation, bool]:
        """Return the generation for *request*, and whether it is new."""
        key = exchange.received.headers.get("Idempotency-Key")
        if self._settings.honour_idempotency_key and (existing := self._store.get_by_key(key)):
            return existing, False
        price = self._settings.price(request.model)
        reply = islice(self._reply(request), request.max_tokens)
        return self._store.create(request, price, reply=reply, request_index=exchange.received.index, key=key), True

    def _reply(self, request: GenerationRequest) -> Iterator[str]:
        if self._next_texts:
            return iter(tokenize(self._next_texts.popleft()))
        reply = self._settings.reply
        text = reply or echo(request.prompt, request.images) if isinstance(reply, str | None) else reply(request.data)
        return iter(tokenize(text) if isinstance(text, str) else text)

    async def _wait_latency(self, exchange: Exchange, generation: Generation) -> None:
        try:
            await self.wait(exchange, self._settings.latency, stream=False)
        except DisconnectedError:
            self._store.fail(generation, INTERRUPTED)
            raise

    def _finish(self, request: GenerationRequest, generation: Generation) -> None:
        if request.model in self._settings.failing_models:
            self._store.fail(generation, VIOLATION)
        elif request.background or request.model in self._settings.pending_models:
            loop = asyncio.get_running_loop()
            loop.call_later(self._settings.pending_seconds, self._store.complete, generation)
        else:
            self._store.complete(generation)

    def _events(self, generation: Generation, dialect: Dialect) -> Iterator[bytes]:
        """Run *generation* step by step. It is billed when the iterator reaches `generation_end`."""
        yield start_event(generation, dialect)
        if generation.model in self._settings.failing_models:
            self._store.fail(generation, VIOLATION)
            yield error_event(VIOLATION)
            return
        # An earlier request with the same idempotency key may have generated text already.
        yield from map(delta_event, list(generation.output))
        try:
            for token in generation.reply:
                generation.output.append(token)
                yield delta_event(token)
        except Exception as error:
            logger.exception("The local server's `reply` raised an exception during a stream")
            self._store.fail(generation, repr(error))
            yield error_event(repr(error))
            return
        self._store.complete(generation)
        yield end_event(generation, dialect)
        yield DONE

    async def _write_with_fault(
        self,
        exchange: Exchange,
        response: web.StreamResponse,
        events: Iterator[bytes],
        generation: Generation,
        fault: StreamFault,
    ) -> None:
        """Write the events before *fault* and apply it. A stream with fewer events is complete."""
        written = await self._write(exchange, response, islice(events, fault.after_events))
        if written < fault.after_events:
            return
        if fault.finish:
            self._store.complete(generation)
        else:
            self._store.fail(generation, INTERRUPTED)
        match fault:
            case Stall():
                await self._idle(exchange, response, None)
            case ErrorEvent():
                await response.write(error_event(fault.message) + (DONE if fault.done else b""))
            case Cut(how="close" | "reset"):
                exchange.disconnect(fault.how)
            case _:
                # An orderly but early end of the body: the caller writes it.
                pass

    async def _write(self, exchange: Exchange, response: web.StreamResponse, events: Iterator[bytes]) -> int:
        """Write *events* at the interval of the settings. Return the number of events."""
        if self._settings.event_interval:
            return await self._write_at_interval(exchange, response, events)
        written = 0
        batch = bytearray()
        for event in events:
            written += 1
            batch += event
            if len(batch) >= _BATCH_BYTES:
                await response.write(bytes(batch))
                batch.clear()
                # A write that fits into the kernel's buffer does not yield to the event loop. Without this an endless
                # reply would never stop.
                await asyncio.sleep(0)
                await exchange.sleep(0)
        if batch:
            await response.write(bytes(batch))
        return written

    async def _write_at_interval(
        self, exchange: Exchange, response: web.StreamResponse, events: Iterator[bytes]
    ) -> int:
        written = 0
        # Wait before the next event is generated, because generating `generation_end` bills the generation.
        while (event := next(events, None)) is not None:
            written += 1
            await response.write(event)
            if event is not DONE:
                await self._idle(exchange, response, self._settings.event_interval)
        return written

    async def _idle(self, exchange: Exchange, response: web.StreamResponse, seconds: float | None) -> None:
        """Wait for *seconds*, None until the client disconnects. Send heartbeats if the settings have an interval."""
        heartbeat = self._settings.heartbeat
        while heartbeat is not None and (seconds is None or seconds > heartbeat):
            await exchange.sleep(heartbeat)
            await response.write(HEARTBEAT)
            seconds = None if seconds is None else seconds - heartbeat
        await exchange.sleep(seconds)
