"""`AsyncStream`: unfinished and malformed generations in place of a stream."""

from __future__ import annotations

import json

import anyio
import pytest
from stream_bodies import DONE, END, START, delta, sse, stream_of

from neuralbox_async import (
    APIConnectionError,
    ContentDelta,
    GenerationEnd,
    GenerationStart,
    StreamInterruptedError,
    StreamTimeoutError,
)
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")


def status_code(code):
    return FakeResponse(b'{"error": "x", "message": "y"}', status_code=code)


PENDING = {"id": 7, "status": "pending"}
# Each as the response of a plain call, and as an event of a stream.
ANSWERS = {
    "JSON": lambda members: FakeResponse(json.dumps(members).encode()),
    "JSON with the type of a stream": lambda members: stream_of(json.dumps(members).encode()),
    "JSON after a byte order mark": lambda members: stream_of(b"\xef", b"\xbb\xbf", json.dumps(members).encode()),
    "an event, then the end": lambda members: stream_of(sse(members) + DONE),
    "an event, then nothing": lambda members: stream_of(sse(members)),
}


@pytest.fixture(params=ANSWERS.values(), ids=ANSWERS)
def answer(request):
    return request.param


async def interruption(make_client, *responses, **options):
    """Return the error of a stream, and its text."""
    transport = FakeTransport(*responses)
    texts = []
    with anyio.fail_after(20), pytest.raises(StreamInterruptedError) as caught:
        async with make_client(transport).stream("gpt-5", "Hi", **options) as stream:
            async for text in stream.text_stream:
                texts.append(text)
    error = caught.value
    assert "".join(texts) == error.text == error.generation.content == stream.generation.content
    assert ("incomplete", error.generation_id) == (stream.generation.status, error.generation.id)
    assert ["POST"] == [request.method for request in transport.requests if request.method != "GET"]
    return error


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 409, 410, 422, 501, 302])
async def test_refused_status_requests(make_client, answer, code):
    """When the status request is refused, the error is an interruption with the id, possibly billed."""
    error = await interruption(make_client, answer(PENDING), status_code(code))

    assert (7, "unknown", True) == (error.generation_id, error.billed, error.request_sent)


@pytest.mark.long
@pytest.mark.parametrize("failure", [status_code(500), status_code(503), status_code(429), PENDING, None])
async def test_pending_at_the_stall_timeout(make_client, answer, failure):
    """When the generation is not finished at the stall timeout, the error is an interruption with the id."""
    failure = APIConnectionError("reset", request_sent=True) if failure is None else failure
    error = await interruption(make_client, answer(PENDING), failure, stall_timeout=0.3, max_retries=0)

    assert (7, "unknown") == (error.generation_id, error.billed)
    assert not isinstance(error, StreamTimeoutError) or error.phase in {"stall", "total"}


@pytest.mark.long
@pytest.mark.parametrize("response", [FakeResponse(b"<html>"), FakeResponse(b""), {"status": "pending"}])
async def test_malformed_status_responses(make_client, answer, response):
    """When the status response is malformed or says nothing, the error is an interruption with the id."""
    error = await interruption(make_client, answer(PENDING), response, stall_timeout=0.3)

    assert (7, "unknown") == (error.generation_id, error.billed)


@pytest.mark.parametrize("status", ["pending", "queued", ""])
@pytest.mark.parametrize("identifier", [7, "gen_1", None, "", "..", "\ud800", 0])
async def test_not_recovered(make_client, answer, identifier, status):
    """Without recovery, or an id that can be used, the error is an interruption with the id if there is one."""
    response = {"id": identifier, "status": status}
    for recover in [False] if identifier in {7, "gen_1", 0} else [False, True]:
        error = await interruption(make_client, answer(response), recover=recover)

        assert (identifier, "unknown") == (error.generation_id, error.billed)


