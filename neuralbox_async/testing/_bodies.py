"""The documented shapes: generation bodies and stream events in dialect A (`gen_...` ids) and B (integer ids)."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from neuralbox_async.testing._calls import Dialect
    from neuralbox_async.testing._generations import Generation

DONE: Final = b"data: [DONE]\n\n"
HEARTBEAT: Final = b": ping\n\n"

# Text goes out as UTF-8, not as \u escapes: a client must cope with characters cut in two by the network, and with
# U+2028 in the middle of a line.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def dump(value: object) -> bytes:
    """Serialise *value* as compact UTF-8 JSON."""
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        # A lone surrogate, echoed: only its escape can be sent.
        return json.dumps(value).encode()


def generation_body(generation: Generation, dialect: Dialect, pending_seconds: float) -> dict[str, object]:
    """Return *generation* as the POST that made it answers. A pending one takes *pending_seconds* in all."""
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
    """Return *generation* as the status paths answer: in dialect A a completed one has its completion time too."""
    body = generation_body(generation, dialect, pending_seconds)
    if dialect == "a" and generation.status == "completed":
        body["completed_at"] = generation.completed_at
    return body


def _body_b(generation: Generation) -> dict[str, object]:
    if generation.status == "failed":
        return {"id": generation.number, "status": "failed", "error": generation.error, "tokens_spent": 0}
    done = generation.status == "completed"
    return {
        "id": generation.number,
        "status": generation.status,
        "model_slug": generation.model,
        "result_text": generation.text if done else None,
        "result_url": None,
        "thumbnail_url": None,
        "error": None,
        "tokens_spent": generation.price if done else 0,
        "processing_ms": round(generation.seconds * 1000) if done else None,
        "result_metadata": None,
    }


def _usage(generation: Generation) -> dict[str, int]:
    prompt, completion = generation.prompt_tokens, len(generation.said)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _progress(generation: Generation, pending_seconds: float) -> dict[str, int]:
    elapsed = time.monotonic() - generation.started
    share = min(1.0, elapsed / pending_seconds) if pending_seconds else 1.0
    return {"progress": min(99, int(share * 100)), "eta_seconds": max(0, round(pending_seconds - elapsed))}


def start_event(generation: Generation, dialect: Dialect) -> bytes:
    """Return the frame of `generation_start`. It says `model` in both dialects."""
    return _frame({"type": "generation_start", "id": _id(generation, dialect), "model": generation.model})


def delta_event(text: str) -> bytes:
    """Return the frame of one `content_delta`."""
    return b'data: {"type":"content_delta","delta":' + dump(text) + b"}\n\n"


def end_event(generation: Generation, dialect: Dialect) -> bytes:
    """Return the frame of `generation_end`, with what was billed and, in dialect A, the balance."""
    end: dict[str, object] = {"type": "generation_end", "id": _id(generation, dialect)}
    if dialect == "b":
        return _frame({**end, "tokens_spent": generation.price})
    return _frame({**end, "tokens_used": generation.price, "balance_remaining": generation.balance_remaining})


def error_event(message: str) -> bytes:
    """Return the frame of an `error` event."""
    return _frame({"type": "error", "message": message})


def _id(generation: Generation, dialect: Dialect) -> str | int:
    return generation.number if dialect == "b" else generation.id


def _frame(event: dict[str, object]) -> bytes:
    return b"data: " + dump(event) + b"\n\n"
