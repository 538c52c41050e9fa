"""The spans and metrics of each kind of call, against the table of the semantic conventions."""

from __future__ import annotations

import gc

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from stream_bodies import RESET, START, WHOLE, delta, sse, stream_of
from transports import FunctionTransport, completed

from neuralbox_async import NeuralBoxError
from neuralbox_async.testing import FakeResponse, FakeTransport
from neuralbox_sync import NeuralBox

KEY = "nb_canary_key_that_must_not_be_seen_7f3a"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
REPLY = {"id": 17, "status": "completed", "model": "gpt-5-2026", "content": "Hello", "tokens_used": 3, "usage": USAGE}
CREATION = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "neuralbox",
    "gen_ai.request.model": "gpt-5",
    "server.address": "neuralbox.top",
    "server.port": 443,
}
STREAM = {**CREATION, "gen_ai.request.stream": True, "neuralbox.attempts": 1}
STATUS = {name: value for name, value in CREATION.items() if name != "gen_ai.request.model"} | {
    "gen_ai.operation.name": "fetch_response",
    "neuralbox.attempts": 1,
}


def failure(status_code, code):
    return FakeResponse(b'{"error":{"code":"%b","message":"of the server"}}' % code.encode(), status_code=status_code)


def without_times(span):
    return {name: value for name, value in span.attributes.items() if "time_to" not in name}


# ------------------------------------------------------------------------------------------------------------ generate


async def test_generate(observed, telemetry):
    """A call is one client span, named after operation and model, with the attributes of the table."""
    await observed(FakeTransport(REPLY)).generate("gpt-5", "Hi", temperature=1, max_tokens=50)
    span = telemetry.span

    assert ("chat gpt-5", SpanKind.CLIENT, StatusCode.UNSET, None) == (
        span.name,
        span.kind,
        span.status.status_code,
        span.parent,
    )
    assert span.attributes == {
        **CREATION,
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.response.id": "17",
        "gen_ai.response.model": "gpt-5-2026",
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 7,
        "neuralbox.tokens_used": 3,
        "neuralbox.attempts": 1,
    }


async def test_metrics_of_generate(observed, telemetry):
    """A call has a duration, the tokens in counters and histograms, and the tokens of the bill."""
    await observed(FakeTransport(REPLY)).generate("gpt-5", "Hi")
    points = telemetry.points
    attributes = {**CREATION, "gen_ai.response.model": "gpt-5-2026"}

    assert {
        "gen_ai.client.inference.duration",
        "gen_ai.client.inference.usage.input_tokens",
        "gen_ai.client.inference.usage.output_tokens",
        "gen_ai.client.inference.operation.input_tokens",
        "gen_ai.client.inference.operation.output_tokens",
        "neuralbox.client.tokens_used",
    } == set(points)
    (duration,) = points["gen_ai.client.inference.duration"]
    assert (attributes, 1, 0.01, 81.92) == (
        dict(duration.attributes),
        duration.count,
        duration.explicit_bounds[0],
        duration.explicit_bounds[-1],
    )
    assert 11 == points["gen_ai.client.inference.usage.input_tokens"][0].value
    assert 7 == points["gen_ai.client.inference.operation.output_tokens"][0].sum
    assert 3 == points["neuralbox.client.tokens_used"][0].value


@pytest.mark.parametrize(
    "response, error_type, billed",
    [
        (failure(400, "invalid_request"), "invalid_request", "no"),
        (failure(401, "invalid_api_key"), "invalid_api_key", "no"),
        (failure(402, "insufficient_tokens"), "insufficient_tokens", "no"),
        (failure(429, "rate_limit_exceeded"), "rate_limit_exceeded", "no"),
        (failure(503, "model_unavailable"), "model_unavailable", "no"),
        (FakeResponse(b"", status_code=502), "InternalServerError", "unknown"),
        (RESET, "APIConnectionError", "unknown"),
        (FakeResponse(b"no json"), "ResponseError", "unknown"),
        ({"id": "gen_1", "status": "failed", "error": "reason"}, "GenerationFailedError", "no"),
    ],
)
async def test_failures(observed, telemetry, response, error_type, billed):
    """A failure has the status ERROR, the API's code or the name of the class, and the bill, also in the duration."""
    with pytest.raises(NeuralBoxError) as caught:
        await observed(FakeTransport(response)).generate("gpt-5", "Hi")
    span, (duration,) = telemetry.span, telemetry.points["gen_ai.client.inference.duration"]

    assert (StatusCode.ERROR, None) == (span.status.status_code, span.status.description)
    assert (error_type, billed) == (span.attributes["error.type"], span.attributes["neuralbox.billed"])
    assert (error_type, billed) == (duration.attributes["error.type"], duration.attributes["neuralbox.billed"])
    assert billed == caught.value.billed


