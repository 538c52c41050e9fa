"""
Streamed completions, and whole ones that end at a stop sequence.

A client that leaves cancels the handler, which closes the stream: the API then stops generating.
"""

from __future__ import annotations

from typing import Any, Final

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
from neuralbox_async.gateway._errors import error_body
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
            exchange.describe(generation_id=stream.generation.id)
            response = await exchange.start_stream({**headers, **cost_headers(stream.generation, None)})
            await self._send(exchange, response, chat, stream, events)
        finally:
            await stream.aclose()
            exchange.describe(tokens_used=stream.generation.tokens_used)
        return response

    async def _send(
        self,
        exchange: Exchange,
        response: web.StreamResponse,
        chat: ChatRequest,
        stream: AsyncStream[Any],
        events: list[StreamEvent],
    ) -> None:
        start = stream.generation
        encoder = ChunkEncoder(start.id, start.model or chat.model, include_usage=chat.include_usage)
        cutter = StopCutter(chat.stops)
        head = encoder.role()
        try:
            while events:
                text = cutter.feed(text_of(events))  # what arrives together is one chunk
                if head or text:
                    await response.write(head + encoder.text(text) if text else head)
                head = b""
                if cutter.stopped:
                    break
                events = await stream.read_batch()
        except NeuralBoxError as error:
            held = cutter.flush()
            body = error_body(error, with_text=False)
            exchange.describe(tokens_used=tokens_of(error), note=body.code or body.type)
            await response.write((encoder.text(held) if held else b"") + error_event(body.encode()))
            await response.write_eof()
            return
        await self._send_end(response, chat, stream, encoder, cutter)

    async def _send_end(
        self,
        response: web.StreamResponse,
        chat: ChatRequest,
        stream: AsyncStream[Any],
        encoder: ChunkEncoder,
        cutter: StopCutter,
    ) -> None:
        await stream.aclose()  # after a stop sequence, the API goes on generating until then
        held, whole = cutter.flush(), stream.generation
        reason = "stop" if cutter.stopped else finish_reason(whole.finish_reason)
        ending = (encoder.text(held) if held else b"") + encoder.end(reason, cost_members(whole))
        if chat.include_usage:
            # Before it is written: clients read the usage without waiting for it.
            usage = usage_members((await self._described(whole)).usage)
            ending += b"" if usage is None else encoder.usage(usage)
        await response.write(ending + DONE)
        await response.write_eof()

    async def complete(self, exchange: Exchange, chat: ChatRequest) -> Completion:
        """Return the completion for *chat* up to a stop sequence; the rest is not waited for."""
        ticket = await self._admission.admit(chat.model)
        try:
            return await self._complete(exchange, chat, ticket)
        except NeuralBoxError as error:
            ticket.release(tokens_of(error))
            raise
        finally:
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
        whole = await self._described(read)
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

    async def _described(self, generation: Generation) -> Generation:
        """Return *generation* as the status endpoint describes it, with usage and cost; unchanged if that fails."""
        if generation.id is None or usage_members(generation.usage) is not None:
            return generation
        try:
            return await self._client.retrieve(generation.id, timeout=_STATUS_TIMEOUT, max_retries=1)
        except NeuralBoxError:
            return generation
