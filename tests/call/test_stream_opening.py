"""`AsyncStream.open`: the request is sent outside a block, and nothing is lost or left open, however it ends."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace

import anyio
import attrs
import pytest
from stream_bodies import DONE, END, EVENTS, RESET, START, WHOLE, delta, sse, stream_of

from neuralbox_async import (
    APITimeoutError,
    AuthenticationError,
    ContentDelta,
    ContentReceived,
    GenerationEnd,
    GenerationStart,
    InsufficientTokensError,
    InvalidParameterError,
    NeuralBoxError,
    RateLimitError,
    StreamInterruptedError,
    StreamStateError,
    StreamTimeoutError,
    UnknownEvent,
)
from neuralbox_async._call.stream_state import StreamState
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

BOTH = pytest.mark.parametrize("wait_for", ["response", "first_event"])
FAILED = {"type": "error", "error": {"code": "provider_error", "message": "the provider failed"}}


def new(make_client, *responses, stream_options=None, **options):
    return make_client(FakeTransport(*responses), **options).stream("gpt-5", "Hi", **(stream_options or {}))


@BOTH
@pytest.mark.parametrize("step", [1, 7, 60, len(WHOLE)])
async def test_reads_as_in_a_block(make_client, wait_for, step):
    """A stream opened outside a block has the same events, however the network cuts them, and completes."""
    pieces = [WHOLE[at : at + step] for at in range(0, len(WHOLE), step)]
    stream = new(make_client, stream_of(*pieces))

    assert stream is await stream.open(wait_for=wait_for)
    assert EVENTS == [event async for event in stream]
    assert stream.generation.completed
    assert StreamState.COMPLETE is stream._state


@BOTH
@pytest.mark.parametrize(
    "status, error", [(401, AuthenticationError), (402, InsufficientTokensError), (429, RateLimitError)]
)
async def test_status_errors(make_client, wait_for, status, error):
    """An error with a status is raised by `open`, which closes the stream."""
    stream = new(make_client, FakeResponse(b"{}", status_code=status), max_retries=0)

    with pytest.raises(error) as caught:
        await stream.open(wait_for=wait_for)
    assert status == caught.value.status_code
    with pytest.raises(StreamStateError, match="closed"):
        aiter(stream)


async def test_returns_with_the_response(make_client):
    """By default, `open` returns when the response begins, before any event."""
    stream = await new(make_client, stream_of(...)).open()
    assert 200 == stream.response.status_code
    await stream.aclose()


@pytest.mark.parametrize(
    "content", [[delta("Hello")], [delta(""), delta("Hello")], [END]], ids=["text", "empty delta first", "end"]
)
async def test_waits_for_content(make_client, content):
    """The first event is one with content: heartbeats, the start and empty deltas are not, the end is."""
    arrived = anyio.Event()

    class Slow(FakeResponse):
        async def read_chunk(self, deadline=0.0):
            if 1 == len(self._chunks):
                await arrived.wait()
            return await super().read_chunk(deadline)

    response = Slow(b": heartbeat\n\n", sse(START), sse(delta("")), sse(*content))
    response.headers["content-type"] = "text/event-stream"
    stream = new(make_client, response)
    opening = asyncio.ensure_future(stream.open(wait_for="first_event"))
    await asyncio.sleep(0.02)

    assert not opening.done()
    arrived.set()
    await opening
    events = [type(event) for event in await stream.read_batch()]
    assert "GenerationStart" == events[0].__name__
    await stream.aclose()


@BOTH
async def test_an_end_without_content(make_client, wait_for):
    """A generation that ends without a text is complete, and its other events can be read."""
    other = {"type": "thinking", "text": "..."}
    stream = await new(make_client, stream_of(sse(START, other), DONE)).open(wait_for=wait_for)

    assert [EVENTS[0], UnknownEvent("thinking")] == [attrs.evolve(event, raw={}) async for event in stream]
    assert stream.generation.completed


async def test_events_before_the_content(make_client):
    """Events before the first content are read once, also by the observers, and in order."""
    seen = []
    observer = SimpleNamespace(observe=seen.append)
    other = {"type": "thinking", "text": "..."}
    chunks = [sse(START), sse(delta("")), *[sse(other)] * 20, sse(delta("Hello")), sse(END)]
    stream = await new(make_client, stream_of(*chunks), observers=[observer]).open(wait_for="first_event")
    before = len(seen)
    types = [type(event) async for event in stream]

    assert [GenerationStart, ContentDelta, *[UnknownEvent] * 20, ContentDelta, GenerationEnd] == types
    assert [1] == [event.number for event in seen if isinstance(event, ContentReceived)]
    assert any(isinstance(event, ContentReceived) for event in seen[:before])


@pytest.mark.parametrize("events", [[], [START]], ids=["no start", "start"])
async def test_failure_before_content(make_client, events):
    """A generation that fails before its first content raises, and each later read raises the same error."""
    response = stream_of(sse(*events, FAILED), ...)
    stream = new(make_client, response)

    with pytest.raises(StreamInterruptedError, match="the provider failed") as caught:
        await stream.open(wait_for="first_event")
    with pytest.raises(StreamInterruptedError) as again:
        await anext(stream)
    assert caught.value is again.value
    assert response.closed


async def test_failure_after_content(make_client):
    """A failure after the first content is raised by reading, after that content."""
    stream = await new(make_client, stream_of(sse(START, delta("Hello"), FAILED))).open(wait_for="first_event")

    assert EVENTS[:2] == [await anext(stream), await anext(stream)]
    with pytest.raises(StreamInterruptedError) as caught:
        await anext(stream)
    assert "Hello" == caught.value.text


async def test_recovers_before_content(make_client):
    """A stream that breaks after its start continues with the generation that the API completed."""
    whole = {"id": "gen_1", "status": "completed", "content": "Hello, world", "tokens_used": 3}
    stream = new(make_client, stream_of(sse(START), RESET), whole)
    await stream.open(wait_for="first_event")

    assert ["Hello, world"] == [text async for text in stream.text_stream]
    assert "gen_1" == stream.generation.id


async def test_first_event_timeout(make_client):
    """The time until the first event has the limit of the stream."""

    class Silent(FakeResponse):
        async def read_chunk(self, deadline=0.0):
            await anyio.sleep_until(deadline)
            raise APITimeoutError("no data arrived in time", request_sent=True)

    response = Silent(headers={"content-type": "text/event-stream"})
    stream = new(make_client, response, stream_options={"first_event_timeout": 0.01})

    with pytest.raises(StreamTimeoutError) as caught:
        await stream.open(wait_for="first_event")
    assert "first_event" == caught.value.phase
    assert response.closed


@BOTH
@pytest.mark.parametrize("before", ["the response", "the first event"])
async def test_cancelled(make_client, wait_for, before):
    """A cancelled `open` closes the stream, so that the server stops."""

    class Slow(FakeTransport):
        async def send(self, request):
            if before == "the response":
                await anyio.sleep_forever()
            return await super().send(request)

    response = stream_of(sse(START), ...)
    stream = make_client(Slow(response)).stream("gpt-5", "Hi")
    with anyio.move_on_after(0.02) as scope:
        await stream.open(wait_for=wait_for)

    assert scope.cancelled_caught == (before == "the response" or wait_for == "first_event")
    await stream.aclose()
    assert StreamState.CLOSED is stream._state
    assert response.closed == (before == "the first event")


async def test_closed_while_it_waits(make_client):
    """Closing the stream from another task ends the wait."""
    response = stream_of(sse(START), ...)
    stream = new(make_client, response, stream_options={"recover": False})
    opening = asyncio.ensure_future(stream.open(wait_for="first_event"))
    await asyncio.sleep(0.02)
    await stream.aclose()

    with pytest.raises(StreamStateError, match="closed"):
        await opening
    assert response.closed


@BOTH
async def test_opened_once(make_client, wait_for):
    """A stream is opened once, by a block or by `open`; a second attempt does not disturb it."""
    stream = await new(make_client, stream_of(WHOLE)).open()
    for again in (stream.open(wait_for=wait_for), stream.__aenter__()):
        with pytest.raises(StreamStateError, match="opened only once"):
            await again

    assert EVENTS == [event async for event in stream]


@pytest.mark.parametrize("wait_for", ["head", "", None, ["response"]])
async def test_unknown_wait(make_client, wait_for):
    """An unknown *wait_for* sends nothing, and the stream can still be opened."""
    transport = FakeTransport(stream_of(WHOLE))
    stream = make_client(transport).stream("gpt-5", "Hi")
    with pytest.raises(InvalidParameterError, match="wait_for"):
        await stream.open(wait_for=wait_for)

    assert [] == transport.requests
    async with stream:
        assert EVENTS == [event async for event in stream]


@BOTH
async def test_dropped_stream_is_closed(make_client, wait_for):
    """A stream that was opened and dropped, without a block and without `aclose`, closes its connection."""
    response = stream_of(sse(START, delta("Hello")), ...)
    stream = await new(make_client, response).open(wait_for=wait_for)

    del stream
    gc.collect()
    await asyncio.sleep(0.01)
    assert response.closed


async def test_records_the_end(make_client):
    """A call whose `open` fails after the response counts as one that may have been billed."""
    client = make_client(FakeTransport(stream_of(sse(START, FAILED))))
    with pytest.raises(NeuralBoxError):
        await client.stream("gpt-5", "Hi").open(wait_for="first_event")

    assert 1 == client.usage.unknown