async def test_the_text_of_an_unfinished_generation(make_client):
    """The text that an unfinished generation has is delivered, and recovery continues behind it."""
    part = {**PENDING, "content": "Hello"}
    error = await interruption(make_client, part, recover=False)
    assert ("Hello", 7) == (error.text, error.generation_id)

    transport = FakeTransport(part, {"id": 7, "status": "completed", "content": "Hello, world", "tokens_used": 3})
    async with make_client(transport).stream("gpt-5", "Hi") as stream:
        assert ["Hello", ", world"] == [text async for text in stream.text_stream]
    assert ("completed", 3) == (stream.generation.status, stream.generation.tokens_used)


@pytest.mark.parametrize("members", [{"id": [7]}, {"status": 5}, {"id": 7, "status": []}])
async def test_the_text_of_a_malformed_generation(make_client, members):
    """The text of JSON that is malformed elsewhere is delivered before the error, which has the id."""
    response = {"content": "Hello", **members}
    error = await interruption(make_client, response, recover=False)

    assert ("Hello", "unknown") == (error.text, error.billed)
    assert (7 if members.get("id") == 7 else None) == error.generation_id


async def test_a_failed_generation_has_its_id(make_client):
    """The error of a failed generation in place of a stream has its id; it was not billed."""
    error = await interruption(make_client, {"id": 7, "status": "failed", "error": "policy"})

    assert (7, "no", "policy") == (error.generation_id, error.billed, error.reason)


@pytest.mark.long
async def test_recovered(make_client, answer):
    """The text of an unfinished generation is read when it is finished."""
    whole = {"id": 7, "status": "completed", "content": "Hello", "tokens_used": 3}
    transport = FakeTransport(answer(PENDING), PENDING, whole)
    async with make_client(transport).stream("gpt-5", "Hi") as stream:
        assert ["Hello"] == [text async for text in stream.text_stream]
    assert ("completed", 7, 3) == (stream.generation.status, stream.generation.id, stream.generation.tokens_used)
    assert ["POST", "GET", "GET"] == [request.method for request in transport.requests]


@pytest.mark.parametrize("after", [b"", DONE, sse(END), sse(delta("never"))])
async def test_a_whole_generation_as_an_event(make_client, after):
    """The text of a whole generation that arrives as an event is not lost."""
    whole = {"id": 7, "status": "completed", "model": "gpt-5", "content": "Hello", "tokens_used": 3}
    async with make_client(FakeTransport(stream_of(sse(whole) + after))).stream("gpt-5", "Hi") as stream:
        assert [ContentDelta("Hello"), GenerationEnd(7, 3)] == [event async for event in stream]
    assert ("completed", "Hello", 3) == (
        stream.generation.status,
        stream.generation.content,
        stream.generation.tokens_used,
    )


async def test_a_failed_generation_as_an_event(make_client):
    """A failed generation that arrives as an event interrupts the stream."""
    error = await interruption(make_client, stream_of(sse({"id": 7, "status": "failed"}) + DONE))

    assert "no" == error.billed


async def test_generations_beside_deltas(make_client):
    """Events that describe the generation while its text arrives change neither the text nor its end."""
    described = [PENDING, {**PENDING, "status": "completed", "content": "Hello"}]
    whole = sse(PENDING, delta("Hel"), PENDING, delta("lo"), *described) + DONE
    for chunks in ([whole], [whole[i : i + 1] for i in range(len(whole))]):
        async with make_client(FakeTransport(stream_of(*chunks))).stream("gpt-5", "Hi") as stream:
            events = [event async for event in stream]
        assert GenerationStart(7) == events[0]
        assert ("completed", "Hello") == (stream.generation.status, stream.generation.content)

    async with make_client(FakeTransport(stream_of(sse(START, PENDING, delta("Hi"), END)))).stream("m", "Hi") as stream:
        assert ("gen_1", "Hi") == ((generation := await stream.get_final_generation()).id, generation.content)
