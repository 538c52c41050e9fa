"""Response bodies and stream events, in dialect A (`gen_...` ids) and dialect B (integer ids)."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from neuralbox_async.testing._models import Model
    from neuralbox_async.testing._request_parsing import Dialect
    from neuralbox_async.testing._store import Generation

DONE: Final = b"data: [DONE]\n\n"
HEARTBEAT: Final = b": ping\n\n"

# Text is sent as UTF-8, not as \u escapes: a client must handle characters that the network splits, and U+2028 in the
# middle of a line.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode_json(value: object) -> bytes:
    """Serialise *value* as compact UTF-8 JSON."""
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        # The echo of a lone surrogate, which has no UTF-8 form. Its escape can be sent.
        return json.dumps(value).encode()


# Generations


def generation_body(generation: Generation, dialect: Dialect, pending_seconds: float) -> dict[str, object]:
    """Return the response to the POST that created *generation*. A pending one takes *pending_seconds* in total."""
    if dialect == "b":
        return _body_b(generation)
    identity = {"id": generation.id, "status": generation.status, "model": generation.model}
    if generation.status == "pending":
        return {**identity, **_progress(generation, pending_seconds), "created_at": generation.created_at}
    if generation.status == "failed":
        return {**identity, "error": generation.error, "tokens_used": 0, "created_at": generation.created_at}
    return {
        **identity,
        "content": generation.text,
        "tokens_used": generation.price,
        "balance_remaining": generation.balance_remaining,
        "usage": _usage(generation),
        "created_at": generation.created_at,
    }


def status_body(generation: Generation, dialect: Dialect, pending_seconds: float) -> dict[str, object]:
    """Return the response to a status request. In dialect A a completed generation also has its completion time."""
    body = generation_body(generation, dialect, pending_seconds)
    if dialect == "a" and generation.status == "completed":
        body["completed_at"] = generation.completed_at
    return body


def _body_b(generation: Generation) -> dict[str, object]:
    if generation.status == "failed":
        return {"id": generation.number, "status": "failed", "error": generation.error, "tokens_spent": 0}
    completed = generation.status == "completed"
    return {
        "id": generation.number,
        "status": generation.status,
        "model_slug": generation.model,
        "result_text": generation.text if completed else None,
        "result_url": None,
        "thumbnail_url": None,
        "error": None,
        "tokens_spent": generation.price if completed else 0,
        "processing_ms": round(generation.elapsed * 1000) if completed else None,
        "result_metadata": None,
    }


def _usage(generation: Generation) -> dict[str, int]:
    prompt, completion = generation.prompt_tokens, len(generation.output)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _progress(generation: Generation, pending_seconds: float) -> dict[str, int]:
    elapsed = time.monotonic() - generation.started
    share = min(1.0, elapsed / pending_seconds) if pending_seconds else 1.0
    return {"progress": min(99, int(share * 100)), "eta_seconds": max(0, round(pending_seconds - elapsed))}


# The account


def history_item(generation: Generation, category: str, dialect: Dialect) -> dict[str, object]:
    """Return *generation*, of a model of a *category*, as an entry of the history. The text is left out."""
    tokens = generation.price if generation.status == "completed" else 0
    shared = {"prompt": generation.prompt, "status": generation.status, "created_at": generation.created_at}
    if dialect == "a":
        identity = {"id": generation.id, "type": category, "model": generation.model}
        return {**identity, **shared, "url": None, "tokens_used": tokens}
    return {
        "id": generation.number,
        "model_slug": generation.model,
        "model_name": generation.model,
        "category": category,
        **shared,
        "result_text": None,
        "result_url": None,
        "tokens_spent": tokens,
        "is_favorited": False,
        "user_rating": None,
    }


# Models


def model_body(slug: str, model: Model) -> dict[str, object]:
    """Return the response to GET /models/{slug}."""
    return {
        "slug": slug,
        "name": slug,
        "category": model.category,
        "provider": "NeuralBox",
        "min_plan": model.min_plan,
        "token_cost": model.price,
        "min_token_cost": model.price,
        "max_token_cost": model.max_price,
        "description_en": f"{slug}, simulated by the local test server.",
        "supports_streaming": model.category == "text",
        "config": {},
    }


def price_body(model: Model, count: int) -> dict[str, object]:
    """Return the response to POST /models/{slug}/calculate-price for *count* generations."""
    return {
        "token_cost": model.price * count,
        "min_token_cost": model.price,
        "max_token_cost": model.max_price,
        "pricing_type": "fixed" if model.price == model.max_price else "matrix",
    }


# Stream events


def start_event(generation: Generation, dialect: Dialect) -> bytes:
    """Return a `generation_start` event. It has `model` in both dialects."""
    return _event({"type": "generation_start", "id": _id(generation, dialect), "model": generation.model})


def delta_event(text: str) -> bytes:
    """Return a `content_delta` event with *text*."""
    return b'data: {"type":"content_delta","delta":' + encode_json(text) + b"}\n\n"


def end_event(generation: Generation, dialect: Dialect) -> bytes:
    """Return a `generation_end` event with the billed tokens and, in dialect A, the balance."""
    end: dict[str, object] = {"type": "generation_end", "id": _id(generation, dialect)}
    if dialect == "b":
        return _event({**end, "tokens_spent": generation.price})
    return _event({**end, "tokens_used": generation.price, "balance_remaining": generation.balance_remaining})


def error_event(message: str) -> bytes:
    """Return an `error` event with *message*."""
    return _event({"type": "error", "message": message})


def _id(generation: Generation, dialect: Dialect) -> str | int:
    return generation.number if dialect == "b" else generation.id


def _event(data: dict[str, object]) -> bytes:
    return b"data: " + encode_json(data) + b"\n\n"
