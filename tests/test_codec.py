"""JSON to values and back: strict about types, tolerant about dialects; the same with orjson and without."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async import (
    ContentDelta,
    GenerateRequest,
    Generation,
    GenerationEnd,
    GenerationStart,
    ImagePart,
    InvalidParameterError,
    Message,
    ResponseError,
    TextPart,
    UnknownEvent,
    Usage,
    _codec,
)


@pytest.fixture(params=["orjson", "standard library"], autouse=True)
def json_library(request, monkeypatch):
    """Every test here runs with orjson and without: behaviour never depends on which extra is installed."""
    if request.param == "orjson":
        pytest.importorskip("orjson")
    else:
        monkeypatch.setattr(_codec, "orjson", None)


def load(**members: object) -> Generation:
    return _codec.load_generation(json.dumps(members).encode())


FIRST_DIALECT = {
    "id": "gen_01",
    "status": "completed",
    "model": "claude-sonnet-4.5",
    "content": "Hello",
    "tokens_used": 3,
    "balance_remaining": 297,
    "usage": {"prompt_tokens": 142, "completion_tokens": 387, "total_tokens": 529},
    "created_at": "2026-03-08T12:00:00Z",
}
SECOND_DIALECT = {
    "id": 18473,
    "status": "completed",
    "model_slug": "gpt-5",
    "result_text": "Hello",
    "result_url": None,
    "thumbnail_url": None,
    "error": None,
    "tokens_spent": 3,
    "processing_ms": 1842,
    "result_metadata": None,
}


def test_first_dialect():
    """Every documented member of the primary contract has its field."""
    expected = Generation(
        id="gen_01",
        status="completed",
        model="claude-sonnet-4.5",
        content="Hello",
        tokens_used=3,
        balance_remaining=297,
        usage=Usage(prompt_tokens=142, completion_tokens=387, total_tokens=529),
        created_at=datetime(2026, 3, 8, 12, tzinfo=UTC),
    )

    assert expected == load(**FIRST_DIALECT)
    assert load(**FIRST_DIALECT).raw == FIRST_DIALECT


def test_second_dialect():
    """The second dialect's names mean the same, and null means absent."""
    expected = Generation(
        id=18473, status="completed", model="gpt-5", content="Hello", tokens_used=3, processing_ms=1842
    )

    assert expected == load(**SECOND_DIALECT)


@pytest.mark.parametrize(
    "members, field, value",
    [
        ({"content": None, "result_text": "b"}, "content", "b"),
        ({"content": "a", "result_text": "b"}, "content", "a"),
        ({"content": ""}, "content", ""),
        ({}, "content", ""),
        ({"tokens_used": 0, "tokens_spent": 3}, "tokens_used", 0),
        ({"tokens_spent": 0}, "tokens_used", 0),
        ({"tokens_used": 3.0}, "tokens_used", 3),
        ({}, "tokens_used", None),
        ({"model_slug": "b"}, "model", "b"),
        ({"url": "u"}, "url", "u"),
        ({"output_url": "o"}, "url", "o"),
        ({"result_url": "r", "url": "u"}, "url", "r"),
        ({"duration": 5, "width": 10, "height": None}, "metadata", {"duration": 5, "width": 10}),
        ({"duration_seconds": 30}, "metadata", {"duration_seconds": 30}),
        ({"result_metadata": {"width": 1}, "width": 2}, "metadata", {"width": 1}),
        ({"progress": 45, "eta_seconds": 32}, "eta_seconds", 32.0),
        ({"status": "queued"}, "status", "queued"),
        ({"usage": {}}, "usage", Usage()),
        ({"usage": {"total_tokens": None, "reasoning_tokens": 5}}, "usage", Usage()),
        ({"created_at": "2026-03-08T12:00:00"}, "created_at", datetime(2026, 3, 8, 12, tzinfo=UTC)),
        (
            {"created_at": "2026-03-08T12:00:00.5+03:00"},
            "created_at",
            datetime(2026, 3, 8, 12, 0, 0, 500_000, tzinfo=timezone(timedelta(hours=3))),
        ),
        ({"id": 10**30}, "id", 10**30),
    ],
)
def test_variants(members, field, value):
    """Whatever variant a page documents is read as the same thing."""
    found = getattr(load(**members), field)

    assert value == found
    assert type(value) is type(found)


