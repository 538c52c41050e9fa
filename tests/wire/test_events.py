"""Events from JSON: strict about types, tolerant about dialects; the same with orjson and without."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import JSON_VALUES

from neuralbox_async import ContentDelta, GenerationEnd, GenerationStart, ResponseError, UnknownEvent, Usage
from neuralbox_async._wire.events import decode_event
from neuralbox_async._wire.fast_path import delta_event, delta_events, take_deltas

pytestmark = pytest.mark.usefixtures("json_library")


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
def test_events(data, event):
    """Each documented event of both dialects has its type, and keeps what came."""
    found = decode_event(json.dumps(data))

    assert event == found
    assert data == found.raw


@pytest.mark.parametrize("data", [{"type": "thinking", "x": 1}, {"type": None}, {"type": 5}, {"x": 1}, {}])
def test_unknown_events(data):
    """An event of unknown type is passed on whole."""
    kind = data.get("type")

    assert UnknownEvent(kind if isinstance(kind, str) else "", data) == decode_event(json.dumps(data))


def test_error_events_are_given_as_they_are():
    """What to raise for an error event is not the codec's business."""
    assert {"type": "error", "message": "no"} == decode_event('{"type": "error", "message": "no"}')


@pytest.mark.parametrize(
    "data, message",
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "got an array"),
        ("5", "got a number"),
        ('{"type": "content_delta", "delta": 5}', r"expected a string, got a number @ \$.delta"),
        ('{"type": "content_delta"}', r"required member is missing @ \$.delta"),
        ('{"type": "content_delta", "delta": null}', r"required member is missing @ \$.delta"),
        ('{"type": "generation_end", "tokens_spent": "3"}', r"expected an integer, got a string @ \$.tokens_spent"),
    ],
)
def test_broken_events(data, message):
    """A broken event is a `ResponseError` that keeps its data."""
    with pytest.raises(ResponseError, match=message) as caught:
        decode_event(data)

    assert data.encode() == caught.value.body


@given(
    st.text(), st.dictionaries(st.sampled_from(["type", "delta", "id", "tokens_used", "usage", "model"]), JSON_VALUES)
)
def test_any_event(text, members):
    """Any data gives an event or a `ResponseError`."""
    for data in (text, json.dumps(members), json.dumps({**members, "type": "content_delta"})):
        try:
            decode_event(data)
        except ResponseError:
            continue


PLAIN_DELTA = b'{"type":"content_delta","delta":"a"}'


@pytest.mark.parametrize(
    "data, taken",
    [
        (PLAIN_DELTA, True),
        (PLAIN_DELTA.decode(), True),
        (b"\xef\xbb\xbf" + PLAIN_DELTA, False),
        (PLAIN_DELTA.replace(b'"a"', b'"\xff"'), False),
        (PLAIN_DELTA.replace(b'"a"', b"1"), False),
        (PLAIN_DELTA.replace(b"}", b',"index":0}'), False),
        (b'{"type":"ping","delta":"a"}', False),
        (b"[1,2]", False),
        (b"7", False),
        (b"[DONE]", False),
        (b"", False),
    ],
)
def test_plain_deltas_are_taken(data, taken):
    """Deltas like the vendor's are taken up to the first event that is none, whatever its JSON is."""
    found = []

    left = take_deltas(iter([PLAIN_DELTA, data, PLAIN_DELTA]), found.append)

    assert (None if taken else data) == left
    assert (3 if taken else 1) == len(found)
    assert ContentDelta("a") == delta_event(found[0])
    together = delta_events(found)
    assert [(ContentDelta(one["delta"]), one) for one in found] == [(event, event.raw) for event in together]
