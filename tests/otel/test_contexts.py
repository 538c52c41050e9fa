"""The context of calls: it is restored whoever else observes, and measurements belong to the span of their call."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from stream_bodies import START, WHOLE, delta, sse, stream_of

from neuralbox_async.testing import FakeTransport

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
REPLY = {"id": "gen_1", "status": "completed", "model": "gpt-5", "content": "Hi", "tokens_used": 3, "usage": USAGE}
CHUNKS = sse(START, delta("Hello")), sse(delta("world")), WHOLE[-200:]


@pytest.mark.parametrize("operation", ["generate", "stream"])
async def test_two_observers(make_client, telemetry, operation):
    """Two observers, as of two vendors, leave no span of theirs as the current one."""
    transport = FakeTransport(REPLY if operation == "generate" else stream_of(WHOLE))
    client = make_client(transport, observers=[telemetry.observer(), telemetry.observer()])
    with telemetry.tracers.get_tracer("test").start_as_current_span("job") as job:
        if operation == "generate":
            await client.generate("gpt-5", "Hi")
        else:
            async with client.stream("gpt-5", "Hi") as stream:
                assert trace.get_current_span() is job
                await stream.get_final_generation()
        assert trace.get_current_span() is job

    assert ["chat gpt-5", "chat gpt-5", "job"] == [span.name for span in telemetry.spans]


async def test_exemplars(observed, telemetry):
    """The exemplars of a call are of its span, not of the one around it."""
    client = observed(FakeTransport(REPLY))
    with telemetry.tracers.get_tracer("test").start_as_current_span("job"):
        await client.generate("gpt-5", "Hi")
    call, _ = telemetry.spans
    exemplars = {name: _exemplar(points) for name, points in telemetry.points.items()}

    assert 6 == len(exemplars)
    assert {call.context.span_id} == set(exemplars.values())


async def test_exemplars_of_a_stream(observed, telemetry):
    """The exemplars of a stream are of its span, although that is never the current one while it is read."""
    async with observed(FakeTransport(stream_of(*CHUNKS))).stream("gpt-5", "Hi") as stream:
        await stream.get_final_generation()
    exemplars = {name: _exemplar(points) for name, points in telemetry.points.items()}

    assert "gen_ai.client.inference.time_per_output_chunk" in exemplars
    assert {telemetry.span.context.span_id} == set(exemplars.values())


def _exemplar(points):
    return points[0].exemplars[-1].span_id