def test_unknown_members_are_kept():
    """What this version does not know is in `raw`."""
    assert load(id=1, surprise={"a": [1]}).raw["surprise"] == {"a": [1]}


@pytest.mark.parametrize(
    "members, path, expected",
    [
        ({"id": True}, "$.id", "a string or an integer"),
        ({"id": 1.5}, "$.id", "a string or an integer"),
        ({"status": 5}, "$.status", "a string"),
        ({"content": ["a"]}, "$.content", "a string"),
        ({"content": None, "result_text": 5}, "$.result_text", "a string"),
        ({"tokens_used": "3"}, "$.tokens_used", "an integer"),
        ({"tokens_spent": 3.5}, "$.tokens_spent", "an integer"),
        ({"tokens_used": False}, "$.tokens_used", "an integer"),
        ({"usage": [1]}, "$.usage", "an object"),
        ({"usage": {"total_tokens": "x"}}, "$.usage.total_tokens", "an integer"),
        ({"created_at": 1709903600}, "$.created_at", "an ISO 8601 time"),
        ({"created_at": "yesterday"}, "$.created_at", "an ISO 8601 time"),
        ({"result_metadata": "x"}, "$.result_metadata", "an object"),
        ({"progress": "45"}, "$.progress", "a finite number"),
        ({"progress": 10**400}, "$.progress", "a finite number"),
    ],
)
def test_wrong_types(members, path, expected):
    """A wrong type is an error that names the path and keeps body, text and id; nothing is coerced."""
    body = json.dumps({"content": "paid for", "id": 7, **members}).encode()
    with pytest.raises(ResponseError, match=f"expected {expected}") as caught:
        _codec.load_generation(body)

    assert (path, body) == (caught.value.path, caught.value.body)
    assert str(caught.value).endswith(f"@ {path}")
    assert caught.value.text == ("" if "content" in members else "paid for")


@pytest.mark.parametrize(
    "body, message",
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"null", "got null"),
        (b"[1]", "got an array"),
        (b'"text"', "got a string"),
        (b"true", "got a boolean"),
        (b"12", "got a number"),
        (b"<html>\n<b>Oops</b></html>", "not JSON .*<html> <b>Oops"),
        (b'{"content": "trunc', "not JSON"),
        (b'{"id": NaN}', "NaN is not JSON"),
        (b'{"id": -Infinity}', "-Infinity is not JSON"),
        (b'{"content": "\xff\xfe"}', "utf-8"),
        ('{"content": "Привет"}'.encode("cp1251"), "utf-8"),
        ('{"content": "Hi"}'.encode("utf-16"), "not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"id": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b'{"a": 1} {"b": 2}', "not JSON"),
    ],
)
def test_what_is_no_object(body, message):
    """Whatever is no JSON object is one error with a short, printable excerpt."""
    with pytest.raises(ResponseError, match=message) as caught:
        _codec.load_generation(body)

    assert body == caught.value.body
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text, value",
    [
        ('{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        ('{"a": 18446744073709551616, "b": -9223372036854775809}', {"a": 2**64, "b": -(2**63) - 1}),
        ('{"a": 1e400}', {"a": float("inf")}),
        ('{"a": "\\ud800"}', {"a": "\ud800"}),
        ('{"a": 0.1, "b": 1E5, "c": -0}', {"a": 0.1, "b": 100000.0, "c": 0}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("\ufeff{}", {}),
        ("[" * 500 + "]" * 500, None),
    ],
)
def test_both_libraries_read_the_same(text, value):
    """Huge integers, infinite numbers, lone surrogates, BOM and depth: one result."""
    found = _codec.loads(text.encode())

    assert json.loads(text.removeprefix("\ufeff")) == found
    if value is not None:
        assert value == found


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON_VALUES)
def test_loads_agrees_with_the_standard_library(value):
    """Any JSON is read as the standard library reads it, but for NaN and its kind, which are refused."""
    text = json.dumps(value)
    try:
        found = _codec.loads(text.encode())
    except ValueError:
        assert any(word in text for word in ("NaN", "Infinity"))
    else:
        assert repr(json.loads(text)) == repr(found)


