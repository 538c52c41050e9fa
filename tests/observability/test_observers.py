"""Observers: the events of calls, streams, status requests and batches."""

from __future__ import annotations

import gc
import logging

import anyio
import pytest
from stream_bodies import END, RESET, START, WHOLE, delta, sse, stream_of
from transports import FunctionTransport, completed

from neuralbox_async import (
    APIConnectionError,
    AsyncNeuralBox,
    AttemptStarted,
    BatchEnded,
    BatchItemEnded,
    BatchItemStarted,
    BatchStarted,
    CallEnded,
    CallStarted,
    ContentReceived,
    InvalidParameterError,
    NeuralBoxError,
    ResponseReceived,
    RetryScheduled,
)
from neuralbox_async.testing import FakeResponse, FakeTransport
from neuralbox_sync import NeuralBox

KEY = "nb_canary_key_that_must_not_be_seen_7f3a"
PROMPT = "canary prompt 51c9"
TEXT = "canary text 0b7e"
REPLY = {"id": "gen_1", "status": "completed", "model": "gpt-5", "content": TEXT, "tokens_used": 3}
BUSY = FakeResponse(
    b'{"error":{"code":"provider_error","message":"' + PROMPT.encode() + b'"}}', status_code=500, headers={"x": KEY}
)


class Recorder:
    """An observer that keeps the events."""

    def __init__(self, *, wants_content=False):
        self.wants_content = wants_content
        self.events = []

    def observe(self, event):
        self.events.append(event)

    @property
    def types(self):
        return [type(event) for event in self.events]

    @property
    def end(self):
        (ended,) = [event for event in self.events if isinstance(event, CallEnded)]
        return ended


@pytest.fixture
def recorder():
    return Recorder()


async def test_call(make_client, recorder):
    """A call has its start, each attempt, each response, the retry with its reason and delay, and its end."""
    client = make_client(FakeTransport(BUSY, REPLY), max_retries=1, observers=[recorder])
    await client.generate("gpt-5", PROMPT, temperature=0.5, max_tokens=9)

    attempt = [AttemptStarted, ResponseReceived]
    assert [CallStarted, *attempt, RetryScheduled, *attempt, CallEnded] == recorder.types
    start, _, response, retry, *_, end = recorder.events
    assert ("generate", "gpt-5", 0.5, 9) == (
        start.call.operation,
        start.call.model,
        start.call.temperature,
        start.call.max_tokens,
    )
    assert (500, 1, "provider_error", 1) == (
        response.response.status_code,
        response.attempt,
        retry.reason,
        retry.attempt,
    )
    assert retry.delay >= 0
    assert ("completed", "yes", 2, 3, "gen_1", None) == (
        end.outcome,
        end.billed,
        end.attempts,
        end.tokens_used,
        end.generation_id,
        end.error_type,
    )
    assert 1 == len({event.call.id for event in recorder.events})


async def test_no_secrets(make_client, recorder):
    """No event shows the key, the prompt or the text, also not one of a failure whose message repeats them."""
    client = make_client(FakeTransport(BUSY, REPLY, BUSY), max_retries=1, observers=[recorder])
    await client.generate("gpt-5", PROMPT)
    with pytest.raises(NeuralBoxError):
        await client.with_options(max_retries=0).generate("gpt-5", PROMPT)
    headers = [dict(event.response.headers) for event in recorder.events if isinstance(event, ResponseReceived)]
    seen = repr((recorder.events, headers, [getattr(event, "error", None) for event in recorder.events]))

    assert [] == [secret for secret in (KEY, PROMPT, TEXT) if secret in seen]


async def test_content_on_request(make_client, recorder):
    """An observer that wants content gets the prompt, the text and the error; another beside it does not."""
    curious = Recorder(wants_content=True)
    client = make_client(FakeTransport(REPLY, BUSY), max_retries=0, observers=[recorder, curious])
    await client.generate("gpt-5", PROMPT)
    with pytest.raises(NeuralBoxError) as caught:
        await client.generate("gpt-5", PROMPT)

    assert [{"role": "user", "content": PROMPT}] == curious.events[0].body["messages"]
    assert TEXT == next(event for event in curious.events if isinstance(event, CallEnded)).content
    assert caught.value is curious.events[-1].error
    assert (None, None, None) == (recorder.events[0].body, recorder.events[-1].content, recorder.events[-1].error)


async def test_observer_that_raises(make_client, recorder, caplog):
    """An observer that raises is logged; the call and the other observers are not affected."""

    class Broken:
        def observe(self, event):
            raise RuntimeError("broken")

    client = make_client(FakeTransport(REPLY), observers=[Broken(), recorder])
    assert TEXT == (await client.generate("gpt-5", "Hi")).content

    assert CallEnded is recorder.types[-1]
    assert "the observer Broken raised an exception" in caplog.text
    assert {logging.ERROR} == {record.levelno for record in caplog.records}


