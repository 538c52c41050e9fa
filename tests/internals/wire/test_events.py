"""The decoder of events is strict about types and tolerant about dialects, with orjson and without it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import JSON_VALUES

from neuralbox_async import (
    ContentDelta,
    GenerationEnd,
    GenerationFailedError,
    GenerationStart,
    ResponseError,
    UnknownEvent,
    Usage,
)
from neuralbox_async._wire.events import decode_event
from neuralbox_async._wire.sse import NamedData

pytestmark = pytest.mark.usefixtures("json_library")


def named(name, data):
    """Return *data* as of a server-sent event with the type *name*."""
    event = NamedData(data)
    event.event = name
    return event


@pytest.mark.parametrize(
    "data, event",
    [
        ({"type": "generation_start", "id": "gen_1", "model": "gpt-5"}, GenerationStart("gen_1", "gpt-5")),
        ({"type": "generation_start", "id": 18473, "model_slug": "gpt-5"}, GenerationStart(18473, "gpt-5")),
        ({"type": "content_delta", "delta": "Hi"}, ContentDelta("Hi")),
        ({"type": "content_delta", "delta": ""}, ContentDelta("")),
        ({"type": "generation_end", "id": 1, "tokens_used": 3, "balance_remaining": 9}, GenerationEnd(1, 3, 9)),
        ({"type": "generation_end", "id": 1, "tokens_spent": 3}, GenerationEnd(1, 3)),
        ({"type": "generation_end", "usage": {"total_tokens": 5}}, GenerationEnd(usage=Usage(total_tokens=5))),
    ],
)
def test_documented_events(data, event):
    """Each documented event of both dialects has a class, and keeps the JSON object as `raw`."""
    actual = decode_event(json.dumps(data))

    assert event == actual
    assert data == actual.raw


@pytest.mark.parametrize("data", [{"type": "thinking", "x": 1}, {"type": None}, {"type": 5}, {"x": 1}, {}])
def test_unknown_events(data):
    """An event of an unknown type is an `UnknownEvent` that holds the whole JSON object."""
    event_type = data.get("type")

    assert UnknownEvent(event_type if isinstance(event_type, str) else "", data) == decode_event(json.dumps(data))


@pytest.mark.parametrize(
    "data, reason",
    [
        ({"type": "error", "message": "no"}, "no"),
        ({"type": "error", "error": "no"}, "no"),
        ({"type": "error", "error": {"message": "no", "code": 5}}, "no"),
        ({"error": {"message": "no"}}, "no"),
        ({"error": "no"}, "no"),
        ({"type": "error"}, None),
        ({"type": "error", "message": 5}, None),
    ],
)
def test_error_events(data, reason):
    """An error event raises a `GenerationFailedError` with the reason, in each shape of an error."""
    with pytest.raises(GenerationFailedError, match=reason or "without a reason") as caught:
        decode_event(json.dumps(data))

    assert reason == caught.value.reason


def test_the_reason_of_an_error_event_is_bounded():
    """The message of an error quotes at most 500 characters of a reason."""
    with pytest.raises(GenerationFailedError) as caught:
        decode_event(json.dumps({"type": "error", "message": "x" * 10_000}))

    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "data, message",
    [
        ("{", "not JSON"),
        ("[]", "got an array"),
        ("5", "got a number"),
        ('{"type": "content_delta", "delta": 5}', r"expected a string, got a number at \$.delta"),
        ('{"type": "content_delta"}', r"required member is missing at \$.delta"),
        ('{"type": "generation_end", "id": [3]}', r"expected a string or an integer, got an array at \$.id"),
        ('{"type": "generation_start", "id": 1.5, "model": 5}', r"expected a string or an integer, .* at \$.id"),
    ],
)
def test_malformed_events(data, message):
    """A malformed event raises a `ResponseError` that keeps its data."""
    with pytest.raises(ResponseError, match=message) as caught:
        decode_event(data)

    assert data.encode() == caught.value.body


@pytest.mark.parametrize("data", ["", " ", "\n", "null", " null ", '""', "ping", "PING", '"pong"', "keep-alive"])
def test_heartbeats(data):
    """Data without content is a heartbeat."""
    assert decode_event(data) is None
    assert decode_event(named("content_delta", data)) is None
    assert "ping" == decode_event(named("ping", data)).type


def test_null_deltas():
    """A delta that is null is an empty piece of text, unlike one that is missing."""
    event = decode_event('{"type": "content_delta", "delta": null, "index": 0}')

    assert ContentDelta("") == event
    assert {"type": "content_delta", "delta": None, "index": 0} == event.raw


@pytest.mark.parametrize(
    "name, data, event",
    [
        ("content_delta", '{"delta": "Hi"}', ContentDelta("Hi")),
        ("content_delta", '{"type": null, "delta": "Hi"}', ContentDelta("Hi")),
        ("content_delta", '{"type": "", "delta": "Hi"}', ContentDelta("Hi")),
        ("other", '{"type": "content_delta", "delta": "Hi"}', ContentDelta("Hi")),
        ("content_delta", '{"type": "other"}', UnknownEvent("other", {"type": "other"})),
        ("generation_start", '{"id": 7}', GenerationStart(7)),
        ("generation_end", '{"id": 7}', GenerationEnd(7)),
        ("generation_end", "", GenerationEnd()),
        ("other", "text", UnknownEvent("other", {"data": "text"})),
        ("other", "[1]", UnknownEvent("other", {"data": "[1]"})),
        ("other", '{"a', UnknownEvent("other", {"data": '{"a'})),
        ("other", '{"a": 1}', UnknownEvent("other", {"a": 1})),
    ],
)
def test_types_of_server_sent_events(name, data, event):
    """The ``event`` field is the type of an event whose JSON has none."""
    assert event == decode_event(named(name, data))


@pytest.mark.parametrize("data", ["{", "text", "[1]", '{"delta": 5}', '{"text": "lost"}'])
def test_malformed_events_of_a_known_type(data):
    """An event of a known type is malformed when its data is."""
    with pytest.raises(ResponseError):
        decode_event(named("content_delta", data))


@given(
    st.text(), st.dictionaries(st.sampled_from(["type", "delta", "id", "tokens_used", "usage", "model"]), JSON_VALUES)
)
def test_any_event(text, members):
    """Any data is an event, or raises a `ResponseError` or the error of an error event."""
    for data in (text, json.dumps(members), json.dumps({**members, "type": "content_delta"})):
        for name in ("content_delta", "generation_end", "error", text, None):
            try:
                decode_event(data if name is None else named(name, data))
            except (ResponseError, GenerationFailedError):
                continue