@given(st.dictionaries(st.sampled_from([*FIRST_DIALECT, *SECOND_DIALECT, "url", "progress", "width"]), JSON_VALUES))
def test_any_members(members):
    """Any JSON value in any member gives a generation or a `ResponseError`."""
    try:
        _codec.load_generation(json.dumps(members).encode())
    except ResponseError as error:
        assert error.body


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
    found = _codec.load_event(json.dumps(data))

    assert event == found
    assert data == found.raw


@pytest.mark.parametrize("data", [{"type": "thinking", "x": 1}, {"type": None}, {"type": 5}, {"x": 1}, {}])
def test_unknown_events(data):
    """An event of unknown type is passed on whole."""
    kind = data.get("type")

    assert UnknownEvent(kind if isinstance(kind, str) else "", data) == _codec.load_event(json.dumps(data))


def test_error_events_are_given_as_they_are():
    """What to raise for an error event is not the codec's business."""
    assert {"type": "error", "message": "no"} == _codec.load_event('{"type": "error", "message": "no"}')


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
        _codec.load_event(data)

    assert data.encode() == caught.value.body


@given(
    st.text(), st.dictionaries(st.sampled_from(["type", "delta", "id", "tokens_used", "usage", "model"]), JSON_VALUES)
)
def test_any_event(text, members):
    """Any data gives an event or a `ResponseError`."""
    for data in (text, json.dumps(members), json.dumps({**members, "type": "content_delta"})):
        try:
            _codec.load_event(data)
        except ResponseError:
            continue


def body_of(request: GenerateRequest, *, stream: bool = False) -> dict:
    return json.loads(_codec.dump_request(request, stream=stream))


def test_the_smallest_request():
    """What the user left out is not sent: the API's own defaults hold."""
    assert {"model": "gpt-5", "messages": [{"role": "user", "content": "Hi"}]} == body_of(
        GenerateRequest("gpt-5", "Hi")
    )


def test_the_largest_request():
    """Every member of the primary contract goes out under its wire name, unknown ones as they came."""
    request = GenerateRequest(
        "gpt-5",
        [
            Message("system", "Be brief."),
            {"role": "user", "name": "Ivan", "content": [{"type": "text", "text": "What?", "cache": True}]},
            Message("user", [ImagePart("https://x/a.png"), TextPart("This?")]),
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "https://x/b.png", "detail": "low"}, "id": 1}],
            },
        ],
        system="Answer in French.",
        temperature=0.5,
        max_tokens=100,
        extra_body={"seed": 7},
    )

    assert {
        "model": "gpt-5",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "Ivan", "content": [{"type": "text", "text": "What?", "cache": True}]},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "https://x/a.png"}},
                    {"type": "text", "text": "This?"},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "https://x/b.png", "detail": "low"}, "id": 1}],
            },
        ],
        "system": "Answer in French.",
        "temperature": 0.5,
        "max_tokens": 100,
        "seed": 7,
        "stream": True,
    } == body_of(request, stream=True)


def test_text_goes_out_as_it_is():
    """Text is sent as UTF-8, not as escapes."""
    assert "Привет \u2028\U0001f600".encode() in _codec.dump_request(
        GenerateRequest("gpt-5", "Привет \u2028\U0001f600"), stream=False
    )


TEXTS = st.text(st.characters())  # lone surrogates as well
TURNS = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]) | JSON_VALUES, "content": TEXTS | JSON_VALUES},
    optional={"name": TEXTS},
)