@pytest.mark.parametrize("observers", [[object()], 5, [lambda event: event]])
def test_invalid_observers(observers):
    """Something without a method observe is refused."""
    with pytest.raises(InvalidParameterError, match="observers must be"):
        AsyncNeuralBox(KEY, observers=observers)


@pytest.mark.parametrize(
    "responses, error_type, billed",
    [
        ([BUSY], "provider_error", "no"),
        ([FakeResponse(b'{"error":{"code":"a long text, no code"}}', status_code=418)], "APIStatusError", "no"),
        ([NeuralBoxError("other")], "NeuralBoxError", "no"),
        ([RESET], "APIConnectionError", "unknown"),
        ([FakeResponse(b"no json")], "ResponseError", "unknown"),
        ([{"id": "gen_1", "status": "failed", "error": PROMPT}], "GenerationFailedError", "no"),
    ],
)
async def test_failures(make_client, recorder, responses, error_type, billed):
    """A failure ends the call with the API's code, or the name of the error's class, and the bill."""
    client = make_client(FakeTransport(*responses), max_retries=0, observers=[recorder])
    with pytest.raises(NeuralBoxError) as caught:
        await client.generate("gpt-5", "Hi")

    assert ("failed", error_type, caught.value.billed) == (
        recorder.end.outcome,
        recorder.end.error_type,
        recorder.end.billed,
    )
    assert billed == recorder.end.billed


async def test_cancellation(make_client, recorder):
    """A cancelled call ends as cancelled, with an unknown bill if it was sent."""
    client = make_client(FakeTransport(FakeResponse(...)), observers=[recorder])
    with anyio.move_on_after(0.01):
        await client.generate("gpt-5", "Hi")

    assert ("cancelled", "unknown") == (recorder.end.outcome, recorder.end.billed)


# ---------------------------------------------------------------------------------------------------------- streams


async def test_stream(make_client, recorder):
    """A stream has an event for each arrival of text, and ends at its terminal event, before it is closed."""
    chunks = sse(START, delta("Hello")), sse(delta(", "), delta("world")), sse(END)
    client = make_client(FakeTransport(stream_of(*chunks)), observers=[recorder])
    async with client.stream("gpt-5", "Hi") as stream:
        while await stream.read_batch():
            pass
        assert CallEnded is recorder.types[-1]

    first, second = [event for event in recorder.events if isinstance(event, ContentReceived)]
    assert (1, None, 2) == (first.number, first.interval, second.number)
    assert second.interval >= 0
    assert ("completed", "yes", 3, "gen_1", "gpt-5") == (
        recorder.end.outcome,
        recorder.end.billed,
        recorder.end.tokens_used,
        recorder.end.generation_id,
        recorder.end.model,
    )


async def test_text_of_a_stream(make_client):
    """An observer that wants content gets the whole text of a stream, also what the reader has not read."""
    curious = Recorder(wants_content=True)
    client = make_client(FakeTransport(stream_of(WHOLE)), observers=[curious])
    async with client.stream("gpt-5", "Hi") as stream:
        await anext(stream)

    assert ("completed", "Hello, world") == (curious.end.outcome, curious.end.content)


async def test_stream_that_breaks(make_client, recorder):
    """A stream that breaks and is not recovered ends with the error of its reader."""
    client = make_client(FakeTransport(stream_of(sse(START, delta("Hello")), RESET)), observers=[recorder])
    async with client.stream("gpt-5", "Hi", recover=False) as stream:
        with pytest.raises(NeuralBoxError):
            await stream.get_final_generation()

    assert ("failed", "StreamInterruptedError", "unknown", "gen_1") == (
        recorder.end.outcome,
        recorder.end.error_type,
        recorder.end.billed,
        recorder.end.generation_id,
    )


@pytest.mark.parametrize("how", ["left", "closed", "collected"])
async def test_stream_that_is_left(make_client, recorder, how):
    """A stream ends as closed when it is left, closed or collected before its terminal event."""
    client = make_client(FakeTransport(stream_of(sse(START, delta("Hello")), ...)), observers=[recorder])
    stream = client.stream("gpt-5", "Hi")
    await stream.__aenter__()
    await anext(stream)
    if how == "left":
        await stream.__aexit__(None, None, None)
    elif how == "closed":
        await stream.aclose()
    del stream
    gc.collect()
    await anyio.sleep(0.01)

    assert ("closed", "unknown") == (recorder.end.outcome, recorder.end.billed)


async def test_recovered_stream(make_client, recorder):
    """The status requests that recover a stream belong to it, and it ends with the whole generation."""
    broken = stream_of(sse(START, delta("Hel")), RESET)
    whole = {"id": "gen_1", "status": "completed", "content": "Hello", "tokens_used": 3}
    client = make_client(FakeTransport(broken, whole), observers=[recorder])
    async with client.stream("gpt-5", "Hi") as stream:
        await stream.get_final_generation()

    ends = {event.call.operation: event for event in recorder.events if isinstance(event, CallEnded)}
    assert ends["stream"].call.id == ends["retrieve"].call.parent
    assert ("completed", 3) == (ends["stream"].outcome, ends["stream"].tokens_used)


