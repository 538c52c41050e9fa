"""The values of the API: requests, images and generations."""

from __future__ import annotations

import base64
from collections import UserDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async import (
    GenerateRequest,
    Generation,
    ImagePart,
    InvalidParameterError,
    Message,
    TextPart,
    data_url,
)


class FalseMapping(UserDict):
    """A mapping that is false although it has members."""

    def __bool__(self):
        return False


USER = {"role": "user", "content": "Hi"}

INVALID = [
    ("model", {"model": ""}, "a model slug"),
    ("model", {"model": None}, "a model slug"),
    ("messages", {"messages": []}, "non-empty"),
    ("messages", {"messages": 5}, "a string or a non-empty list"),
    ("messages", {"messages": b"Hi"}, "a string or a non-empty list"),
    ("messages[]", {"messages": ["Hi"]}, "a Message or a dict"),
    ("messages[].role", {"messages": [{"role": "robot", "content": "Hi"}]}, "'assistant'"),
    ("messages[].role", {"messages": [{"content": "Hi"}]}, "'assistant'"),
    ("messages[].role", {"messages": [{"role": ["user"], "content": "Hi"}]}, "'assistant'"),
    ("messages[].content", {"messages": [{"role": "user"}]}, "a string or a non-empty list of parts"),
    ("messages[].content", {"messages": [{"role": "user", "content": []}]}, "non-empty list of parts"),
    ("messages[].content", {"messages": "\ud800"}, "lone surrogates"),
    ("messages[].content[]", {"messages": [{"role": "user", "content": [{"type": "sound"}]}]}, "'text' or 'image_url'"),
    ("messages[].content[]", {"messages": [{"role": "user", "content": ["Hi"]}]}, "'text' or 'image_url'"),
    ("messages[].content[].text", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "a string"),
    (
        "messages[].content[].image_url",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "https://x"}]}]},
        "an object with a 'url'",
    ),
    (
        "messages[].content[].image_url.url",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": ""}}]}]},
        "a URL",
    ),
    ("temperature", {"temperature": 2.1}, "0.0 to 2.0"),
    ("temperature", {"temperature": -0.1}, "0.0 to 2.0"),
    ("temperature", {"temperature": float("nan")}, "0.0 to 2.0"),
    ("temperature", {"temperature": "1"}, "0.0 to 2.0"),
    ("temperature", {"temperature": True}, "0.0 to 2.0"),
    ("max_tokens", {"max_tokens": 0}, "at least 1"),
    ("max_tokens", {"max_tokens": 1.0}, "at least 1"),
    ("max_tokens", {"max_tokens": True}, "at least 1"),
    ("system", {"system": 5}, "a string"),
    ("system", {"system": "a\udfffb"}, "lone surrogates"),
    ("extra_body", {"extra_body": {"stream": True}}, "stream()"),
    ("extra_body", {"extra_body": {1: 2}}, "a mapping"),
    ("extra_body", {"extra_body": [1]}, "a mapping"),
    ("extra_body", {"extra_body": []}, "a mapping"),
    ("extra_body", {"extra_body": FalseMapping({"stream": True})}, "stream()"),
]


@pytest.mark.parametrize("parameter, changes, rule", INVALID)
def test_invalid(parameter, changes, rule):
    """The error of an invalid value has the parameter, the value and the rule."""
    with pytest.raises(InvalidParameterError) as caught:
        GenerateRequest(**{"model": "gpt-5", "messages": "Hi", **changes})

    assert parameter == caught.value.parameter
    assert rule in caught.value.rule
    assert caught.value.value in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "a-model/of-tomorrow:v1"},
        {"messages": [{"role": "assistant", "content": ""}, {"role": "user", "content": "Hi"}]},
        {"messages": "\x00\u2028\U0001f600"},
        {"temperature": 0},
        {"temperature": 2},
        {"max_tokens": 10**12},
        {"system": ""},
        {"extra_body": {"anything": {"nested": [None]}}},
    ],
)
def test_valid(changes):
    """A value that the API may accept is valid."""
    GenerateRequest(**{"model": "gpt-5", "messages": "Hi", **changes})


@pytest.mark.parametrize(
    "messages",
    ["Hi", USER, Message("user", "Hi"), [USER], (Message("user", "Hi"),), (message for message in [USER])],
    ids=["str", "dict", "Message", "list", "tuple", "generator"],
)
def test_messages(messages):
    """*messages* may be a string, one message or an iterable of messages."""
    assert (Message("user", "Hi"),) == GenerateRequest("gpt-5", messages).messages


