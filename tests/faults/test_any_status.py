"""Each status, documented or not, with each shape of body: the error, its billing status, the number of requests."""

import asyncio
import datetime as dt
import email.utils
import json
import time

import attrs
import pytest
from fault_server import generation, respond_to_each, response

from neuralbox_async import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
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
    RetryPolicy,
    StreamInterruptedError,
    UnprocessableEntityError,
)

NO_BACKOFF = RetryPolicy(jitter=lambda _low, _high: 0.0)
LONG_MESSAGE = "What went wrong, in detail. " * 40


@attrs.frozen
class Expected:
    """The error of a status, and the number of requests: by default, with *retry_unknown*, and for a GET."""

    error_type: type
    billed: str = "no"
    requests: int = 1
    requests_at_risk: int = 1
    get_requests: int = 1


RETRIED = {"requests": 3, "requests_at_risk": 3, "get_requests": 3}
UNKNOWN = {"billed": "unknown", "requests": 1, "requests_at_risk": 3, "get_requests": 3}

BY_STATUS = {
    300: Expected(APIStatusError),
    301: Expected(APIStatusError),
    302: Expected(APIStatusError),
    303: Expected(APIStatusError),
    305: Expected(APIStatusError),
    307: Expected(APIStatusError),
    308: Expected(APIStatusError),
    400: Expected(BadRequestError),
    401: Expected(AuthenticationError),
    402: Expected(InsufficientTokensError),
    403: Expected(PermissionDeniedError),
    404: Expected(NotFoundError, get_requests=2),  # two paths are documented for one generation
    405: Expected(APIStatusError),
    408: Expected(APIStatusError, **UNKNOWN),
    409: Expected(ConflictError),
    410: Expected(APIStatusError),
    413: Expected(RequestTooLargeError),
    418: Expected(APIStatusError),
    422: Expected(UnprocessableEntityError),
    425: Expected(APIStatusError, **RETRIED),
    429: Expected(RateLimitError, **RETRIED),
    500: Expected(InternalServerError, **UNKNOWN),
    501: Expected(InternalServerError, billed="unknown"),
    502: Expected(InternalServerError, **UNKNOWN),
    503: Expected(InternalServerError, **UNKNOWN),
    504: Expected(InternalServerError, **UNKNOWN),
    505: Expected(InternalServerError, billed="unknown"),
    520: Expected(InternalServerError, billed="unknown", get_requests=3),
    530: Expected(InternalServerError, billed="unknown", get_requests=3),
    529: Expected(InternalServerError, **UNKNOWN),
}
BY_CODE = {
    (500, "provider_error"): Expected(ProviderError, **RETRIED),
    (503, "model_unavailable"): Expected(ModelUnavailableError, **RETRIED),
}
CODES = ["provider_error", "model_unavailable", "something_new"]


@attrs.frozen
class Shape:
    """A body, its code, and the part of its text that the error's message must have."""

    body: bytes
    code: str | None = None
    message: str = ""


def shapes(code):
    """Return the shapes of bodies with this *code*, and once those without a code."""

    def with_code(value, message="What went wrong"):
        return Shape(json.dumps(value).encode(), code, message)

    with_codes = {
        "envelope": with_code({"error": code, "message": LONG_MESSAGE, "details": {"field": "model"}}),
        "envelope of nulls": with_code({"error": code, "message": None, "details": None}, ""),
        "flat": with_code({"error": code, "message": LONG_MESSAGE, "retry_after": 0, "plan": "vip", "limit_hour": 100}),
        "nested": with_code({"error": {"code": code, "message": LONG_MESSAGE}}),
        "nested, typed": with_code({"error": {"type": code, "message": LONG_MESSAGE, "code": None}}),
    }
    return with_codes | WITHOUT_CODE if code == CODES[0] else with_codes


WITHOUT_CODE = {
    "detail": Shape(json.dumps({"detail": LONG_MESSAGE}).encode(), None, "What went wrong"),
    "details": Shape(
        json.dumps({"detail": [{"loc": ["body", "model"], "msg": "is missing", "input": LONG_MESSAGE}] * 50}).encode(),
        None,
        "body.model: is missing",
    ),
    "message for a code": Shape(json.dumps({"error": LONG_MESSAGE}).encode(), None, "What went wrong"),
    "text": Shape(LONG_MESSAGE.encode(), None, "What went wrong"),
    "HTML": Shape(b"<html><h1>Bad\nthings</h1>" + LONG_MESSAGE.encode(), None, "<html><h1>Bad things</h1>"),
    "empty": Shape(b""),
    "null": Shape(b"null"),
    "list": Shape(b'["What went wrong"]'),
    "not UTF-8": Shape(b"What went wrong: \xff\xfe" * 100, None, "What went wrong"),
    "cut": Shape(b'{"error": "provider_error'),
    "empty object": Shape(b"{}"),
}


