"""The fast paths return the same as the general paths, and leave everything else to them."""

from __future__ import annotations

import functools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from json_values import JSON_VALUES

from neuralbox_async import (
    ContentDelta,
    GenerateRequest,
    Generation,
    GenerationFailedError,
    InvalidParameterError,
    Message,
    ResponseError,
    UnknownEvent,
)
from neuralbox_async._wire.events import decode_event
from neuralbox_async._wire.fast_path import (
    delta_event,
    delta_events,
    encode_plain,
    encode_plain_request,
    plain_generation,
    take_deltas,
)
from neuralbox_async._wire.requests import encode_request
from neuralbox_async._wire.responses import decode_generation
from neuralbox_async._wire.structuring import structure

pytestmark = pytest.mark.usefixtures("json_library", "fast_paths_on")

# ----------------------------------------------------------------------------------------------------------- requests

TEXTS = st.text(st.characters())  # with lone surrogates
TURNS = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]) | JSON_VALUES, "content": TEXTS | JSON_VALUES},
    optional={"name": TEXTS},
)
PLAIN_TURNS = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text()})
# Texts that JSON escapes, or that orjson and the standard library might escape differently.
ESCAPED = st.text(st.sampled_from('"\\/\b\f\n\r\t\0\x1f\x7f\x80\u2028\u2029\ufeff\uffff\U0001f600<&'))


def outcome(function, *args, **kwargs):
    """Return the result of a call, or the type, parameter and message of its `InvalidParameterError`."""
    try:
        return function(*args, **kwargs)
    except InvalidParameterError as error:
        return type(error), error.parameter, str(error)


def general_body(model, messages, **settings):
    return encode_request(GenerateRequest(model, messages, **settings), stream=False)


@given(
    TEXTS | ESCAPED | JSON_VALUES,
    TEXTS | ESCAPED | st.lists(PLAIN_TURNS) | st.lists(TURNS) | JSON_VALUES,
    st.none() | TEXTS | ESCAPED | JSON_VALUES,
    st.none() | st.floats(-1.0, 3.0) | JSON_VALUES,
    st.none() | st.integers(-1, 2**70) | JSON_VALUES,
)
@example("gpt-5", "Hi", "\ud800", None, None)
@example("gpt-5", "\ud800", None, 9.0, None)
@example("\ud800", "Hi", None, 9.0, None)
@example("", "Hi", None, 9.0, None)
@example("gpt-5", [], None, 9.0, None)
@example("gpt-5", "Hi", None, float("nan"), True)
def test_any_request(model, messages, system, temperature, max_tokens):
    """For any parameters the body or the error is that of the general path, or the general path is taken."""
    settings = {"system": system, "temperature": temperature, "max_tokens": max_tokens}

    actual = outcome(encode_plain, model, messages, *settings.values())

    assert actual is None or outcome(general_body, model, messages, **settings) == actual


@pytest.mark.parametrize("messages", ["Hi", [{"role": "user", "content": "Hi"}, {"content": "Я", "role": "assistant"}]])
@pytest.mark.parametrize("settings", [{}, {"system": "Be brief.", "temperature": 0.5, "max_tokens": 9}])
def test_plain_requests(messages, settings):
    """Text with any settings takes the fast path."""
    values = [settings.get(name) for name in ("system", "temperature", "max_tokens")]

    assert general_body("gpt-5", messages, **settings) == encode_plain("gpt-5", messages, *values)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        {"role": "user", "content": "Hi"},
        [Message("user", "Hi")],
        [{"role": "user", "content": "Hi", "name": "Ivan"}],
        [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        [{"role": "wizard", "content": "Hi"}],
        [{"role": ["user"], "content": "Hi"}],
        [{"role": "user", "text": "Hi"}],
        ({"role": "user", "content": "Hi"},),
        "\ud800",
    ],
)
def test_other_requests(messages):
    """All other messages take the general path."""
    assert encode_plain("gpt-5", messages, None, None, None) is None


class Name(str):
    """A string of another type."""

    __slots__ = ()


@pytest.mark.parametrize("model", ["", "\ud800", 5, None, Name("gpt-5")])
def test_other_models(model):
    """A model that is not ordinary text takes the general path."""
    assert encode_plain(model, "Hi", None, None, None) is None


MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant"]),
    st.text() | ESCAPED | st.just([{"type": "text", "text": "Hi"}]),
    extra=st.just({}) | st.just({"name": "Ivan"}),
)


