"""The endpoints of a gateway."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import web
from anyio.abc import TaskGroup

from neuralbox_async import AsyncNeuralBox, Model, NeuralBoxError, NotFoundError, Usage
from neuralbox_async.gateway._admission import Admission
from neuralbox_async.gateway._errors import ErrorBody, Refusal, invalid
from neuralbox_async.gateway._exchange import Exchange
from neuralbox_async.gateway._repetitions import Completion
from neuralbox_async.gateway._requests import ChatRequest, parse_chat_request
from neuralbox_async.gateway._responses import (
    DONE,
    ChunkEncoder,
    completion,
    cost_headers,
    cost_members,
    model_members,
    usage_members,
)
from neuralbox_async.gateway._settings import GatewaySettings
from neuralbox_async.gateway._streamed import StreamedCalls
from neuralbox_async.gateway._whole import WholeCalls, tokens_of

_MODELS_KEPT: Final = 300.0  # seconds; whether a GET counts for the rate limit is not documented
_TEXT: Final = (None, "text")


class Routes:
    """Responds to the requests of clients that may use the gateway; see `Gateway` for the parameters."""

    def __init__(self, client: AsyncNeuralBox, settings: GatewaySettings, tasks: TaskGroup) -> None:
        self._client, self._settings = client, settings
        self._admission = Admission(
            client,
            max_concurrency=settings.max_concurrency,
            max_wait=settings.max_wait,
            max_waiting=settings.max_waiting,
            budget=settings.budget,
        )
        self.whole = WholeCalls(client, self._admission, tasks)
        self._streamed = StreamedCalls(client, self._admission)
        self._models: tuple[float, bytes] | None = None

    async def respond(self, exchange: Exchange) -> web.StreamResponse:
        """Return the response of an endpoint. Raises `Refusal` and the errors of the SDK."""
        request = exchange.request
        match request.method, *request.rel_url.raw_path.split("/")[1:]:
            case ["POST", "v1", "chat", "completions"]:
                return await self._chat(exchange)
            case ["GET", "v1", "models"]:
                return exchange.respond(await self._list_models())
            case ["GET", "v1", "models", *rest] if slug := unquote("/".join(rest)):
                return exchange.respond(await self._get_model(slug))
            case [_, "v1", "chat", "completions"] | [_, "v1", "models", *_]:
                raise invalid("this endpoint has no such method", code="method_not_allowed", status=405)
            case _:
                message = (
                    "unknown URL: there are /v1/chat/completions, /v1/models and /healthz; "
                    "the base URL of a client ends in /v1"
                )
                raise invalid(message, code="unknown_url", status=404)

    # ----------------------------------------------------------------------------------------------------------- chats

    async def _chat(self, exchange: Exchange) -> web.StreamResponse:
        is_repetition = exchange.request.headers.get("x-stainless-retry-count", "0") != "0"
        if not is_repetition:  # which may need no place
            self._admission.check_room()
        body = await exchange.read_body(self._settings.max_body_bytes)
        chat = parse_chat_request(body)
        exchange.describe(model=chat.model)
        headers = {"x-neuralbox-ignored": ", ".join(chat.ignored)} if chat.ignored else {}
        if chat.stream and chat.output_type is None:
            return await self._streamed.stream(exchange, chat, headers)

        async def send(done: Completion) -> web.StreamResponse:
            exchange.describe(generation_id=done.generation.id, tokens_used=done.tokens_used)
            own = {**headers, **cost_headers(done.generation, done.tokens_used)}
            if chat.stream:
                generation = done.generation
                if chat.include_usage:
                    generation = await self._streamed.describe(exchange, generation)
                return await _send_whole(exchange, chat, done, own, generation.usage)
            return await exchange.send(completion(done.generation, chat.model, done.content, done.reason), own)

        try:
            if chat.stops:
                return await send(await self._streamed.complete(exchange, chat))
            return await self.whole.respond(chat, hashlib.sha256(body).hexdigest(), send, is_repetition=is_repetition)
        except NeuralBoxError as error:
            exchange.describe(tokens_used=tokens_of(error))
            raise

    # ---------------------------------------------------------------------------------------------------------- models

    async def _list_models(self) -> bytes:
        now = time.monotonic()
        if self._models is None or now - self._models[0] > _MODELS_KEPT:
            found = await self._admission.get(self._client.list_models)
            models = [model for model in found if model.slug and model.category in _TEXT]
            self._models = now, _encode({"object": "list", "data": [model_members(model) for model in models]})
        return self._models[1]

    async def _get_model(self, slug: str) -> bytes:
        try:
            model = await self._admission.get(lambda: self._client.get_model(slug))
        except NotFoundError:
            raise _no_model(slug) from None
        return _encode(model_members(model if model.slug else Model(slug=slug, provider=model.provider)))


def _no_model(slug: str) -> Refusal:
    message = f"the model {slug[:100]!r} does not exist"
    return Refusal(ErrorBody(status=404, message=message, param="model", code="model_not_found"))


def _encode(members: dict[str, Any]) -> bytes:
    return json.dumps(members).encode()


async def _send_whole(
    exchange: Exchange, chat: ChatRequest, done: Completion, headers: dict[str, str], counts: Usage | None
) -> web.StreamResponse:
    """Send a text that had to be checked as a whole as a stream of one piece."""
    generation = done.generation
    encoder = ChunkEncoder(generation.id, generation.model or chat.model, include_usage=chat.include_usage)
    response = await exchange.start_stream(headers)
    usage = usage_members(counts) if chat.include_usage else None
    ending = b"" if usage is None else encoder.usage(usage)
    cost = {**cost_members(generation)}
    if done.tokens_used is not None:
        cost["tokens_used"] = done.tokens_used
    text = encoder.role() + encoder.text(done.content)
    await response.write_eof(text + encoder.end(done.reason, cost) + ending + DONE)
    return response
