"""The decoder of error responses: the class and the facts of an error, by status code, headers and body."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    GenerationFailedError,
    InsufficientTokensError,
    InternalServerError,
    ModelUnavailableError,
    NeuralBoxError,
    NotFoundError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    RequestTooLargeError,
    ResponseError,
    UnprocessableEntityError,
)
from neuralbox_async._wire import status_errors
from neuralbox_async._wire.responses import decode_generation
from neuralbox_async._wire.status_errors import error_from, is_success, parse_retry_after

ERRORS = [
    (400, "bad_request", BadRequestError, "no"),
    (401, "not_authenticated", AuthenticationError, "no"),
    (402, "insufficient_tokens", InsufficientTokensError, "no"),
    (403, "insufficient_plan", PermissionDeniedError, "no"),
    (404, "not_found", NotFoundError, "no"),
    (409, "conflict", ConflictError, "no"),
    (413, "too_large", RequestTooLargeError, "no"),
    (422, "validation_error", UnprocessableEntityError, "no"),
    (429, "rate_limit_exceeded", RateLimitError, "no"),
    (500, "provider_error", ProviderError, "no"),
    (500, "oops", InternalServerError, "unknown"),
    (502, "bad_gateway", InternalServerError, "unknown"),
    (503, "model_unavailable", ModelUnavailableError, "no"),
    (503, "maintenance", InternalServerError, "unknown"),
    (504, "timeout", InternalServerError, "unknown"),
    (529, "overloaded", InternalServerError, "unknown"),
    (408, "timeout", APIStatusError, "unknown"),
    (418, "teapot", APIStatusError, "no"),
    (302, "actual", APIStatusError, "no"),
    (101, "switching", APIStatusError, "unknown"),
]
SHAPES = {
    "documented envelope": ({"error": "{code}", "message": "What happened", "details": {"a": 1}}, "What happened"),
    "flat": ({"error": "{code}", "message": "What happened", "plan": "vip"}, "What happened"),
    "nested": ({"error": {"code": "{code}", "message": "What happened"}}, "What happened"),
    "nested type": ({"error": {"type": "{code}", "message": "What happened"}}, "What happened"),
    "detail text": ({"error": "{code}", "detail": "What happened"}, "What happened"),
    "detail list": (
        {"error": "{code}", "detail": [{"loc": ["body", "messages", 0], "msg": "field required"}, "x"]},
        "body.messages.0: field required; x",
    ),
    "code only": ({"error": "{code}"}, "{code}"),
    "nested in detail": ({"detail": {"code": "{code}", "message": "What happened"}}, "What happened"),
    "envelope in detail": ({"detail": {"error": "{code}", "message": "What happened"}}, "What happened"),
    "typed in detail": ({"detail": {"type": "{code}", "message": "What happened"}}, "What happened"),
    "nested twice": ({"detail": {"error": {"code": "{code}", "message": "What happened"}}}, "What happened"),
    "code and message": ({"code": "{code}", "message": "What happened"}, "What happened"),
    "problem details": (
        {"type": "https://api.example/{code}", "title": "Oops", "detail": "What happened", "code": "{code}"},
        "What happened",
    ),
    "title": ({"title": "What happened", "code": "{code}"}, "What happened"),
    "list of errors": ({"error": "{code}", "errors": [{"message": "What happened"}]}, "{code}"),
}


@pytest.mark.parametrize("status_code, code, error_type, billed", ERRORS)
@pytest.mark.parametrize("shape, message", SHAPES.values(), ids=SHAPES)
def test_errors(status_code, code, error_type, billed, shape, message):
    """Status code and code decide the class; code and message are read from every shape of body."""
    body = json.dumps(shape).replace("{code}", code).encode()
    error = error_from(status_code, {"x-request-id": "r1"}, body)

    assert (error_type, status_code, code) == (type(error), error.status_code, error.code)
    assert (billed, body) == (error.billed, error.body)
    assert "r1" == error.request_id
    assert message.replace("{code}", code) in str(error)
    assert str(status_code) in str(error)


@pytest.mark.parametrize(
    "body, message",
    [
        (b"", "401: Unauthorized"),
        (b"<html><body>Nope</body></html>", "401: <html><body>Nope</body></html>"),
        (b"Nope", "401: Nope"),
        (b"\xff\xfe\x00", "401: \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"),
        (b"[1, 2]", "401: [1, 2]"),
        (b'{"error": "Not authenticated"}', "401: Not authenticated"),
        (b'{"detail": "Not authenticated"}', "401: Not authenticated"),
        (b'{"message": "' + b"x" * 10_000 + b'"}', "401: " + "x" * 500),
        (b"[" * 100_000, "401: " + "[" * 200 + "..."),
        (b'{"error": {"code": 5, "message": ["a"]}, "message": 5, "detail": {}}', "401: a"),
    ],
)
def test_undocumented_bodies(body, message):
    """The message quotes the body of a framework or gateway, bounded and printable."""
    error = error_from(401, {}, body)

    assert (AuthenticationError, None) == (type(error), error.code)
    assert message == str(error)


def test_details():
    """The ``details`` of the documented envelope, and the ``detail`` of FastAPI, are kept unchanged."""
    assert {"field": "model"} == error_from(422, {}, b'{"details": {"field": "model"}}').details
    assert [{"msg": "x"}] == error_from(422, {}, b'{"detail": [{"msg": "x"}]}').details
    assert {} == error_from(422, {}, b"").details
    for name in ("error", "detail"):
        body = json.dumps({name: {"code": "x", "details": {"field": "model"}}}).encode()
        assert {"field": "model"} == error_from(422, {}, body).details
    assert {"code": "x"} == error_from(422, {}, b'{"detail": {"code": "x"}}').details


@pytest.mark.parametrize("within", [None, "error", "detail"])
def test_rate_limit(within):
    """The flat 429 body has the seconds to wait, the plan and its limits, also inside of ``error`` or ``detail``."""
    body = {
        "error": "rate_limit_exceeded",
        "message": "Hourly limit reached",
        "retry_after": 847,
        "plan": "vip",
        "limit_hour": 100,
        "limit_day": 1000,
    }
    error = error_from(429, {}, json.dumps(body if within is None else {within: body}).encode())

    assert isinstance(error, RateLimitError)
    assert ("rate_limit_exceeded", "429 rate_limit_exceeded: Hourly limit reached") == (error.code, str(error))
    assert (847.0, "vip", 100, 1000) == (error.retry_after, error.plan, error.limit_hour, error.limit_day)


NOW = datetime(2026, 3, 8, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "value, seconds",
    [
        ("3", 3.0),
        (" 3 ", 3.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("Sun, 08 Mar 2026 12:00:10 GMT", 10.0),
        ("Sunday, 08-Mar-26 12:00:10 GMT", 10.0),
        ("Sun Mar  8 12:00:10 2026", 10.0),
        ("Sun, 08 Mar 2026 11:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("1_000", None),
        ("\u0663", None),
        ("9" * 11, None),
        ("9" * 400, None),
    ],
)
def test_retry_after(value, seconds):
    """The value is seconds or an HTTP date; any other value is None."""
    assert seconds == parse_retry_after(value, now=NOW)


@pytest.mark.parametrize(
    "date, seconds",
    [
        ("Sun, 08 Mar 2026 12:00:00 GMT", 10.0),
        ("Sun, 08 Mar 2026 11:00:00 GMT", 3610.0),
        ("Sun, 08 Mar 2026 13:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_relative_to_the_date_of_the_response(date, seconds):
    """The server's clock decides how long to wait until a date, in the header and in the body."""
    until = "Sun, 08 Mar 2026 12:00:10 GMT"

    assert seconds == error_from(429, {"retry-after": until, "date": date}, b"").retry_after
    assert seconds == error_from(429, {"date": date}, json.dumps({"retry_after": until}).encode()).retry_after