@given(
    TEXTS,
    TEXTS | st.lists(TURNS) | JSON_VALUES,
    st.none() | TEXTS | JSON_VALUES,
    st.none() | st.floats() | JSON_VALUES,
    st.none() | st.integers() | JSON_VALUES,
)
def test_plain_requests(model, messages, system, temperature, max_tokens):
    """The short way to a body, where it is taken, comes to what the long one does, and refuses nothing else."""
    settings = {"system": system, "temperature": temperature, "max_tokens": max_tokens}
    try:
        plain = _codec.dump_plain(model, messages, *settings.values())
    except InvalidParameterError:
        with pytest.raises(InvalidParameterError):
            GenerateRequest(model, messages, **settings)
    else:
        assert plain is None or json.loads(plain) == body_of(GenerateRequest(model, messages, **settings))


@pytest.mark.parametrize("messages", ["Hi", [{"role": "user", "content": "Hi"}, {"content": "Я", "role": "assistant"}]])
@pytest.mark.parametrize("settings", [{}, {"system": "Be brief.", "temperature": 0.5, "max_tokens": 9}])
def test_which_requests_are_plain(messages, settings):
    """What nearly every request is takes the short way, to the same bytes."""
    said = [settings.get(name) for name in ("system", "temperature", "max_tokens")]
    request = GenerateRequest("gpt-5", messages, **settings)

    assert _codec.dump_plain("gpt-5", messages, *said) == _codec.dump_request(request, stream=False)


@pytest.mark.parametrize(
    "settings, written",
    [
        ({}, b""),
        ({"temperature": 1e-5}, b',"temperature":1e-05'),
        ({"temperature": 0.00015}, b',"temperature":0.00015'),
        ({"temperature": 1}, b',"temperature":1'),
        ({"max_tokens": 2**70}, b',"max_tokens":1180591620717411303424'),
        ({"system": "\x7f\x1f/é😀"}, b',"system":"\x7f\\u001f/\xc3\xa9\xf0\x9f\x98\x80"'),
    ],
)
@pytest.mark.parametrize("orjson", [_codec.orjson, None])
@pytest.mark.parametrize("extra", [{}, {"extra_body": {"n": 1}}])
def test_bodies_never_change(monkeypatch, settings, written, orjson, extra):
    """With orjson or without, in whichever way: a batch knows its requests again by these bytes."""
    monkeypatch.setattr(_codec, "orjson", orjson)
    request = GenerateRequest("gpt-5", "Hi", **settings, **extra)
    head, tail = b'{"model":"gpt-5","messages":[{"role":"user","content":"Hi"}]', b',"n":1}' if extra else b"}"

    assert head + written + tail == _codec.dump_request(request, stream=False)


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
        "\ud800",
    ],
)
def test_requests_to_look_at(messages):
    """Whatever else there may be is left to `GenerateRequest`."""
    assert _codec.dump_plain("gpt-5", messages, None, None, None) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"x", "\ud800"])
def test_extra_body_that_is_no_json(value):
    """What JSON cannot carry is refused before anything is sent."""
    with pytest.raises(InvalidParameterError, match="extra_body must be JSON"):
        _codec.dump_request(GenerateRequest("gpt-5", "Hi", extra_body={"x": value}), stream=False)


def test_endless_extra_body():
    """A value that contains itself is refused."""
    value: list = []
    value.append(value)
    with pytest.raises(InvalidParameterError, match="extra_body"):
        _codec.dump_request(GenerateRequest("gpt-5", "Hi", extra_body={"x": value}), stream=False)


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

    left = _codec.take_deltas(iter([PLAIN_DELTA, data, PLAIN_DELTA]), found.append)

    assert (None if taken else data) == left
    assert (3 if taken else 1) == len(found)
    assert ContentDelta("a") == _codec.plain_delta(found[0])
    together = _codec.plain_deltas(found)
    assert [(ContentDelta(one["delta"]), one) for one in found] == [(event, event.raw) for event in together]