async def test_stream_of_the_other_endpoint(make_client, recorder):
    """A stream that is sent to the other documented endpoint after a 404 is one call with two attempts."""
    missing = FakeResponse(b"{}", status_code=404)
    client = make_client(FakeTransport(missing, stream_of(WHOLE)), observers=[recorder])
    async with client.stream("gpt-5", "Hi") as stream:
        await stream.get_final_generation()

    assert 1 == recorder.types.count(CallStarted)
    assert ("completed", 2) == (recorder.end.outcome, recorder.end.attempts)


# ------------------------------------------------------------------------------------------- status requests, batches


async def test_wait(make_client, recorder, monkeypatch):
    """A call that waits ends with the finished generation; its polls belong to it and cost nothing."""
    monkeypatch.setattr("neuralbox_async._call.polling._pause", lambda *_: 0.0)
    client = make_client(FakeTransport({"id": "gen_1", "status": "pending"}, REPLY), observers=[recorder])
    await client.generate("gpt-5", "Hi", wait=True)

    poll, call = [event for event in recorder.events if isinstance(event, CallEnded)]
    assert ("retrieve", call.call.id, "no", "completed") == (
        poll.call.operation,
        poll.call.parent,
        poll.billed,
        poll.generation_status,
    )
    assert ("generate", "completed", 3) == (call.call.operation, call.outcome, call.tokens_used)


async def test_pending(make_client, recorder):
    """A pending generation ends the call as pending: the bill is not known yet."""
    await make_client(FakeTransport({"id": "gen_1", "status": "pending"}), observers=[recorder]).generate("gpt-5", "Hi")

    assert ("pending", "unknown", "pending") == (
        recorder.end.outcome,
        recorder.end.billed,
        recorder.end.generation_status,
    )


async def test_batch(make_client, recorder):
    """A batch has its start, the start and outcome of each item, and its end; its calls belong to it."""

    def respond(request):
        prompt = request["messages"][-1]["content"]
        if prompt == "bad":
            return FakeResponse(b'{"error":{"code":"provider_error"}}', status_code=500)
        return RESET if prompt == "lost" else completed(request)

    client = make_client(FunctionTransport(respond), max_retries=0, observers=[recorder])
    async with client.generate_many(["a", "bad", "lost", ""], model="gpt-5", budget=None) as results:
        async for _ in results:
            pass

    assert (BatchStarted, BatchEnded) == (recorder.types[0], recorder.types[-1])
    outcomes = {event.index: event.outcome for event in recorder.events if isinstance(event, BatchItemEnded)}
    assert {0: "completed", 1: "failed", 2: "unresolved", 3: "failed"} == outcomes
    assert 3 == recorder.types.count(BatchItemStarted)
    calls = [event.call for event in recorder.events if isinstance(event, CallStarted)]
    assert [recorder.events[0].batch] * 3 == [call.batch for call in calls]
    end = recorder.events[-1]
    assert (1, 3, 1, 1) == (end.completed, end.failed, end.unresolved, end.tokens_used)


async def test_batch_that_cannot_connect(make_client, recorder):
    """Each item that began has its end, also when the error is one of the batch, not one of each item."""
    untrusted = APIConnectionError("TLS verification failed", retryable=False)
    client = make_client(FakeTransport(untrusted), observers=[recorder])
    async with client.generate_many(map(str, range(20)), model="gpt-5", max_concurrency=4) as results:
        with pytest.raises(APIConnectionError, match="verification failed"):
            async for _ in results:
                pass

    started = {event.index for event in recorder.events if isinstance(event, BatchItemStarted)}
    ended = [event.index for event in recorder.events if isinstance(event, BatchItemEnded)]
    assert started == set(ended)
    assert len(ended) == len(started)


async def test_batch_that_is_left(make_client, recorder):
    """A batch that is left ends, and its items in flight with it: they may be billed."""
    client = make_client(FakeTransport(FakeResponse(...)), observers=[recorder])
    async with client.generate_many(["a"], model="gpt-5"):
        while ResponseReceived not in recorder.types:
            await anyio.sleep(0.001)

    assert ["unresolved"] == [event.outcome for event in recorder.events if isinstance(event, BatchItemEnded)]
    assert BatchEnded is recorder.types[-1]


def test_blocking(recorder):
    """The blocking client has the same events."""
    with NeuralBox(KEY, transport=FakeTransport(REPLY), observers=[recorder]) as client:
        client.generate("gpt-5", "Hi")

    assert [CallStarted, AttemptStarted, ResponseReceived, CallEnded] == recorder.types


async def test_derived_clients(make_client, recorder):
    """A derived client has the observers of the client that it is derived from."""
    await make_client(FakeTransport(REPLY), observers=[recorder]).with_options(timeout=5).generate("gpt-5", "Hi")

    assert "completed" == recorder.end.outcome
