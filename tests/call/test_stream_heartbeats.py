"""`AsyncStream`: heartbeats in every form, the forms of the end, and what stays an interruption."""

from __future__ import annotations

import json

import pytest
from stream_bodies import DONE, END, EVENTS, RESET, START, delta, sse, stream_of

from neuralbox_async import (
    ContentDelta,
    GenerationEnd,
    GenerationStart,
    StreamInterruptedError,
    UnknownEvent,
)
from neuralbox_async.testing import FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left", "fast_paths")

HEARTBEATS = {
    "null delta": b'data: {"type": "content_delta", "delta": null, "finish_reason": "stop"}\n\n',
    "empty delta": b'data: {"type":"content_delta","delta":""}\n\n',
    "empty data": b"data:\n\n",
    "empty data after a space": b"data: \n\n",
    "blank data": b"data:   \n\n",
    "several lines of empty data": b"data:\ndata:\n\n",
    "null": b"data: null\n\n",
    "empty JSON string": b'data: ""\n\n',
    "empty object": b"data: {}\n\n",
    "the word ping": b"data: ping\n\n",
    "a quoted word": b'data: "keep-alive"\n\n',
    "comment": b": keep-alive\n\n",
    "comment in an event without data": b": x\nevent: content_delta\n\n",
    "event without data": b"event: ping\n\n",
    "event with empty data": b"event: ping\ndata:\n\n",
    "known event with empty data": b"event: content_delta\ndata:\n\n",
    "unknown event with text": b"event: ping\ndata: 12:30 all well\n\n",
    "unknown event with a cut object": b'event: log\ndata: {"a\n\n',
    "unknown event with an array": b"event: ping\ndata: [1]\n\n",
    "unknown event with a number": b"event: ping\ndata: 17000\n\n",
    "unknown event with an object": b'event: ping\ndata: {"time": 1}\n\n',
    "unknown type": sse({"type": "ping"}),
    "type that is not a string": sse({"type": 5}),
    "retry": b"retry: 10\n\n",
    "id": b"id: 7\n\n",
    "a byte order mark": b"\xef\xbb\xbfdata: {}\n\n",
}


@pytest.fixture(params=["fast paths", "general paths"])
def fast_paths(request, monkeypatch):
    """Run the test with the fast paths and without them."""
    monkeypatch.setattr("neuralbox_async._fast_paths.enabled", lambda: request.param == "fast paths")


async def read(make_client, *chunks, **options):
    """Return the events of a stream, and its generation or error."""
    events = []
    async with make_client(FakeTransport(stream_of(*chunks))).stream("gpt-5", "Hi", recover=False, **options) as stream:
        try:
            async for event in stream:
                events.append(event)
        except StreamInterruptedError as error:
            return events, error
    return events, stream.generation


@pytest.mark.parametrize("beat", HEARTBEATS.values(), ids=HEARTBEATS)
async def test_heartbeats(make_client, beat):
    """A heartbeat anywhere in a stream changes neither its text nor its end."""
    chunks = [beat, sse(START), beat, sse(delta("Hello")) + beat + sse(delta(", ")), beat * 3, sse(delta("world"), END)]
    events, generation = await read(make_client, *chunks)

    assert EVENTS == [
        event
        for event in events
        if not isinstance(event, UnknownEvent) and (not isinstance(event, ContentDelta) or event.delta)
    ]
    assert ("completed", "Hello, world") == (generation.status, generation.content)

    whole = b"".join(chunks)
    assert (events, generation) == await read(make_client, whole)
    assert (events, generation) == await read(make_client, *[whole[i : i + 1] for i in range(len(whole))])


@pytest.mark.parametrize(
    "data",
    [
        b"[DONE]",
        b" [DONE]",
        b"  [DONE]  ",
        b"\t[DONE]\t",
        b'"[DONE]"',
        b"'[DONE]'",
        b' "[DONE]" ',
        b"[done]",
        b"\xef\xbb\xbf[DONE]",
        b"[DONE]\ndata:",
    ],
)
@pytest.mark.parametrize("event", [b"", b"event: message\n", b"event: done\n", b"id: 7\n"])
async def test_forms_of_the_end(make_client, data, event):
    """``[DONE]`` ends a stream also in quotes, in lower case and with white space around it, under any event type."""
    end = event + b"data:" + data + b"\n\n"
    for after in ([], [RESET]):
        _, generation = await read(make_client, sse(START, delta("Hi")), end, *after)
        assert ("completed", "Hi") == (generation.status, generation.content)


