"""Malformed minor members of the events of a stream."""

from __future__ import annotations

import json

import pytest

from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

EVENTS = [
    {"type": "generation_start", "id": "gen_1", "model": 5},
    {"type": "content_delta", "delta": "paid for", "index": []},
    {"type": "generation_end", "id": "gen_1", "tokens_used": "5", "balance_remaining": 97.5, "usage": []},
]


async def test_a_stream_with_malformed_minor_members(make_client):
    """They do not interrupt the stream, and the final generation names them."""
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in EVENTS)
    response = FakeResponse(body, headers={"content-type": "text/event-stream"})
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi") as stream:
        generation = await stream.get_final_generation()

    assert ("gen_1", "completed", "paid for") == (generation.id, generation.status, generation.content)
    assert (None, None, None) == (generation.model, generation.tokens_used, generation.usage)
    assert {"$.model", "$.tokens_used", "$.balance_remaining", "$.usage"} == set(generation.problems)
