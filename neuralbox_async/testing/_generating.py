"""Running a generation: at one go, as a job to be polled, or as a stream that scripted faults may befall."""

from __future__ import annotations

import asyncio
import logging
from itertools import islice
from typing import TYPE_CHECKING, Final

from neuralbox_async.testing._bodies import DONE, HEARTBEAT, delta_event, end_event, error_event, start_event
from neuralbox_async.testing._exchange import ClientGoneError
from neuralbox_async.testing._faults import Cut, ErrorEvent, Stall, StreamFault
from neuralbox_async.testing._text import echo, pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aiohttp import web

    from neuralbox_async.testing._calls import Call, Dialect
    from neuralbox_async.testing._exchange import Exchange
    from neuralbox_async.testing._faults import Fault
    from neuralbox_async.testing._generations import Books, Generation
    from neuralbox_async.testing._settings import Settings

logger = logging.getLogger("neuralbox.testing")

VIOLATION: Final = "Provider error: content policy violation"
INTERRUPTED: Final = "Interrupted: the connection was lost"

# Without a pace, events are written together up to this size, then the loop gets a turn to see who has left.
_BATCH_BYTES: Final = 16 * 1024


class Generating:
    """The models, so to speak. Each method takes a valid call of a client that may have one."""

    def __init__(self, settings: Settings, books: Books) -> None:
        self._settings = settings
        self._books = books

    async def run(self, exchange: Exchange, call: Call) -> Generation:
        """Run a generation that is not streamed, or leave it pending.

        Raises:
            RefusalError: 402, when the balance does not cover it.
            ClientGoneError: when the client left and the settings say to stop then.
        """
        generation, is_new = self._accept(exchange, call)
        if is_new:
            await self._think(exchange, generation)
            self._conclude(call, generation)
        return generation

    async def stream(self, exchange: Exchange, call: Call, dialect: Dialect, fault: Fault | None) -> web.StreamResponse:
        """Run a generation as a stream; a client that leaves ends it, unbilled.

        Raises:
            RefusalError: 402, when the balance does not cover it.
            ClientGoneError: when the client left, or *fault* was to hang up.
        """
        generation, _ = self._accept(exchange, call)
        try:
            await exchange.idle(self._settings.latency)
            response = await exchange.start_stream()
            events = self._events(generation, dialect)
            if isinstance(fault, StreamFault):
                await self._write_until(exchange, response, events, generation, fault)
            else:
                await self._write(exchange, response, events)
            await response.write_eof()
        except (ClientGoneError, ConnectionError):
            self._books.fail(generation, INTERRUPTED)
            raise
        return response

    async def wait(self, exchange: Exchange, seconds: float, *, stream: bool) -> None:
        """Wait for *seconds*. A client that leaves ends the wait of a stream, and of anything if the settings say so.

        Raises:
            ClientGoneError: when it did.
        """
        if stream or self._settings.stop_on_disconnect:
            await exchange.idle(seconds)
        elif seconds:
            await asyncio.sleep(seconds)

    def _accept(self, exchange: Exchange, call: Call) -> tuple[Generation, bool]:
        """Return the generation for *call*, and whether it is new."""
        key = exchange.received.headers.get("Idempotency-Key")
        if self._settings.honour_idempotency_key and (known := self._books.find_by_key(key)):
            return known, False
        price = self._settings.price(call.model)
        source = islice(self._reply(call), call.max_tokens)
        return self._books.open(call, price, source=source, request=exchange.received.index, key=key), True

    def _reply(self, call: Call) -> Iterator[str]:
        reply = self._settings.reply
        answer: str | Iterable[str] = reply(call.data) if callable(reply) else reply or echo(call.prompt, call.images)
        return iter(pieces(answer) if isinstance(answer, str) else answer)

    async def _think(self, exchange: Exchange, generation: Generation) -> None:
        try:
            await self.wait(exchange, self._settings.latency, stream=False)
        except ClientGoneError:
            self._books.fail(generation, INTERRUPTED)
            raise

    def _conclude(self, call: Call, generation: Generation) -> None:
        if call.model in self._settings.failing_models:
            self._books.fail(generation, VIOLATION)
        elif call.background or call.model in self._settings.pending_models:
            loop = asyncio.get_running_loop()
            loop.call_later(self._settings.pending_seconds, self._books.complete, generation)
        else:
            self._books.complete(generation)

    def _events(self, generation: Generation, dialect: Dialect) -> Iterator[bytes]:
        """Run *generation* step by step: it is billed when its end is asked for."""
        yield start_event(generation, dialect)
        if generation.model in self._settings.failing_models:
            self._books.fail(generation, VIOLATION)
            yield error_event(VIOLATION)
            return
        # A generation that is found again by its idempotency key has said all before.
        yield from map(delta_event, list(generation.said))
        try:
            for piece in generation.source:
                generation.said.append(piece)
                yield delta_event(piece)
        except Exception as error:
            logger.exception("The local server's reply raised in the middle of a stream")
            self._books.fail(generation, repr(error))
            yield error_event(repr(error))
            return
        self._books.complete(generation)
        yield end_event(generation, dialect)
        yield DONE

    async def _write_until(
        self,
        exchange: Exchange,
        response: web.StreamResponse,
        events: Iterator[bytes],
        generation: Generation,
        fault: StreamFault,
    ) -> None:
        """Write events until *fault* befalls; not at all if the stream has fewer."""
        written = await self._write(exchange, response, islice(events, fault.after_events))
        if written < fault.after_events:
            return
        if fault.finish:
            self._books.complete(generation)
        else:
            self._books.fail(generation, INTERRUPTED)
        match fault:
            case Stall():
                await self._rest(exchange, response, None)
            case ErrorEvent():
                await response.write(error_event(fault.message) + (DONE if fault.done else b""))
            case Cut(how="close" | "reset"):
                raise exchange.hang_up(fault.how)
            case _:
                # An orderly end of the body, only too early.
                pass

    async def _write(self, exchange: Exchange, response: web.StreamResponse, events: Iterator[bytes]) -> int:
        """Write *events* at the pace of the settings and return how many they were."""
        if self._settings.pace:
            return await self._write_paced(exchange, response, events)
        written = 0
        batch = bytearray()
        for event in events:
            written += 1
            batch += event
            if len(batch) >= _BATCH_BYTES:
                await response.write(bytes(batch))
                batch.clear()
                # A write that the kernel takes at once does not let the loop run: an endless reply would never stop.
                await asyncio.sleep(0)
                await exchange.idle(0)
        if batch:
            await response.write(bytes(batch))
        return written

    async def _write_paced(self, exchange: Exchange, response: web.StreamResponse, events: Iterator[bytes]) -> int:
        written = 0
        # Rest first and ask for the next event then: asking for the last one bills.
        while (event := next(events, None)) is not None:
            written += 1
            await response.write(event)
            if event is not DONE:
                await self._rest(exchange, response, self._settings.pace)
        return written

    async def _rest(self, exchange: Exchange, response: web.StreamResponse, seconds: float | None) -> None:
        """Wait for *seconds*, None until the client leaves, with heartbeats if the settings want them."""
        heartbeat = self._settings.heartbeat
        while heartbeat is not None and (seconds is None or seconds > heartbeat):
            await exchange.idle(heartbeat)
            await response.write(HEARTBEAT)
            seconds = None if seconds is None else seconds - heartbeat
        await exchange.idle(seconds)