def test_parts():
    """A part may be a dict or a typed value; further members are kept."""
    message = Message(
        "user",
        [
            TextPart("What is this?"),
            {"type": "text", "text": "And this?", "cache": True},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}, "x": 1},
        ],
    )

    assert (
        TextPart("What is this?"),
        TextPart("And this?", extra={"cache": True}),
        ImagePart("https://example.com/a.png", extra={"x": 1, "image_url": {"detail": "low"}}),
    ) == message.content


def test_the_users_dicts_are_not_changed():
    """Making a message does not change the dict."""
    original = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}

    GenerateRequest("gpt-5", [original])

    assert {"role": "user", "content": [{"type": "text", "text": "Hi"}]} == original


@pytest.mark.parametrize(
    "members, expected",
    [
        ({"prompt": "Hi"}, GenerateRequest("gpt-5", "Hi", system="Be brief.")),
        ({"messages": [USER], "model": "o3", "system": None}, GenerateRequest("o3", "Hi", system="Be brief.")),
        (
            {"prompt": "Hi", "key": 7, "seed": 1},
            GenerateRequest("gpt-5", "Hi", system="Be brief.", key=7),
        ),
        (
            {"prompt": "Hi", "extra_body": {"seed": 2}, "seed": 1},
            GenerateRequest("gpt-5", "Hi", system="Be brief.", extra_body={"seed": 2}),
        ),
    ],
)
def test_from_dict(members, expected):
    """A dict has the fields of a request, and ``prompt`` in place of ``messages``; further members are not sent."""
    assert expected == GenerateRequest.from_dict(members, model="gpt-5", system="Be brief.")


@pytest.mark.parametrize(
    "members", [{"prompt": "Hi", "messages": [USER]}, {"prompt": 5}, {}, {"prompt": "Hi", "key": ""}]
)
def test_invalid_dicts(members):
    """A dict needs exactly one of ``prompt``, a string, and ``messages``."""
    with pytest.raises(InvalidParameterError):
        GenerateRequest.from_dict(members, model="gpt-5")


@given(st.text())
def test_any_text(text):
    """A text is accepted exactly when UTF-8 can encode it and it is not blank."""
    encodable = text.strip() != "" and not any(0xD800 <= ord(char) <= 0xDFFF for char in text)
    try:
        accepted = GenerateRequest("gpt-5", text).messages[0].content == text
    except InvalidParameterError:
        accepted = False

    assert encodable == accepted


@pytest.mark.parametrize(
    "data, media_type",
    [
        (b"\x89PNG\r\n\x1a\n...", "image/png"),
        (b"\xff\xd8\xff\xe0...", "image/jpeg"),
        (b"GIF89a...", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"BM......", "image/bmp"),
    ],
)
def test_data_url_of_bytes(data, media_type):
    """The media type of bytes is recognised by their content."""
    assert f"data:{media_type};base64,{base64.b64encode(data).decode()}" == data_url(data)
    assert ImagePart(data_url(data)) == ImagePart.from_bytes(data)


def test_data_url_of_files(tmp_path):
    """The media type of a file is recognised by its content, otherwise by its name."""
    misnamed = tmp_path / "picture.jpg"
    misnamed.write_bytes(b"\x89PNG\r\n\x1a\n")
    unknown = tmp_path / "picture.svg"
    unknown.write_bytes(b"<svg/>")

    assert data_url(misnamed).startswith("data:image/png;base64,")
    assert data_url(str(unknown)).startswith("data:image/svg+xml;base64,")
    assert ImagePart(data_url(unknown, media_type="image/x")) == ImagePart.from_file(unknown, media_type="image/x")


def test_data_url_of_other_data(tmp_path):
    """Data that is not an image, or not recognised, is rejected; a missing file is an `OSError`."""
    with pytest.raises(InvalidParameterError, match="media type of an image"):
        data_url(b"hello")
    with pytest.raises(InvalidParameterError, match="media type of an image"):
        data_url(b"GIF89a", media_type="text/plain")
    with pytest.raises(FileNotFoundError):
        data_url(tmp_path / "missing.png")


def test_values_are_frozen_and_have_short_reprs():
    """Values cannot be changed, and the repr of an image is short."""
    message = Message("user", "Hi")
    with pytest.raises(AttributeError):
        message.content = "Bye"
    assert len(repr(ImagePart("data:image/png;base64," + "A" * 10_000))) < 200


@pytest.mark.parametrize(
    "status, completed, finished",
    [("completed", True, True), ("failed", False, True), ("pending", False, False), ("queued", False, False)],
)
def test_status(status, completed, finished):
    """Only the two documented final statuses are final."""
    generation = Generation(id=1, status=status)

    assert (completed, finished) == (generation.completed, generation.finished)
