"""A plain call whose response is an event stream, as of a server that always streams."""

import json

import pytest

from neuralbox_async import GenerationFailedError, ResponseError
from neuralbox_async.testing import FakeResponse, FakeTransport

START = {"type": "generation_start", "id": "gen_1", "model": "gpt-5"}
DELTAS = [{"type": "content_delta", "delta": "paid "}, {"type": "content_delta", "delta": "for"}]
END = {"type": "generation_end", "tokens_used": 3, "balance_remaining": "many"}
FAILURE = {"type": "error", "message": "out of memory"}


def response_with(*events, after=b""):
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return FakeTransport(FakeResponse(body + after, headers={"content-type": "text/event-stream; charset=utf-8"}))


@pytest.mark.parametrize("end", [(END,), ()], ids=["end", "[DONE]"])
async def test_complete(make_client, end):
    """The events of the whole stream are the generation."""
    transport = response_with(START, *DELTAS, *end, after=b"data: [DONE]\n\n")
    generation = await make_client(transport).generate("gpt-5", "Hi")

    assert ("gen_1", "completed", "paid for", "gpt-5") == (
        generation.id,
        generation.status,
        generation.content,
        generation.model,
    )
    assert (3 if end else None) == generation.tokens_used
    assert (("$.balance_remaining",) if end else ()) == generation.problems
    assert 1 == len(transport.requests)


@pytest.mark.parametrize("after", [b"", b"data: {", b"data: {\n\n", b"data: 5\n\n"])
async def test_incomplete(make_client, after):
    """The error of a stream that ends early, or is malformed, has the id and the text before that."""
    with pytest.raises(ResponseError) as caught:
        await make_client(response_with(START, *DELTAS, after=after)).generate("gpt-5", "Hi")

    assert ("gen_1", "paid for", "unknown") == (caught.value.generation_id, caught.value.text, caught.value.billed)


async def test_failed(make_client):
    """An error event is a failed generation, which is not billed."""
    with pytest.raises(GenerationFailedError) as caught:
        await make_client(response_with(START, FAILURE)).generate("gpt-5", "Hi")

    assert ("out of memory", "no") == (caught.value.reason, caught.value.billed)