@given(st.text())
def test_any_retry_after(value):
    """Any value is a bounded number of seconds or None."""
    seconds = parse_retry_after(value)

    assert seconds is None or 0.0 <= seconds <= 1e9


@pytest.mark.parametrize(
    "headers, body, seconds",
    [
        ({"retry-after": "5"}, {"retry_after": 7}, 5.0),
        ({"retry-after": "soon"}, {"retry_after": 7}, 7.0),
        ({}, {"retry_after": "7"}, 7.0),
        ({}, {"retry_after": True}, None),
        ({}, {"retry_after": [7]}, None),
        ({}, {"retry_after": -7}, None),
        ({}, {}, None),
    ],
)
def test_sources_of_retry_after(headers, body, seconds):
    """The header has precedence over the member of the body."""
    assert seconds == error_from(503, headers, json.dumps(body).encode()).retry_after


@given(
    st.integers(300, 599),
    st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode),
)
def test_any_error_body(status_code, body):
    """Any status code with any body is an `APIStatusError` with a bounded message."""
    error = error_from(status_code, {}, body)

    assert isinstance(error, APIStatusError)
    assert len(str(error)) < 700


@pytest.mark.parametrize("body", [b"{}", b'{"message": "hi"}', b'{"id": null, "status": null}'])
def test_objects_that_are_not_generations(body):
    """An object without a member of a generation raises a `ResponseError`."""
    with pytest.raises(ResponseError, match="does not describe a generation"):
        decode_generation(200, {}, body)


def test_a_generation_without_status():
    """Without a status, a generation with text is ``completed``, and one without text is ``unknown``."""
    assert "completed" == decode_generation(200, {}, b'{"content": "Hi"}').status
    assert "unknown" == decode_generation(200, {}, b'{"id": 1}').status


@pytest.mark.parametrize(
    "status_code, success", [(101, False), (200, True), (201, True), (202, True), (300, False), (404, False)]
)
def test_success(status_code, success):
    """A response with any 2xx should describe a generation."""
    assert success == is_success(status_code)


def test_failed_generations():
    """A generation that failed raises an error with its reason and the generation, which was not billed."""
    with pytest.raises(GenerationFailedError, match="content policy") as caught:
        decode_generation(200, {}, b'{"id": 7, "status": "failed", "error": "content policy", "tokens_spent": 0}')

    error = caught.value
    assert ("content policy", 7, "no", 0) == (
        error.reason,
        error.generation_id,
        error.billed,
        error.generation.tokens_used,
    )


@pytest.mark.parametrize("body", [b'{"error": "oops", "message": "Something"}', b'{"error": {"message": "Something"}}'])
def test_errors_with_a_status_of_success(body):
    """A JSON error object with status 200 raises a `ResponseError`."""
    with pytest.raises(ResponseError, match="status of success contains an error: Something") as caught:
        decode_generation(200, {"x-request-id": "r1"}, body)

    assert ("r1", 200, body) == (caught.value.request_id, caught.value.status_code, caught.value.body)


@pytest.mark.parametrize("status", ["pending", "queued", "completed"])
def test_other_statuses(status):
    """Any other status of a generation is returned unchanged."""
    assert status == decode_generation(200, {}, json.dumps({"id": 1, "status": status}).encode()).status


def test_classes_of_errors():
    """Every class of the tables belongs to the tree of `NeuralBoxError`."""
    classes = [*status_errors._ERROR_BY_STATUS.values(), *status_errors._ERROR_BY_CODE.values()]

    assert all(issubclass(cls, NeuralBoxError) for cls in classes)
