"""Responses in the form of OpenAI: chat completions, the chunks of a stream, models."""

from __future__ import annotations

import json
import secrets
import time
from json.encoder import encode_basestring_ascii
from typing import Any, Final

from neuralbox_async import Generation, GenerationId, Model, Usage

DONE: Final = b"data: [DONE]\n\n"
_FINISH_REASONS: Final = {"stop", "length", "content_filter"}
_MAX_HEADER: Final = 200  # characters


def finish_reason(reason: str | None) -> str:
    """Return the *reason* of the API as one that OpenAI documents; ``"stop"`` for all others."""
    if reason == "max_tokens":
        return "length"
    return reason if reason in _FINISH_REASONS else "stop"


def usage_members(usage: Usage | None) -> dict[str, int] | None:
    """Return the provider's counts, if they are complete enough for OpenAI's clients, which require all three."""
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    total = usage.prompt_tokens + usage.completion_tokens if usage.total_tokens is None else usage.total_tokens
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": total,
    }


def completion_id(generation_id: GenerationId | None) -> str:
    """Return the id of the completion: that of the generation after a prefix, a random one without it."""
    return f"chatcmpl-{secrets.token_hex(12) if generation_id is None else generation_id}"


def cost_members(generation: Generation) -> dict[str, Any]:
    """Return what is known of the cost, for the member ``neuralbox``."""
    members = {
        "generation_id": generation.id,
        "tokens_used": generation.tokens_used,
        "balance_remaining": generation.balance_remaining,
    }
    return {name: value for name, value in members.items() if value is not None}


def cost_headers(generation: Generation, tokens_used: int | None) -> dict[str, str]:
    """Return the headers about *generation* and its cost: *tokens_used*, of all generations that it took."""
    values = {
        "x-neuralbox-generation-id": generation.id,
        "x-neuralbox-tokens-used": tokens_used,
        "x-neuralbox-balance-remaining": generation.balance_remaining,
    }
    texts = {name: str(value) for name, value in values.items() if value is not None}
    # The id is the server's: a line break in it would be another header.
    return {
        name: text for name, text in texts.items() if text.isascii() and text.isprintable() and len(text) <= _MAX_HEADER
    }


def completion(generation: Generation, model: str, content: str, reason: str) -> bytes:
    """Return the JSON of a chat completion; *model*: as requested, if the response has none."""
    created = time.time() if generation.created_at is None else generation.created_at.timestamp()
    message = {"role": "assistant", "content": content, "refusal": None}
    members: dict[str, Any] = {
        "id": completion_id(generation.id),
        "object": "chat.completion",
        "created": int(created),
        "model": generation.model or model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
    }
    usage = usage_members(generation.usage)
    if usage is not None:
        members["usage"] = usage
    return json.dumps(members).encode()


class ChunkEncoder:
    """
    Encodes the chunks of one stream as server-sent events.

    All that the chunks have in common is encoded once: a live stream has a chunk for each piece of text.
    """

    def __init__(self, generation_id: GenerationId | None, model: str, *, include_usage: bool) -> None:
        head = {
            "id": completion_id(generation_id),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        # OpenAI sends it as null in all chunks but the last, and not at all unless it was requested.
        usage = ', "usage": null' if include_usage else ""
        self._head = f"data: {json.dumps(head)[:-1]}, "
        self._before = f'{self._head}"choices": [{{"index": 0, "delta": '
        self._after = f', "logprobs": null, "finish_reason": null}}]{usage}}}\n\n'
        self._usage = usage

    def role(self) -> bytes:
        """Return the first chunk, which has the role and no text."""
        return f'{self._before}{{"role": "assistant", "content": "", "refusal": null}}{self._after}'.encode()

    def text(self, text: str) -> bytes:
        """Return a chunk of *text*."""
        return f'{self._before}{{"content": {encode_basestring_ascii(text)}}}{self._after}'.encode()

    def end(self, reason: str, cost: dict[str, Any]) -> bytes:
        """Return the last chunk of the choice: why the text ends, and what it cost."""
        choice = f'{{"index": 0, "delta": {{}}, "logprobs": null, "finish_reason": {json.dumps(reason)}}}'
        extra = f', "neuralbox": {json.dumps(cost)}' if cost else ""
        return f'{self._head}"choices": [{choice}]{self._usage}{extra}}}\n\n'.encode()

    def usage(self, usage: dict[str, int]) -> bytes:
        """Return the chunk of the provider's counts, which has no choice."""
        return f'{self._head}"choices": [], "usage": {json.dumps(usage)}}}\n\n'.encode()


def error_event(encoded: bytes) -> bytes:
    """Return the event of an error, of which *encoded* is the JSON."""
    return b"data: " + encoded + b"\n\n"


def model_members(model: Model) -> dict[str, Any]:
    """Return *model* as OpenAI describes models. NeuralBox documents no time of creation."""
    return {"id": model.slug, "object": "model", "created": 0, "owned_by": model.provider or "neuralbox"}