@given(
    TEXTS | ESCAPED,
    st.lists(MESSAGES, min_size=1),
    st.none() | TEXTS | ESCAPED,
    st.none() | st.floats(0.0, 2.0),
    st.just({}) | st.just({"seed": 1}),
)
def test_any_request_object(model, messages, system, temperature, extra_body):
    """For any `GenerateRequest` the body is that of the general path, or the general path is taken."""
    request = outcome(GenerateRequest, model, messages, system=system, temperature=temperature, extra_body=extra_body)
    body = encode_plain_request(request) if isinstance(request, GenerateRequest) else None

    assert body is None or encode_request(request, stream=False) == body


def test_plain_request_objects():
    """A `GenerateRequest` of texts takes the fast path, one with other members does not."""
    plain = GenerateRequest("gpt-5", [Message("user", "Hi"), Message("assistant", "Я")], temperature=0.5)
    others = [
        GenerateRequest("gpt-5", "Hi", extra_body={"seed": 1}),
        GenerateRequest("gpt-5", [{"role": "user", "content": "Hi", "name": "Ivan"}]),
        GenerateRequest("gpt-5", [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]),
    ]

    assert encode_request(plain, stream=False) == encode_plain_request(plain)
    assert [None] * 3 == [encode_plain_request(request) for request in others]


# ---------------------------------------------------------------------------------------------------------- responses

SAMPLE = {
    "id": "gen_01",
    "status": "completed",
    "model": "claude-sonnet-4.5",
    "content": "Hello",
    "tokens_used": 3,
    "balance_remaining": 297,
    "usage": {"prompt_tokens": 142, "completion_tokens": 387, "total_tokens": 529},
    "created_at": "2026-03-08T12:00:00Z",
}
TIMES = st.datetimes(timezones=st.none() | st.timezones()).map(lambda time: time.isoformat())
COUNTS = st.integers() | st.sampled_from([2**63, 2**64, -(2**63) - 1, True, 3.0])
VALUES = dict.fromkeys(SAMPLE, JSON_VALUES) | {
    "status": st.sampled_from(["completed", "pending", "failed"]) | JSON_VALUES,
    "content": TEXTS | JSON_VALUES,
    "tokens_used": COUNTS | JSON_VALUES,
    "balance_remaining": COUNTS | JSON_VALUES,
    "usage": JSON_VALUES | st.fixed_dictionaries(dict.fromkeys(SAMPLE["usage"], COUNTS), optional={"other": COUNTS}),
    "created_at": st.sampled_from(["2026-03-08", "20260308T12", "2026-03-08T24:00", "soon"]) | TIMES | JSON_VALUES,
}
CHANGES = st.fixed_dictionaries({}, optional={**VALUES, "error": JSON_VALUES, "result_text": JSON_VALUES})


def general_generation(members):
    """Return the generation of the converter, or the message of its error."""
    try:
        return structure(members, Generation, b"")
    except ResponseError as error:
        return str(error)


def is_same(expected, actual):
    """Return whether two generations agree in every attribute and its type."""
    return [(name, repr(value)) for name, value in sorted(vars(expected).items())] == [
        (name, repr(value)) for name, value in sorted(vars(actual).items())
    ]


