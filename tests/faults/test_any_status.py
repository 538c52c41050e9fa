"""Each status, documented or not, with each shape of body: which error, what it cost, how often it was asked."""

import asyncio
import datetime as dt
import email.utils
import json
import time

import attrs
import pytest
from fault_server import answer, generation, serves

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

AT_ONCE = RetryPolicy(jitter=lambda _low, _high: 0.0)
WORDS = "What went wrong, in many words. " * 40


@attrs.frozen
class Expected:
    """What comes of a status: the error, what it cost, how often it is asked by default, or when told to risk it."""

    kind: type
    billed: str = "no"
    asked: int = 1
    asked_at_risk: int = 1
    asked_by_get: int = 1


REPEATED = {"asked": 3, "asked_at_risk": 3, "asked_by_get": 3}
UNCLEAR = {"billed": "unknown", "asked": 1, "asked_at_risk": 3, "asked_by_get": 3}

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
    404: Expected(NotFoundError, asked_by_get=2),  # two paths are documented for one generation
    405: Expected(APIStatusError),
    408: Expected(APIStatusError, **UNCLEAR),
    409: Expected(ConflictError),
    410: Expected(APIStatusError),
    413: Expected(RequestTooLargeError),
    418: Expected(APIStatusError),
    422: Expected(UnprocessableEntityError),
    425: Expected(APIStatusError, **REPEATED),
    429: Expected(RateLimitError, **REPEATED),
    500: Expected(InternalServerError, **UNCLEAR),
    501: Expected(InternalServerError, billed="unknown"),
    502: Expected(InternalServerError, **UNCLEAR),
    503: Expected(InternalServerError, **UNCLEAR),
    504: Expected(InternalServerError, **UNCLEAR),
    520: Expected(InternalServerError, billed="unknown"),
    529: Expected(InternalServerError, **UNCLEAR),
}
BY_CODE = {
    (500, "provider_error"): Expected(ProviderError, **REPEATED),
    (503, "model_unavailable"): Expected(ModelUnavailableError, **REPEATED),
}
CODES = ["provider_error", "model_unavailable", "something_new"]


@attrs.frozen
class Shape:
    """A body, the code in it, and a piece of the words in it that must be in the message."""

    body: bytes
    code: str | None = None
    said: str = ""


def shapes(code):
    """Return the shapes of bodies, those with a code with this one."""

    def with_code(value, said="What went wrong"):
        return Shape(json.dumps(value).encode(), code, said)

    found = {
        "envelope": with_code({"error": code, "message": WORDS, "details": {"field": "model"}}),
        "envelope of nulls": with_code({"error": code, "message": None, "details": None}, ""),
        "flat": with_code({"error": code, "message": WORDS, "retry_after": 0, "plan": "vip", "limit_hour": 100}),
        "nested": with_code({"error": {"code": code, "message": WORDS}}),
        "nested, typed": with_code({"error": {"type": code, "message": WORDS, "code": None}}),
    }
    return found | WITHOUT_CODE if code == CODES[0] else found


WITHOUT_CODE = {
    "detail": Shape(json.dumps({"detail": WORDS}).encode(), None, "What went wrong"),
    "details": Shape(
        json.dumps({"detail": [{"loc": ["body", "model"], "msg": "is missing", "input": WORDS}] * 50}).encode(),
        None,
        "body.model: is missing",
    ),
    "words for a code": Shape(json.dumps({"error": WORDS}).encode(), None, "What went wrong"),
    "text": Shape(WORDS.encode(), None, "What went wrong"),
    "HTML": Shape(b"<html><h1>Bad\nthings</h1>" + WORDS.encode(), None, "<html><h1>Bad things</h1>"),
    "empty": Shape(b""),
    "null": Shape(b"null"),
    "list": Shape(b'["What went wrong"]'),
    "not UTF-8": Shape(b"What went wrong: \xff\xfe" * 100, None, "What went wrong"),
    "cut": Shape(b'{"error": "provider_error'),
    "empty object": Shape(b"{}"),
}


@pytest.fixture
def answering(serve):
    """A server that answers everything with what is in `answer`, and forgets what it was asked before."""

    class Answering:
        answer = b""

        def __init__(self):
            self.server = serve(self.script)

        async def script(self, connection):
            while True:
                await connection.request()
                await connection.send(self.answer)

        def set(self, data):
            self.answer = data
            for connection in self.server.connections:
                connection.requests.clear()

    return Answering()


async def failure_of(call):
    """Return the error of *call*."""
    with pytest.raises(NeuralBoxError) as caught:
        await call
    return caught.value


