"""Bodies of requests, on the short way and the long one; the same with orjson and without."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import JSON_VALUES

from neuralbox_async import GenerateRequest, ImagePart, InvalidParameterError, Message, TextPart
from neuralbox_async._wire import json as wire_json
from neuralbox_async._wire.fast_path import encode_plain
from neuralbox_async._wire.requests import encode_request

pytestmark = pytest.mark.usefixtures("json_library")


def body_of(request: GenerateRequest, *, stream: bool = False) -> dict:
    return json.loads(encode_request(request, stream=stream))


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
    assert "Привет \u2028\U0001f600".encode() in encode_request(
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
        plain = encode_plain(model, messages, *settings.values())
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

    assert encode_plain("gpt-5", messages, *said) == encode_request(request, stream=False)


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
@pytest.mark.parametrize("orjson", [wire_json.orjson, None])
@pytest.mark.parametrize("extra", [{}, {"extra_body": {"n": 1}}])
def test_bodies_never_change(monkeypatch, settings, written, orjson, extra):
    """With orjson or without, in whichever way: a batch knows its requests again by these bytes."""
    monkeypatch.setattr(wire_json, "orjson", orjson)
    request = GenerateRequest("gpt-5", "Hi", **settings, **extra)
    head, tail = b'{"model":"gpt-5","messages":[{"role":"user","content":"Hi"}]', b',"n":1}' if extra else b"}"

    assert head + written + tail == encode_request(request, stream=False)


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
    assert encode_plain("gpt-5", messages, None, None, None) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"x", "\ud800"])
def test_extra_body_that_is_no_json(value):
    """What JSON cannot carry is refused before anything is sent."""
    with pytest.raises(InvalidParameterError, match="extra_body must be JSON"):
        encode_request(GenerateRequest("gpt-5", "Hi", extra_body={"x": value}), stream=False)


def test_endless_extra_body():
    """A value that contains itself is refused."""
    value: list = []
    value.append(value)
    with pytest.raises(InvalidParameterError, match="extra_body"):
        encode_request(GenerateRequest("gpt-5", "Hi", extra_body={"x": value}), stream=False)
