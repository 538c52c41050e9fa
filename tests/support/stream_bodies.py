"""Bodies of streams, and their events."""

from __future__ import annotations

import json

from neuralbox_async import APIConnectionError, ContentDelta, GenerationEnd, GenerationStart
from neuralbox_async.testing import FakeResponse

START = {"type": "generation_start", "id": "gen_1", "model": "gpt-5"}
END = {"type": "generation_end", "id": "gen_1", "tokens_used": 3, "balance_remaining": 297}
DONE = b"data: [DONE]\n\n"
RESET = APIConnectionError("reset", request_sent=True)


def delta(text: str) -> dict:
    return {"type": "content_delta", "delta": text}


def sse(*events: dict) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def stream_of(*chunks, content_type="text/event-stream", **headers):
    return FakeResponse(*chunks, headers={"content-type": content_type, **headers})


WHOLE = sse(START, delta("Hello"), delta(", "), delta("world"), END) + DONE
EVENTS = [
    GenerationStart("gen_1", "gpt-5"),
    ContentDelta("Hello"),
    ContentDelta(", "),
    ContentDelta("world"),
    GenerationEnd("gen_1", 3, 297),
]