async def read_stream(client):
    """Open a stream and read it to its end."""
    async with client.stream("gpt-5", "Hi", recover=False) as stream:
        await stream.get_final_generation()


def assert_is(error, status, shape, expected):
    """The error is as expected, and has what the answer said."""
    assert type(error) is expected.kind
    assert status == error.status_code
    assert shape.code == error.code
    assert shape.said in str(error)
    assert str(error).startswith(str(status))
    assert len(str(error)) < 700
    assert shape.body == error.body
    assert "req_1" == error.request_id
    assert error.request_sent


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("status", BY_STATUS)
async def test_status(answering, connect, status, code):
    """A status is an error of its class, whatever the body; it is asked again only where that cannot bill twice."""
    for name, shape in shapes(code).items():
        client = connect(answering.server)  # a new one: after enough failures a client repeats nothing any more
        at_risk = client.with_options(retry_policy=attrs.evolve(AT_ONCE, retry_unknown=True))
        expected = BY_CODE.get((status, shape.code), BY_STATUS[status])
        answering.set(answer(shape.body, "X-Request-Id: req_1", status=f"{status} What"))
        for call in (lambda c: c.generate("gpt-5", "Hi"), read_stream):
            for asking, asked in ((client, expected.asked), (at_risk, expected.asked_at_risk)):
                answering.set(answering.answer)
                error = await failure_of(call(asking))

                assert_is(error, status, shape, expected)
                assert expected.billed == error.billed, name
                assert asked == error.attempts, name
                # A stream that is not found is looked for at the other documented entry as well.
                entries = 2 if (status, call) == (404, read_stream) else 1
                assert asked * entries == answering.server.posts, name
                assert 1 == len({request.headers["idempotency-key"] for request in answering.server.requests})

        answering.set(answering.answer)
        error = await failure_of(client.retrieve("gen_1"))

        assert_is(error, status, shape, expected)
        assert "no" == error.billed  # asking costs nothing
        assert expected.asked_by_get == len(answering.server.requests), name


NO_GENERATION = {
    "HTML": b"<html>Welcome</html>",
    "empty": b"",
    "blank": b" \r\n ",
    "null": b"null",
    "list": b'[{"id": 1}]',
    "text": b'"Hello"',
    "number": b"5",
    "cut": answer(generation()).partition(b"\r\n\r\n")[2][:-1],
    "other charset": '{"id": 1, "status": "completed", "content": "Hé"}'.encode("latin-1"),
    "UTF-16": json.dumps(generation()).encode("utf-16"),
    "NaN": b'{"id": 1, "status": "completed", "content": "x", "tokens_used": NaN}',
    "error": b'{"error": "provider_error", "message": "no"}',
    "nested error": b'{"error": {"code": "x", "message": "no"}}',
    "error beside nulls": b'{"id": null, "status": null, "error": "no"}',
    "nothing": b"{}",
    "a greeting": b'{"message": "hello"}',
    "all null": b'{"id": null, "status": null, "content": null}',
    "content of a list": b'{"id": 1, "status": "completed", "content": ["x"]}',
    "tokens in words": b'{"id": 1, "status": "completed", "content": "x", "tokens_used": "3"}',
    "usage of text": b'{"id": 1, "status": "completed", "content": "x", "usage": {"total_tokens": "3"}}',
}


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted", "206 Partial"])
@pytest.mark.parametrize("body", NO_GENERATION.values(), ids=NO_GENERATION)
async def test_success_that_is_none(answering, connect, status, body):
    """A success without a generation in it was billed, for all one knows: not asked again, and the body is kept."""
    answering.set(answer(body, status=status))
    client = connect(answering.server)

    error = await failure_of(client.generate("gpt-5", "Hi"))

    assert isinstance(error, ResponseError)
    assert "unknown" == error.billed
    assert body == error.body
    assert int(status[:3]) == error.status_code
    assert 1 == answering.server.posts

    answering.set(answering.answer)
    error = await failure_of(read_stream(client))

    assert isinstance(error, StreamInterruptedError | ResponseError)
    assert "unknown" == error.billed
    assert 1 == answering.server.posts


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted"])
@pytest.mark.parametrize("state", ["completed", "pending", "queued"])
async def test_success(answering, connect, status, state):
    """A generation is one with any status of success; the vendor names none for those that are pending."""
    answering.set(answer(generation(status=state), status=status))

    assert state == (await connect(answering.server).generate("gpt-5", "Hi")).status
    assert 1 == answering.server.posts


