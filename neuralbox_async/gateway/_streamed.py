"""
Streamed completions, and whole ones that end at a stop sequence.

A client that leaves cancels the handler, which closes the stream: the API then stops generating.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import attrs
from aiohttp import web

from neuralbox_async import (
    AsyncNeuralBox,
    AsyncStream,
    ContentDelta,
    Generation,
    GenerationEnd,
    NeuralBoxError,
    StreamEvent,
)
from neuralbox_async.gateway._admission import Admission, Ticket
from neuralbox_async.gateway._errors import ErrorBody, error_body
from neuralbox_async.gateway._exchange import Exchange
from neuralbox_async.gateway._repetitions import Completion
from neuralbox_async.gateway._requests import ChatRequest
from neuralbox_async.gateway._responses import (
    DONE,
    ChunkEncoder,
    cost_headers,
    cost_members,
    error_event,
    finish_reason,
    usage_members,
)
from neuralbox_async.gateway._stops import StopCutter
from neuralbox_async.gateway._whole import parameters_of, tokens_of

_STATUS_TIMEOUT: Final = 10.0  # seconds


def text_of(events: list[StreamEvent]) -> str:
    """Return the text in *events*."""
    return "".join([event.delta for event in events if isinstance(event, ContentDelta)])


async def _first_events(stream: AsyncStream[Any]) -> list[StreamEvent]:
    """Return the events of *stream* up to the first text or the end. Raises the errors of reading."""
    events: list[StreamEvent] = []
    while not text_of(events) and not any(isinstance(event, GenerationEnd) for event in events):
        batch = await stream.read_batch()
        if not batch:
            break
        events += batch
    return events


@attrs.define(eq=False)
class _Sending:
    """
    The chunks of *stream* as *response*, up to a stop sequence.

    *describe* returns a generation with its usage; None: the client does not want to know it.
    """

    _exchange: Exchange
    _response: web.StreamResponse
    _stream: AsyncStream[Any]
    _encoder: ChunkEncoder
    _cutter: StopCutter
    _describe: Callable[[Exchange, Generation], Awaitable[Generation]] | None

    async def run(self, events: list[StreamEvent]) -> None:
        """Send *events*, the first ones, and the others when they arrive. A failure is the last event."""
        try:
            await self._send_texts(events)
        except NeuralBoxError as error:
            self._exchange.describe(tokens_used=tokens_of(error))
            await self._send_error(error_body(error, with_text=False))
        except anyio.get_cancelled_exc_class():
            if self._exchange.is_cut:
                self._exchange.describe(billed="unknown")
                with anyio.CancelScope(shield=True):
                    await self._send_error(self._exchange.cut_error)
            raise
        else:
            await self._send_end()

    async def _send_texts(self, events: list[StreamEvent]) -> None:
        head = self._encoder.role()
        while events:
            text = self._cutter.feed(text_of(events))  # what arrives together is one chunk
            if head or text:
                await self._response.write(head + self._encoder.text(text) if text else head)
            head = b""
            if self._cutter.stopped:
                break
            events = await self._stream.read_batch()

    async def _send_error(self, body: ErrorBody) -> None:
        self._exchange.describe(note=body.code or body.type)
        await self._response.write_eof(self._held_text() + error_event(body.encode()))  # and no [DONE]

    async def _send_end(self) -> None:
        await self._stream.aclose()  # after a stop sequence, the API goes on generating until then
        whole = self._stream.generation
        reason = "stop" if self._cutter.stopped else finish_reason(whole.finish_reason)
        ending = self._held_text() + self._encoder.end(reason, cost_members(whole))
        # Before it is written: clients read the usage without waiting for it.
        ending += await self._usage(whole)
        with anyio.CancelScope(shield=True):
            await self._response.write_eof(ending + DONE)

    async def _usage(self, whole: Generation) -> bytes:
        """Return the chunk with the usage, ``b""`` if it is not wanted or not known."""
        if self._describe is None:
            return b""
        usage = usage_members((await self._describe(self._exchange, whole)).usage)
        return b"" if usage is None else self._encoder.usage(usage)

    def _held_text(self) -> bytes:
        held = self._cutter.flush()
        return self._encoder.text(held) if held else b""


class StreamedCalls:
    """The completions of a gateway that read a stream of the API."""

    def __init__(self, client: AsyncNeuralBox, admission: Admission) -> None:
        self._client, self._admission = client, admission

    async def stream(self, exchange: Exchange, chat: ChatRequest, headers: dict[str, str]) -> web.StreamResponse:
        """
        Send the completion for *chat* while it is generated.

        The status is decided by the first piece of text: errors before it are raised. Later ones are an event, after
        which there is no ``[DONE]``. Raises `Refusal` and the errors of `AsyncNeuralBox.stream`.
        """
        ticket = await self._admission.admit(chat.model)
        try:
            stream = await ticket.send(lambda: self._open(chat))
            return await self._respond(exchange, chat, headers, stream)
        except NeuralBoxError as error:  # before the first piece of text
            exchange.describe(tokens_used=tokens_of(error))
            raise
        finally:
            exchange.describe(billed="unknown" if ticket.is_sent else "no")
            ticket.release(exchange.tokens_used)

    async def _respond(
        self,
        exchange: Exchange,
        chat: ChatRequest,
        headers: dict[str, str],
        stream: AsyncStream[Any],
    ) -> web.StreamResponse:
        try:
            events = await _first_events(stream)
            start = stream.generation
            exchange.describe(generation_id=start.id)
            response = await exchange.start_stream({**headers, **cost_headers(start, None)})
            encoder = ChunkEncoder(start.id, start.model or chat.model, include_usage=chat.include_usage)
            describe = self.describe if chat.include_usage else None
            await _Sending(exchange, response, stream, encoder, StopCutter(chat.stops), describe).run(events)
        finally:
            await stream.aclose()
            exchange.describe(tokens_used=stream.generation.tokens_used)
        return response

    async def complete(self, exchange: Exchange, chat: ChatRequest) -> Completion:
        """Return the completion for *chat* up to a stop sequence; the rest is not waited for."""
        ticket = await self._admission.admit(chat.model)
        try:
            return await self._complete(exchange, chat, ticket)
        except NeuralBoxError as error:
            ticket.release(tokens_of(error))
            raise
        finally:
            exchange.describe(billed="unknown" if ticket.is_sent else "no")
            ticket.release()

    async def _complete(self, exchange: Exchange, chat: ChatRequest, ticket: Ticket) -> Completion:
        stream = await ticket.send(lambda: self._open(chat))
        cutter, texts = StopCutter(chat.stops), list[str]()
        try:
            exchange.describe(generation_id=stream.generation.id)
            while not cutter.stopped and (events := await stream.read_batch()):
                texts.append(cutter.feed(text_of(events)))
        finally:
            await stream.aclose()
        read = stream.generation
        whole = await self.describe(exchange, read)
        ticket.release(whole.tokens_used)
        return Completion(
            generation=whole,
            content="".join(texts) + cutter.flush(),
            tokens_used=whole.tokens_used,
            reason="stop" if cutter.stopped else finish_reason(read.finish_reason),
        )

    async def _open(self, chat: ChatRequest) -> AsyncStream[Any]:
        """Return a stream whose response has begun: from then on, the API has counted its request."""
        return await self._client.stream(**parameters_of(chat)).open()

    async def describe(self, exchange: Exchange, generation: Generation) -> Generation:
        """
        Return *generation* as the status endpoint describes it, with usage and cost.

        Unchanged if it has its usage, and if that fails, or is cut off: the text is complete all the same.
        """
        if generation.id is None or usage_members(generation.usage) is not None:
            return generation
        try:
            return await self._client.retrieve(generation.id, timeout=_STATUS_TIMEOUT, max_retries=1)
        except NeuralBoxError:
            return generation
        except anyio.get_cancelled_exc_class():
            if not exchange.is_cut:
                raise
            return generation