@given(CHANGES, st.sets(st.sampled_from(sorted(SAMPLE))))
@example({}, set())
@example({"tokens_used": True}, set())
@example({"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 1, "other": 1}}, set())
@example({"usage": {"prompt_tokens": None, "completion_tokens": 1, "total_tokens": 1}}, set())
def test_any_variation_of_the_sample(changes, missing):
    """A generation of the fast path is that of the converter, in every attribute."""
    members = {name: value for name, value in {**SAMPLE, **changes}.items() if name not in missing}

    actual = plain_generation(members)

    if actual is not None:
        expected = general_generation(members)
        assert expected == actual
        assert is_same(expected, actual)
        assert hash(expected.usage) == hash(actual.usage)
        assert expected.raw is actual.raw


@pytest.mark.parametrize("created_at", ["2026-03-08T12:00:00Z", "2026-03-08T12:00:00", "2026-03-08T12:00:00.5+03:00"])
def test_plain_responses(created_at):
    """The vendor's sample takes the fast path, with any time."""
    members = {**SAMPLE, "created_at": created_at}

    assert is_same(general_generation(members), plain_generation(members))


@pytest.mark.parametrize("members", [None, 5, "text", [], [SAMPLE], {}, {**SAMPLE, "id": 5}, {**SAMPLE, "more": 1}])
def test_other_responses(members):
    """All other JSON takes the general path."""
    assert plain_generation(members) is None


@given(CHANGES)
def test_bodies(changes):
    """A body has one outcome, with the fast path and without it."""
    body = json.dumps({**SAMPLE, **changes}).encode()

    def decoded():
        try:
            return decode_generation(200, {}, body)
        except (ResponseError, GenerationFailedError) as error:
            return type(error), str(error), error.text, error.generation_id, getattr(error, "body", None)

    fast = decoded()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralbox_async._fast_paths.enabled", lambda: False)
        assert repr(decoded()) == repr(fast)


# ------------------------------------------------------------------------------------------------------------- events

PLAIN_DELTA = b'{"type":"content_delta","delta":"a"}'
EVENTS = st.fixed_dictionaries(
    {}, optional={"type": st.just("content_delta") | JSON_VALUES, "delta": st.text() | JSON_VALUES, "id": JSON_VALUES}
)
PLAIN_EVENTS = st.fixed_dictionaries({"type": st.just("content_delta"), "delta": TEXTS})
NOTATIONS = st.builds(functools.partial, st.just(json.dumps), ensure_ascii=st.booleans(), indent=st.none() | st.just(1))
EVENT_DATA = (
    st.builds(lambda write, event: write(event).encode("utf-8", "replace"), NOTATIONS, PLAIN_EVENTS | EVENTS)
    | st.sampled_from([PLAIN_DELTA, PLAIN_DELTA, b"[DONE]", b"", b"\xef\xbb\xbf" + PLAIN_DELTA, b" " + PLAIN_DELTA])
    | st.binary()
    | st.text().map(lambda text: text.encode("utf-8", "replace"))
    | st.just(b'{"delta":12345678901234567890123,"type":"content_delta","delta":"a"}')
)


def text_of(data):
    return data if isinstance(data, str) else data.decode("utf-8", "replace")


def general_event(data):
    """Return the event of the general path with its `raw`, or the type and message of its error."""
    try:
        event = decode_event(text_of(data))
    except (ResponseError, GenerationFailedError) as error:
        return type(error), str(error)
    return event, repr(getattr(event, "raw", None)), type(event)


@given(st.lists(EVENT_DATA.flatmap(lambda data: st.sampled_from([data, text_of(data)]))))
def test_any_events(events):
    """The events of a stream are those of the general path, however many of them the fast path takes."""
    left, actual, taken = iter(events), [], []

    while (other := take_deltas(left, taken.append)) is not None:
        actual += [*map(delta_event, taken), other]
        taken.clear()
    actual += map(delta_event, taken)

    assert [general_event(data) for data in events] == [
        (event, repr(event.raw), ContentDelta) if isinstance(event, ContentDelta) else general_event(event)
        for event in actual
    ]


@given(st.lists(PLAIN_EVENTS))
def test_deltas_in_bulk(events):
    """Events that are made in bulk are those made one by one."""
    together, alone = delta_events(events), list(map(delta_event, events))

    assert alone == together
    assert list(map(hash, alone)) == list(map(hash, together))
    assert all(one.raw is other.raw for one, other in zip(alone, together, strict=True))


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
def test_which_events_are_taken(data, taken):
    """Deltas like the vendor's sample are taken, up to the first event of another form."""
    actual = []

    left = take_deltas(iter([PLAIN_DELTA, data, PLAIN_DELTA]), actual.append)

    assert (None if taken else data) == left
    assert (3 if taken else 1) == len(actual)
    assert ContentDelta("a") == delta_event(actual[0])


# --------------------------------------------------------------------------------------------------------- the switch


def test_switched_off(monkeypatch):
    """With the fast paths off, the general paths are always taken."""
    monkeypatch.setattr("neuralbox_async._fast_paths.enabled", lambda: False)
    actual = []

    assert encode_plain("gpt-5", "Hi", None, None, None) is None
    assert encode_plain_request(GenerateRequest("gpt-5", "Hi")) is None
    assert plain_generation(SAMPLE) is None
    assert take_deltas(iter([PLAIN_DELTA]), actual.append) == PLAIN_DELTA
    assert take_deltas(iter([]), actual.append) is None
    assert [] == actual


def test_unknown_events_are_left():
    """An event of an unknown type is left for the general path, which keeps its members."""
    data = b'{"type":"thinking","delta":"a"}'

    assert data == take_deltas(iter([data]), [].append)
    assert UnknownEvent("thinking", json.loads(data)) == decode_event(data.decode())