@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content"])
async def test_success_without_a_body(answering, connect, status):
    """A success that cannot have a body is none either."""
    answering.set(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    error = await failure_of(connect(answering.server).generate("gpt-5", "Hi"))

    assert isinstance(error, ResponseError)
    assert "unknown" == error.billed
    assert 1 == answering.server.posts


async def test_switching_protocols(answering, connect):
    """What says that it goes on in another protocol has not answered; what became of the request is unknown."""
    answering.set(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")

    error = await failure_of(connect(answering.server, timeout=0.5).generate("gpt-5", "Hi"))

    assert "unknown" == error.billed
    assert 1 == answering.server.posts
    assert await answering.server.all_left()


def at(seconds):
    """Return the HTTP date so many seconds from now."""
    return email.utils.format_datetime(dt.datetime.fromtimestamp(time.time() + seconds, dt.UTC), usegmt=True)


LARGE = 3600.0
WAITS = {
    "header of seconds": (["Retry-After: 3600"], {}, LARGE, 1),
    "header of decimals": (["Retry-After: 3600.0"], {}, LARGE, 1),
    "header before body": (["Retry-After: 3600"], {"retry_after": 1}, LARGE, 1),
    "date": ([lambda: f"Retry-After: {at(3600)}"], {}, LARGE, 1),
    "date of the past": ([lambda: f"Retry-After: {at(-3600)}"], {}, 0.0, 3),
    "zero": (["Retry-After: 0"], {}, 0.0, 3),
    "body": ([], {"retry_after": 3600}, LARGE, 1),
    "body in text": ([], {"retry_after": "3600"}, LARGE, 1),
    "garbage": (["Retry-After: soon"], {}, None, 3),
    "negative": (["Retry-After: -5"], {}, None, 3),
    "not a number": (["Retry-After: nan"], {"retry_after": True}, None, 3),
    "garbage before body": (["Retry-After: soon"], {"retry_after": 3600}, LARGE, 1),
    "longer than the deadline": (["Retry-After: 30"], {}, 30.0, 1),
    "veto": (["X-Should-Retry: false"], {}, None, 1),
    "veto of 0 seconds": (["X-Should-Retry: false", "Retry-After: 0"], {}, 0.0, 1),
}


@pytest.mark.parametrize("headers, members, retry_after, asked", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize(
    "status, code", [(429, "rate_limit_exceeded"), (503, "model_unavailable"), (500, "provider_error")]
)
async def test_asked_to_wait(answering, connect, status, code, headers, members, retry_after, asked):
    """A wait that is too long, or vetoed, is not waited: the error comes at once, and tells it."""
    lines = [line if isinstance(line, str) else line() for line in headers]
    answering.set(answer({"error": code, "message": "no", **members}, *lines, status=f"{status} No"))
    started = time.monotonic()

    error = await failure_of(connect(answering.server, timeout=20).generate("gpt-5", "Hi"))

    assert code == error.code
    assert "no" == error.billed
    assert asked == answering.server.posts == error.attempts
    assert time.monotonic() - started < 5
    assert error.retry_after == (retry_after if retry_after is None else pytest.approx(retry_after, abs=10))


LATER = {
    "throttled": answer({"error": "rate_limit_exceeded", "retry_after": 3600}, status="429 Slow"),
    "never charged": answer({"error": "provider_error"}, "X-Should-Retry: false", status="500 No"),
}


@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
async def test_what_an_earlier_attempt_may_have_cost(serve, connect, later):
    """When an attempt may have been billed, the failure of a later one does not call the whole free."""
    server = serve(serves(answer({"error": "x"}, status="502 Bad"), later))
    client = connect(server, retry_policy=attrs.evolve(AT_ONCE, retry_unknown=True))

    error = await failure_of(client.generate("gpt-5", "Hi"))

    assert 502 != error.status_code
    assert "unknown" == error.billed
    assert 2 == error.attempts == server.posts


async def test_what_was_sent_before_is_sent(serve, connect):
    """An attempt that was sent is not forgotten when the last one was refused a connection."""

    async def script(connection):
        await connection.request()
        server.close_listener()
        await asyncio.sleep(0.01)
        await connection.send(answer({"error": "provider_error"}, "Connection: close", status="500 No"))

    server = serve(script)

    error = await failure_of(connect(server).generate("gpt-5", "Hi"))

    assert isinstance(error, APIConnectionError)
    assert error.request_sent
    assert "no" == error.billed
    assert 1 == server.posts