@pytest.fixture
def responder(serve):
    """A server that sends the same response to each request; `set` changes it and forgets earlier requests."""

    class Responder:
        response = b""

        def __init__(self):
            self.server = serve(self.script)

        async def script(self, connection):
            while True:
                await connection.request()
                await connection.send(self.response)

        def set(self, data):
            self.response = data
            for connection in self.server.connections:
                connection.requests.clear()

    return Responder()


async def failure_of(call):
    """Return the error of *call*."""
    with pytest.raises(NeuralBoxError) as caught:
        await call
    return caught.value


async def read_stream(client):
    """Read a stream to its end."""
    async with client.stream("gpt-5", "Hi", recover=False) as stream:
        await stream.get_final_generation()


def assert_is(error, status, shape, expected):
    """Check that the error is the expected one and has the facts of the response."""
    assert type(error) is expected.error_type
    assert status == error.status_code
    assert shape.code == error.code
    assert shape.message in str(error)
    assert str(error).startswith(str(status))
    assert len(str(error)) < 700
    assert shape.body == error.body
    assert "req_1" == error.request_id
    assert error.request_sent


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("status", BY_STATUS)
async def test_status(responder, connect, status, code):
    """A status is an error of its class with any body, and is retried only where that cannot bill twice."""
    for name, shape in shapes(code).items():
        client = connect(responder.server)  # a new one: after enough failures the retry budget is used up
        at_risk = client.with_options(retry_policy=attrs.evolve(NO_BACKOFF, retry_unknown=True))
        expected = BY_CODE.get((status, shape.code), BY_STATUS[status])
        responder.set(response(shape.body, "X-Request-Id: req_1", status=f"{status} What"))
        for call in (lambda c: c.generate("gpt-5", "Hi"), read_stream):
            for caller, requests in ((client, expected.requests), (at_risk, expected.requests_at_risk)):
                responder.set(responder.response)
                error = await failure_of(call(caller))

                assert_is(error, status, shape, expected)
                assert expected.billed == error.billed, name
                assert requests == error.attempts, name
                # After a 404 a stream is requested at the other documented endpoint as well.
                endpoints = 2 if (status, call) == (404, read_stream) else 1
                assert requests * endpoints == responder.server.posts, name
                assert 1 == len({request.headers["idempotency-key"] for request in responder.server.requests})

        responder.set(responder.response)
        error = await failure_of(client.retrieve("gen_1"))

        assert_is(error, status, shape, expected)
        assert ("unknown", "gen_1") == (error.billed, error.generation_id)  # it does not show what the generation costs
        assert expected.get_requests == len(responder.server.requests), name


NOT_A_GENERATION = {
    "HTML": b"<html>Welcome</html>",
    "empty": b"",
    "blank": b" \r\n ",
    "null": b"null",
    "list": b'[{"id": 1}]',
    "text": b'"Hello"',
    "number": b"5",
    "cut": response(generation()).partition(b"\r\n\r\n")[2][:-1],
    "other charset": '{"id": 1, "status": "completed", "content": "Hé"}'.encode("latin-1"),
    "UTF-16": json.dumps(generation()).encode("utf-16"),
    "error": b'{"error": "provider_error", "message": "no"}',
    "nested error": b'{"error": {"code": "x", "message": "no"}}',
    "error beside nulls": b'{"id": null, "status": null, "error": "no"}',
    "nothing": b"{}",
    "a greeting": b'{"message": "hello"}',
    "all null": b'{"id": null, "status": null, "content": null}',
    "content is a list": b'{"id": 1, "status": "completed", "content": ["x"]}',
    "id is a list": b'{"id": [1], "status": "completed", "content": "x"}',
    "status is null in a list": b'{"id": 1, "status": [null], "content": "x"}',
}


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted", "206 Partial"])
@pytest.mark.parametrize("body", NOT_A_GENERATION.values(), ids=NOT_A_GENERATION)
async def test_success_without_a_generation(responder, connect, status, body):
    """A success without a generation may have been billed: it is not retried, and the error has the body."""
    responder.set(response(body, status=status))
    client = connect(responder.server)

    error = await failure_of(client.generate("gpt-5", "Hi"))

    assert isinstance(error, ResponseError)
    assert "unknown" == error.billed
    assert body == error.body
    assert int(status[:3]) == error.status_code
    assert 1 == responder.server.posts

    responder.set(responder.response)
    error = await failure_of(read_stream(client))

    assert isinstance(error, StreamInterruptedError | ResponseError)
    assert "unknown" == error.billed
    assert 1 == responder.server.posts


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted"])
@pytest.mark.parametrize("state", ["completed", "pending", "queued"])
async def test_success(responder, connect, status, state):
    """A generation is read with any success status: the vendor does not document the one of a pending generation."""
    responder.set(response(generation(status=state), status=status))

    assert state == (await connect(responder.server).generate("gpt-5", "Hi")).status
    assert 1 == responder.server.posts