async def test_retries(observed, telemetry):
    """All attempts are in one span; each retry counts by the error before it."""
    transport = FakeTransport(failure(503, "model_unavailable"), failure(429, "rate_limit_exceeded"), REPLY)
    await observed(transport, max_retries=2).generate("gpt-5", "Hi")

    assert (3, StatusCode.UNSET) == (telemetry.span.attributes["neuralbox.attempts"], telemetry.span.status.status_code)
    retries = {point.attributes["error.type"]: point.value for point in telemetry.points["neuralbox.client.retries"]}
    assert {"model_unavailable": 1, "rate_limit_exceeded": 1} == retries


async def test_cancellation(observed, telemetry):
    """A cancelled call ends its span, with an unknown bill, and the context of its task is as before."""
    with anyio.move_on_after(0.01):
        await observed(FakeTransport(FakeResponse(...))).generate("gpt-5", "Hi")

    assert ("CancelledError", "unknown") == (
        telemetry.span.attributes["error.type"],
        telemetry.span.attributes["neuralbox.billed"],
    )
    assert not trace.get_current_span().get_span_context().is_valid


# -------------------------------------------------------------------------------------------------------------- stream


async def test_stream(observed, telemetry):
    """A stream's span has the time to the first chunk; its metrics those of chunks."""
    chunks = sse(START, delta("Hello")), sse(delta("world")), WHOLE[-200:]
    async with observed(FakeTransport(stream_of(*chunks))).stream("gpt-5", "Hi") as stream:
        await stream.get_final_generation()
    span, points = telemetry.span, telemetry.points

    assert without_times(span) == {
        **STREAM,
        "gen_ai.response.id": "gen_1",
        "gen_ai.response.model": "gpt-5",
        "neuralbox.tokens_used": 3,
    }
    first = span.attributes["gen_ai.response.time_to_first_chunk"]
    assert 0 < first <= (span.end_time - span.start_time) / 1e9 + 1
    assert first == points["gen_ai.client.inference.time_to_first_chunk"][0].sum
    assert points["gen_ai.client.inference.time_per_output_chunk"][0].count >= 1
    assert 3 == points["neuralbox.client.tokens_used"][0].value


async def test_stream_that_breaks(observed, telemetry):
    """A stream that breaks has the finish reason error, the status ERROR and an unknown bill."""
    transport = FakeTransport(stream_of(sse(START, delta("Hello")), RESET))
    async with observed(transport).stream("gpt-5", "Hi", recover=False) as stream:
        with pytest.raises(NeuralBoxError):
            await stream.get_final_generation()

    assert without_times(telemetry.span) == {
        **STREAM,
        "gen_ai.response.id": "gen_1",
        "gen_ai.response.model": "gpt-5",
        "gen_ai.response.finish_reasons": ("error",),
        "error.type": "StreamInterruptedError",
        "neuralbox.billed": "unknown",
    }
    assert StatusCode.ERROR is telemetry.span.status.status_code


@pytest.mark.parametrize("how", ["closed", "collected"])
async def test_stream_that_is_left(observed, telemetry, how):
    """A stream that is closed, or collected, has the finish reason error and an unknown bill, and is no error."""
    stream = observed(FakeTransport(stream_of(sse(START, delta("Hello")), ...))).stream("gpt-5", "Hi")
    await stream.__aenter__()
    await anext(stream)
    assert () == telemetry.spans
    if how == "closed":
        await stream.aclose()
    del stream
    gc.collect()
    await anyio.sleep(0.01)

    span = telemetry.span
    assert (("error",), "unknown", StatusCode.UNSET) == (
        span.attributes["gen_ai.response.finish_reasons"],
        span.attributes["neuralbox.billed"],
        span.status.status_code,
    )


async def test_stream_that_cannot_be_opened(observed, telemetry):
    """A stream whose request fails has no finish reason: nothing was generated."""
    with pytest.raises(NeuralBoxError):
        async with observed(FakeTransport(failure(402, "insufficient_tokens"))).stream("gpt-5", "Hi"):
            pass

    assert "gen_ai.response.finish_reasons" not in telemetry.span.attributes
    assert "insufficient_tokens" == telemetry.span.attributes["error.type"]


async def test_context_of_a_stream(observed, telemetry):
    """A stream that was opened in one task can be closed in another, and leaves the context of neither changed."""
    stream = observed(FakeTransport(stream_of(WHOLE))).stream("gpt-5", "Hi")
    async with anyio.create_task_group() as group:
        group.start_soon(stream.__aenter__)
    assert not trace.get_current_span().get_span_context().is_valid
    await stream.aclose()

    assert ("error",) == telemetry.span.attributes["gen_ai.response.finish_reasons"]


# ---------------------------------------------------------------------------------------------------- status requests


async def test_retrieve(observed, telemetry):
    """A status request is fetch_response, without tokens."""
    await observed(FakeTransport(REPLY)).retrieve(17)

    assert "fetch_response" == telemetry.span.name
    assert telemetry.span.attributes == {
        **STATUS,
        "gen_ai.response.id": "17",
        "gen_ai.response.model": "gpt-5-2026",
        "gen_ai.response.status": "completed",
    }
    assert {"gen_ai.client.inference.duration"} == set(telemetry.points)