MALFORMED = {
    "cut object": b'data: {"type": "content_delta", "delta": "lo\n\n',
    "cut object under a known type": b'event: content_delta\ndata: {"delta": "lo\n\n',
    "text under a known type": b"event: content_delta\ndata: lost\n\n",
    "text under the end's type": b"event: generation_end\ndata: lost\n\n",
    "text without a type": b"data: lost\n\n",
    "text under the default type": b"event: message\ndata: lost\n\n",
    "cut [DONE]": b"data: [DONE\n\n",
    "array": b"data: []\n\n",
    "delta that is a number": b'data: {"type": "content_delta", "delta": 5}\n\n',
    "missing delta": b'data: {"type": "content_delta", "text": "lost"}\n\n',
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_events_are_no_heartbeats(make_client, data):
    """What may be lost text interrupts the stream, which keeps what arrived before."""
    events, error = await read(make_client, sse(START, delta("Hello")) + data + sse(delta("never"), END))

    assert isinstance(error, StreamInterruptedError)
    assert EVENTS[:2] == events
    assert ("Hello", "gen_1", "unknown") == (error.text, error.generation_id, error.billed)


async def test_the_event_field_is_the_type_of_an_event_without_one(make_client):
    """The text of events whose type is in the ``event`` field only is not lost; the ``type`` member comes first."""
    whole = (
        b'event: generation_start\ndata: {"id": "gen_1", "model": "gpt-5"}\n\n'
        b'event: content_delta\ndata: {"delta": "Hello"}\n\n'
        b'event: content_delta\ndata: {"type": "content_delta", "delta": ", "}\n\n'
        b'event: other\ndata: {"type":"content_delta","delta":"world"}\n\n'
        b'event: generation_end\ndata: {"id": "gen_1", "tokens_used": 3, "balance_remaining": 297}\n\n'
    )
    events, generation = await read(make_client, whole)

    assert EVENTS == events
    assert "Hello, world" == generation.content


@pytest.mark.parametrize("data", [b"", b"null", b"{}"])
async def test_an_end_with_empty_data(make_client, data):
    """A terminal event by its ``event`` field ends the stream also when it has no members."""
    events, generation = await read(make_client, sse(START, delta("Hi")), b"event: generation_end\ndata: %b\n\n" % data)

    assert GenerationEnd() == events[-1]
    assert ("completed", "Hi") == (generation.status, generation.content)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"overloaded", "overloaded"),
        (b'{"message": "overloaded"}', "overloaded"),
        (b'"overloaded"', '"overloaded"'),
        (b"", None),
    ],
)
async def test_an_error_event_by_its_event_field(make_client, data, reason):
    """An event of the type ``error`` is an error event, whatever its data."""
    _, error = await read(make_client, sse(START, delta("Hi")), b"event: error\ndata: %b\n\n" % data, DONE)

    assert isinstance(error, StreamInterruptedError)
    assert ("Hi", reason, "unknown") == (error.text, error.reason, error.billed)


async def test_an_end_with_the_status_failed(make_client):
    """An end that reports a failure is an error event."""
    end = {**END, "status": "failed", "error": "policy"}
    _, error = await read(make_client, sse(START, delta("Hi"), end))

    assert isinstance(error, StreamInterruptedError)
    assert ("Hi", "policy", "gen_1") == (error.text, error.reason, error.generation_id)


async def test_the_text_of_an_unknown_event(make_client):
    """The text of an event of an unknown type that is not JSON is in its *raw*."""
    events, _ = await read(make_client, sse(START), b"event: thinking\ndata: so\ndata: far\n\n" + DONE)

    assert UnknownEvent("thinking", {"data": "so\nfar"}) == events[1]
    assert json.dumps(events[1].raw)


# ------------------------------------------------------------------------------------------- starts, ends and their ids


@pytest.mark.parametrize(
    "events, generation_id, model",
    [
        ([{**START}, {**START, "id": "gen_2", "model": "other"}, END], "gen_1", "gpt-5"),
        ([{**START}, {"type": "generation_start"}, END], "gen_1", "gpt-5"),
        ([{"type": "generation_start"}, {**START}, END], "gen_1", "gpt-5"),
        ([{"type": "generation_start", "model": "gpt-5"}, END], "gen_1", "gpt-5"),
        ([{**START}, {**END, "id": "gen_2"}], "gen_1", "gpt-5"),
        ([{**START}, {**END, "id": None}], "gen_1", "gpt-5"),
        ([END], "gen_1", None),
        ([{**START, "id": 0}, {**START, "id": 7}, END], 0, "gpt-5"),
    ],
)
async def test_ids(make_client, events, generation_id, model):
    """The first id counts: of a start, and without one of the end."""
    _, generation = await read(make_client, sse(*events))

    assert (generation_id, model) == (generation.id, generation.model)


async def test_a_repeated_start_without_an_id_keeps_the_first(make_client):
    """A repeated start without an id does not take the id from the error of the stream."""
    events, error = await read(make_client, sse(START, delta("Hi"), {"type": "generation_start"}))

    assert [GenerationStart("gen_1", "gpt-5"), ContentDelta("Hi"), GenerationStart()] == events
    assert "gen_1" == error.generation_id


@pytest.mark.parametrize(
    "after",
    [
        sse({**END, "tokens_used": 99}),
        sse(delta("more")),
        DONE + sse(delta("more"), {**END, "tokens_used": 99}),
        sse({"type": "error", "message": "late"}),
        sse({**START, "id": "gen_2"}),
        b"event: error\ndata: late\n\n",
    ],
)
async def test_after_the_end(make_client, after):
    """The first terminal event counts; what follows is ignored, in the same chunk and in later ones."""
    for chunks in ([sse(START, delta("Hi"), END) + after], [sse(START, delta("Hi"), END), after]):
        events, generation = await read(make_client, *chunks)

        assert 3 == len(events)
        assert ("gen_1", "Hi", 3) == (generation.id, generation.content, generation.tokens_used)


@pytest.mark.parametrize("name", ["content", "result_text"])
@pytest.mark.parametrize("before", [[], [delta("")], [{"type": "ping"}]], ids=["nothing", "empty delta", "heartbeat"])
async def test_the_text_in_the_terminal_event(make_client, before, name):
    """A text that comes with the terminal event alone is delivered; after deltas, it is the same text once more."""
    end = {**END, name: "Hello"}

    events, generation = await read(make_client, sse(START, *before, end))
    assert "Hello" == generation.content == "".join(each.delta for each in events if isinstance(each, ContentDelta))

    _, generation = await read(make_client, sse(START, delta("Hel"), delta("lo"), end))
    assert "Hello" == generation.content