@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content"])
async def test_success_without_a_body(responder, connect, status):
    """A success that cannot have a body is a `ResponseError`."""
    responder.set(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    error = await failure_of(connect(responder.server).generate("gpt-5", "Hi"))

    assert isinstance(error, ResponseError)
    assert "unknown" == error.billed
    assert 1 == responder.server.posts


async def test_switching_protocols(responder, connect):
    """A switch to another protocol is not a response: the billing status is unknown."""
    responder.set(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")

    error = await failure_of(connect(responder.server, timeout=0.5).generate("gpt-5", "Hi"))

    assert "unknown" == error.billed
    assert 1 == responder.server.posts
    assert await responder.server.all_closed()


def http_date(seconds):
    """Return the HTTP date in so many seconds."""
    return email.utils.format_datetime(dt.datetime.fromtimestamp(time.time() + seconds, dt.UTC), usegmt=True)


LARGE = 3600.0
WAITS = {
    "header in seconds": (["Retry-After: 3600"], {}, LARGE, 1),
    "header with decimals": (["Retry-After: 3600.0"], {}, LARGE, 1),
    "header before body": (["Retry-After: 3600"], {"retry_after": 1}, LARGE, 1),
    "date": ([lambda: f"Retry-After: {http_date(3600)}"], {}, LARGE, 1),
    "date, a slow clock": (
        [lambda: f"Date: {http_date(-3600)}\r\nRetry-After: {http_date(0)}"],
        {},
        LARGE,
        1,
    ),
    "date, clocks an hour apart": ([lambda: f"Date: {http_date(3590)}\r\nRetry-After: {http_date(3590)}"], {}, 0.0, 3),
    "date beside a malformed Date": ([lambda: f"Date: now\r\nRetry-After: {http_date(3600)}"], {}, LARGE, 1),
    "date in the past": ([lambda: f"Retry-After: {http_date(-3600)}"], {}, 0.0, 3),
    "zero": (["Retry-After: 0"], {}, 0.0, 3),
    "body": ([], {"retry_after": 3600}, LARGE, 1),
    "body with a string": ([], {"retry_after": "3600"}, LARGE, 1),
    "garbage": (["Retry-After: soon"], {}, None, 3),
    "negative": (["Retry-After: -5"], {}, None, 3),
    "not a number": (["Retry-After: nan"], {"retry_after": True}, None, 3),
    "garbage before body": (["Retry-After: soon"], {"retry_after": 3600}, LARGE, 1),
    "longer than the deadline": (["Retry-After: 30"], {}, 30.0, 1),
    "veto": (["X-Should-Retry: false"], {}, None, 1),
    "veto of 0 seconds": (["X-Should-Retry: false", "Retry-After: 0"], {}, 0.0, 1),
}


@pytest.mark.timing
@pytest.mark.parametrize("headers, members, retry_after, requests", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize(
    "status, code", [(429, "rate_limit_exceeded"), (503, "model_unavailable"), (500, "provider_error")]
)
async def test_retry_after(responder, connect, status, code, headers, members, retry_after, requests):
    """An error whose wait is too long, or that forbids retries, is raised at once, with its *retry_after*."""
    lines = [line if isinstance(line, str) else line() for line in headers]
    responder.set(response({"error": code, "message": "no", **members}, *lines, status=f"{status} No"))
    started = time.monotonic()

    error = await failure_of(connect(responder.server, timeout=20).generate("gpt-5", "Hi"))

    assert code == error.code
    assert "no" == error.billed
    assert requests == responder.server.posts == error.attempts
    assert time.monotonic() - started < 5
    assert error.retry_after == (retry_after if retry_after is None else pytest.approx(retry_after, abs=10))


LATER_RESPONSES = {
    "throttled": response({"error": "rate_limit_exceeded", "retry_after": 3600}, status="429 Slow"),
    "never charged": response({"error": "provider_error"}, "X-Should-Retry: false", status="500 No"),
}


@pytest.mark.parametrize("later", LATER_RESPONSES.values(), ids=LATER_RESPONSES)
async def test_billing_status_of_an_earlier_attempt(serve, connect, later):
    """The billing status stays unknown after an attempt that may have been billed, even if a later one was free."""
    server = serve(respond_to_each(response({"error": "x"}, status="502 Bad"), later))
    client = connect(server, retry_policy=attrs.evolve(NO_BACKOFF, retry_unknown=True))

    error = await failure_of(client.generate("gpt-5", "Hi"))

    assert 502 != error.status_code
    assert "unknown" == error.billed
    assert 2 == error.attempts == server.posts


async def test_request_sent_by_an_earlier_attempt(serve, connect):
    """*request_sent* is True after an attempt that was sent, even if the last one had no connection."""

    async def script(connection):
        await connection.request()
        server.close_listener()
        await asyncio.sleep(0.01)
        await connection.send(response({"error": "provider_error"}, "Connection: close", status="500 No"))

    server = serve(script)

    error = await failure_of(connect(server).generate("gpt-5", "Hi"))

    assert isinstance(error, APIConnectionError)
    assert error.request_sent
    assert "no" == error.billed
    assert 1 == server.posts
