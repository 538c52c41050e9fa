"""The encoder of requests has the same bytes with orjson and without it."""

from __future__ import annotations

import json

import pytest

from neuralbox_async import GenerateRequest, ImagePart, InvalidParameterError, Message, TextPart
from neuralbox_async._wire import json as wire_json
from neuralbox_async._wire.requests import encode_request

pytestmark = pytest.mark.usefixtures("json_library")


def body_of(request: GenerateRequest, *, stream: bool = False) -> dict:
    return json.loads(encode_request(request, stream=stream))


def test_minimal_request():
    """Parameters that are not set are not sent, so the defaults of the API apply."""
    assert {"model": "gpt-5", "messages": [{"role": "user", "content": "Hi"}]} == body_of(
        GenerateRequest("gpt-5", "Hi")
    )


def test_every_member():
    """Every documented member is sent under its wire name, and unknown members are sent unchanged."""
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


def test_text_is_not_escaped():
    """Text is sent as UTF-8, not as escapes."""
    assert "Привет \u2028\U0001f600".encode() in encode_request(
        GenerateRequest("gpt-5", "Привет \u2028\U0001f600"), stream=False
    )


@pytest.mark.parametrize(
    "settings, written",
    [
        ({}, b""),
        ({"temperature": 1e-5}, b',"temperature":1e-05'),
        ({"temperature": 0.00015}, b',"temperature":0.00015'),
        ({"temperature": 1}, b',"temperature":1'),
        ({"max_tokens": 2**63 - 1}, b',"max_tokens":9223372036854775807'),
        ({"system": "\x7f\x1f/é😀"}, b',"system":"\x7f\\u001f/\xc3\xa9\xf0\x9f\x98\x80"'),
    ],
)
@pytest.mark.parametrize("orjson", [wire_json.orjson, None])
@pytest.mark.parametrize("extra", [{}, {"extra_body": {"n": 1}}])
def test_bodies_are_stable(monkeypatch, settings, written, orjson, extra):
    """Bodies have these bytes with orjson and without it: the keys of a journal are hashes of them."""
    monkeypatch.setattr(wire_json, "orjson", orjson)
    request = GenerateRequest("gpt-5", "Hi", **settings, **extra)
    head, tail = b'{"model":"gpt-5","messages":[{"role":"user","content":"Hi"}]', b',"n":1}' if extra else b"}"

    assert head + written + tail == encode_request(request, stream=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"x", "\ud800"])
def test_extra_body_that_is_not_json(value):
    """A value that is not JSON raises an `InvalidParameterError` when the body is encoded."""
    with pytest.raises(InvalidParameterError, match="extra_body must be JSON"):
        encode_request(GenerateRequest("gpt-5", "Hi", extra_body={"x": value}), stream=False)


def test_recursive_extra_body():
    """A value that contains itself raises an `InvalidParameterError`."""
    value: list = []
    value.append(value)
    with pytest.raises(InvalidParameterError, match="extra_body"):
        encode_request(GenerateRequest("gpt-5", "Hi", extra_body={"x": value}), stream=False)
