"""The decoder of generations is strict about essential members and tolerant about dialects, with orjson and without."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import JSON_VALUES

from neuralbox_async import Generation, ResponseError, Usage
from neuralbox_async._wire.responses import decode_generation

pytestmark = pytest.mark.usefixtures("json_library")


def load(**members: object) -> Generation:
    return decode_generation(200, {}, json.dumps({"id": 1, **members}).encode())


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
    """Every member that the page "Text Generation" documents has an attribute."""
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
    """The names of the second dialect mean the same, and null means absent."""
    expected = Generation(
        id=18473, status="completed", model="gpt-5", content="Hello", tokens_used=3, processing_ms=1842
    )

    assert expected == load(**SECOND_DIALECT)


@pytest.mark.parametrize(
    "members, field, value",
    [
        ({"content": None, "result_text": "b"}, "content", "b"),
        ({"content": "a", "result_text": "b"}, "content", "a"),
        ({"content": "", "result_text": "b"}, "content", "b"),
        ({"content": "", "result_text": ""}, "content", ""),
        ({"content": "", "result_text": 5}, "content", ""),
        ({"content": "a", "result_url": "", "url": "https://b"}, "url", "https://b"),
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
def test_documented_variants(members, field, value):
    """Each variant that a page documents has the same attribute, with a value of the same type."""
    actual = getattr(load(**members), field)

    assert value == actual
    assert type(value) is type(actual)


def test_unknown_members_are_kept():
    """`raw` has the members that this version does not know."""
    assert load(id=1, surprise={"a": [1]}).raw["surprise"] == {"a": [1]}


@pytest.mark.parametrize(
    "members, path, expected",
    [
        ({"id": True}, "$.id", "a string or an integer"),
        ({"id": 1.5}, "$.id", "a string or an integer"),
        ({"status": 5}, "$.status", "a string"),
        ({"content": ["a"]}, "$.content", "a string"),
        ({"content": None, "result_text": 5}, "$.result_text", "a string"),
        ({"id": float("nan"), "progress": "x"}, "$.id", "a string or an integer"),
        ({"status": [], "usage": {"total_tokens": "x"}}, "$.status", "a string"),
    ],
)
def test_wrong_types_of_essential_members(members, path, expected):
    """A wrong type raises an error that names the path and keeps body, text and id; no value is coerced."""
    body = json.dumps({"content": "paid for", "id": 7, **members}).encode()
    with pytest.raises(ResponseError, match=f"expected {expected}") as caught:
        decode_generation(200, {}, body)

    assert (path, body) == (caught.value.path, caught.value.body)
    assert str(caught.value).endswith(f" at {path}")
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
        (b'{"content": "\xff\xfe"}', "utf-8"),
        ('{"content": "Привет"}'.encode("cp1251"), "utf-8"),
        ('{"content": "Hi"}'.encode("utf-16"), "not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": 1} {"b": 2}', "not JSON"),
    ],
)
def test_bodies_that_are_not_objects(body, message):
    """A body that is not a JSON object raises one error with a short, printable excerpt."""
    with pytest.raises(ResponseError, match=message) as caught:
        decode_generation(200, {}, body)

    assert body == caught.value.body
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@given(st.dictionaries(st.sampled_from([*FIRST_DIALECT, *SECOND_DIALECT, "url", "progress", "width"]), JSON_VALUES))
def test_any_members(members):
    """A body with any JSON values is a generation or raises a `ResponseError`."""
    try:
        decode_generation(200, {}, json.dumps(members).encode())
    except ResponseError as error:
        assert error.body


@pytest.mark.parametrize(
    "members",
    [
        FIRST_DIALECT,
        SECOND_DIALECT,
        {**FIRST_DIALECT, "more": {"a": [1, 2, 3]}},
        {**FIRST_DIALECT, "tokens_used": None},
        {**FIRST_DIALECT, "created_at": "2026-03-08T12:00:00.123456789Z"},
        {**FIRST_DIALECT, "tokens_used": 10**17},
    ],
)
@pytest.mark.parametrize("space", ["", "\r\n"])
def test_a_body_is_parsed_once(parses, members, space):
    """The body of a response is parsed once, also when it is not the vendor's sample."""
    decode_generation(200, {}, f"{json.dumps(members)}{space}".encode())

    assert 1 == len(parses)


def test_wrong_types_are_parsed_once(parses):
    """A wrong type is reported without a second look at the body."""
    with pytest.raises(ResponseError):
        decode_generation(200, {}, json.dumps({**FIRST_DIALECT, "status": 5}).encode())
    decode_generation(200, {}, json.dumps({**FIRST_DIALECT, "usage": 5}).encode())

    assert 2 == len(parses)


@pytest.mark.parametrize("content", ["Hello", "1234567890123456789"])
@pytest.mark.parametrize("tokens", [10**19, 2**64, 10**30])
def test_long_numbers_are_exact(parses, content, tokens):
    """A body with a number of 19 digits or more is parsed again by the standard library, which reads it exactly."""
    members = {**FIRST_DIALECT, "content": content, "id": tokens, "seed": tokens}

    generation = decode_generation(200, {}, json.dumps(members).encode())

    assert tokens == generation.id == generation.raw["seed"]
    assert len(parses) <= 2
    assert "standard library" == parses[-1] or tokens < 2**64


@pytest.mark.usefixtures("fast_paths_on")
def test_digits_in_a_text_need_no_second_pass(parses):
    """Digits in the text of the vendor's sample do not make it a body with long numbers."""
    generation = decode_generation(200, {}, json.dumps({**FIRST_DIALECT, "content": "9" * 30}).encode())

    assert ("9" * 30, 1) == (generation.content, len(parses))