async def test_pending(observed, telemetry):
    """A pending generation has its status, and no finish reason and no error."""
    await observed(FakeTransport({"id": "gen_1", "status": "pending"})).generate("gpt-5", "Hi")

    assert telemetry.span.attributes == {
        **CREATION,
        "gen_ai.response.id": "gen_1",
        "neuralbox.status": "pending",
        "neuralbox.attempts": 1,
    }


async def test_polls(observed, telemetry, monkeypatch):
    """The polls of a call that waits are its children; the call has the tokens, once."""
    monkeypatch.setattr("neuralbox_async._call.polling._pause", lambda *_: 0.0)
    pending = {"id": "gen_1", "status": "pending"}
    await observed(FakeTransport(pending, pending, REPLY)).generate("gpt-5", "Hi", wait=True)
    *polls, call = telemetry.spans

    assert ["pending", "completed"] == [poll.attributes["gen_ai.response.status"] for poll in polls]
    assert {call.context.span_id} == {poll.parent.span_id for poll in polls}
    assert 3 == call.attributes["neuralbox.tokens_used"]
    assert 3 == sum(point.value for point in telemetry.points["neuralbox.client.tokens_used"])


# --------------------------------------------------------------------------------------------------------------- batch


def respond(request):
    prompt = request["messages"][-1]["content"]
    if prompt == "lost":
        return RESET
    headers = {"x-ratelimit-limit-hour": "100", "x-ratelimit-remaining-hour": "42"}
    return FakeResponse(b'{"id":"g","content":"Hi","tokens_used":1}', headers=headers)


async def test_batch(observed, telemetry):
    """A batch is one internal span with its numbers; its calls are the children; items count by outcome."""
    async with observed(FunctionTransport(respond)).generate_many(
        ["a", "b", "lost"], model="gpt-5", budget=None
    ) as batch:
        async for _ in batch:
            pass
    *calls, span = telemetry.spans

    assert ("neuralbox.batch", SpanKind.INTERNAL) == (span.name, span.kind)
    assert span.attributes == {
        "neuralbox.batch.completed": 2,
        "neuralbox.batch.failed": 1,
        "neuralbox.batch.unresolved": 1,
        "neuralbox.batch.tokens_used": 2,
    }
    assert {span.context.span_id} == {call.parent.span_id for call in calls}
    points = telemetry.points
    outcomes = {
        point.attributes["neuralbox.batch.item.outcome"]: point.value for point in points["neuralbox.batch.items"]
    }
    assert {"completed": 2, "unresolved": 1} == outcomes
    assert 0 == points["neuralbox.batch.in_flight"][0].value
    (remaining,) = points["neuralbox.rate_limit.remaining"]
    assert (42, "hour") == (remaining.value, remaining.attributes["neuralbox.rate_limit.window"])


async def test_large_batch(observed, telemetry, monkeypatch):
    """Above some hundreds of calls, they are roots of traces of their own that are linked to the batch."""
    monkeypatch.setattr("neuralbox_async.otel._observer._MAX_CHILDREN", 2)
    async with observed(FunctionTransport(completed)).generate_many(list("abcde"), model="gpt-5") as batch:
        async for _ in batch:
            pass
    *calls, span = telemetry.spans

    roots = [call for call in calls if call.parent is None]
    assert (2, 3) == (len(calls) - len(roots), len(roots))
    assert {span.context.span_id} == {link.context.span_id for call in roots for link in call.links}
    assert 3 == len({call.context.trace_id for call in roots} - {span.context.trace_id})


async def test_batch_inside_a_span(observed, telemetry):
    """A batch belongs to the span in which it is entered."""
    tracer = telemetry.tracers.get_tracer("test")
    with tracer.start_as_current_span("job") as job:
        async with observed(FunctionTransport(completed)).generate_many(["a"], model="gpt-5") as batch:
            async for _ in batch:
                pass

    assert {job.get_span_context().trace_id} == {span.context.trace_id for span in telemetry.spans}


# ------------------------------------------------------------------------------------------------------------ blocking


def test_blocking(telemetry):
    """Through the thread of the blocking client, calls, streams and batches belong to the caller's span."""
    tracer, transport = telemetry.tracers.get_tracer("test"), FakeTransport(REPLY, stream_of(WHOLE), REPLY)
    with NeuralBox(KEY, transport=transport, observers=[telemetry.observer()]) as client:
        with tracer.start_as_current_span("job") as job:
            client.generate("gpt-5", "Hi")
            with client.stream("gpt-5", "Hi") as stream:
                list(stream)
            with client.generate_many(["a"], model="gpt-5") as batch:
                list(batch)
            assert trace.get_current_span() is job

    assert ["chat gpt-5", "chat gpt-5", "chat gpt-5", "neuralbox.batch", "job"] == [
        span.name for span in telemetry.spans
    ]
    assert {job.get_span_context().trace_id} == {span.context.trace_id for span in telemetry.spans}
