"""Any bytes of a server lead to a result or to an error of this SDK, which is short, printable and can be pickled."""

import contextlib
import json
import math
import pickle
import unicodedata

import pytest
from fault_server import STREAM_HEAD, eventually, respond_once, respond_to_each, response
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neuralbox_async import (
    AsyncNeuralBox,
    Generation,
    NeuralBoxError,
    RetryPolicy,
    StreamInterruptedError,
)
from neuralbox_async._wire import events, responses, status_errors, structuring
from neuralbox_async._wire.sse import SSEDecoder
from neuralbox_async.testing import FakeResponse, FakeTransport

GENERATION_FIELDS = sorted(
    {name for names in structuring.GENERATION_NAMES.values() for name in names} | {"message", "detail"}
)
EVENT_FIELDS = [
    "type",
    "id",
    "model",
    "delta",
    "message",
    "tokens_used",
    "tokens_spent",
    "balance_remaining",
    "usage",
    "error",
]
ERROR_FIELDS = ["error", "message", "detail", "details", "code", "retry_after", "plan", "limit_hour", "limit_day"]
USAGE_FIELDS = ["prompt_tokens", "completion_tokens", "total_tokens", "loc", "msg", "code", "type", "message"]
STATUSES = [400, 401, 402, 403, 404, 408, 409, 413, 422, 425, 429, 500, 502, 503, 504, 529, 599, 300, 304, 418]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [2**63, 2**64, -(2**70), 10**400, 1e308, -0.0, "", "completed", "failed", "pending", "\ud800", "\0\x1b[31m\n"]
    )
    | st.floats()  # NaN and infinity as well: not JSON, but some servers send them
    | st.text(max_size=20)
    | st.sampled_from(
        ["2026-03-08T12:00:00Z", "0000-00-00", "9999-12-31T23:59:59+00:00", "1_000", "Infinity", "-1", "1e3"]
    )
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(USAGE_FIELDS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
retry_afters = (
    st.text(max_size=30)
    | st.from_regex(r"[ 0-9.eE_+,:A-Za-z-]{0,35}", fullmatch=True)
    | st.builds(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} {}".format,
        st.sampled_from(["Sun", "Sunday", "xxx"]),
        st.integers(0, 40),
        st.sampled_from(["Nov", "Feb", "nov", "???"]),
        st.integers(0, 99999),
        st.integers(0, 30),
        st.integers(0, 70),
        st.integers(0, 70),
        st.sampled_from(["GMT", "", "+9999", "-2400", "EST", "+0000"]),
    )
)


def objects(fields):
    """Return a strategy for JSON objects with some of *fields* and any values."""
    return st.dictionaries(st.sampled_from(fields), values, max_size=6)


def assert_presentable(error):
    """Check that *error* has a message of one bounded line that UTF-8 can carry, and that it can be pickled."""
    assert isinstance(error, NeuralBoxError)
    assert len(str(error)) <= 1000
    assert not {"Cc", "Cs"} & {unicodedata.category(char) for char in str(error)}, ascii(str(error))
    assert str(error) == str(pickle.loads(pickle.dumps(error)))
    assert error.billed in {"no", "yes", "unknown"}


@contextlib.contextmanager
def only_sdk_errors():
    """Suppress errors of this SDK and check them; other errors pass."""
    try:
        yield
    except NeuralBoxError as error:
        assert_presentable(error)


# ------------------------------------------------------------------------------------------------------ plain functions


@given(objects(GENERATION_FIELDS) | values)
def test_any_response_body(value):
    """Any JSON as the body of a response is a generation or an error."""
    with only_sdk_errors():
        generation = responses.decode_generation(200, {}, json.dumps(value).encode())
        assert isinstance(generation, Generation)
        assert isinstance(generation.content, str)
        assert isinstance(generation.status, str)
        assert value == generation.raw or "NaN" in repr(value) or "nan" in repr(value)


@given(
    objects(EVENT_FIELDS) | values,
    st.sampled_from(["generation_start", "content_delta", "generation_end", "error", "?"]),
)
def test_any_event(value, event_type):
    """Any JSON as the data of an event is an event or an error."""
    if isinstance(value, dict):
        value.setdefault("type", event_type)
    with only_sdk_errors():
        events.decode_event(json.dumps(value))


@given(st.sampled_from(STATUSES), objects(ERROR_FIELDS) | values, retry_afters)
def test_any_error_body(status, value, retry_after):
    """Any JSON as the body of an error, with any Retry-After, is an error with that status and a bounded wait."""
    error = status_errors.error_from(status, {"retry-after": retry_after}, json.dumps(value).encode())

    assert status == error.status_code
    assert_presentable(error)
    assert error.retry_after is None or 0 <= error.retry_after <= 1e9
    delay = RetryPolicy().delay(1, error, remaining=100.0)
    assert delay is None or 0 <= delay <= 99


@given(st.binary(max_size=200))
@example(b"\xff\xfe{\0}\0")
@example(b"\xef\xbb\xbf{}")
def test_any_bytes(body):
    """Any bytes as a body are a generation or an error."""
    with only_sdk_errors():
        responses.decode_generation(200, {}, body)
    assert_presentable(status_errors.error_from(500, {}, body))


@given(retry_afters)
def test_any_retry_after(text):
    """Any text as a Retry-After is a number of seconds from 0 to a billion, or None."""
    seconds = status_errors.parse_retry_after(text)
    assert seconds is None or (math.isfinite(seconds) and 0 <= seconds <= 1e9)


@pytest.mark.parametrize(
    "text", ["1" * 5000, "9" * 12, "0." + "0" * 5000, "-1", "nan", "1e5", "٣", "1_000", "Sun, 06 Nov 1994 08:49:37 GMT"]
)
def test_extreme_retry_after(text):
    """Very long numbers, digits of other alphabets and dates in the past are None or 0."""
    seconds = status_errors.parse_retry_after(text)
    assert seconds is None or seconds == 0


# At about 985 levels a JSON parser makes values whose repr Python cannot make.
DEPTHS = [50, 900, 950, 985, 1000, 1020, 1024, 1030, 20_000]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("opening, closing", ["[]", ('{"loc":', "}")])
def test_any_depth(depth, opening, closing):
    """JSON nested to any depth in any field is an error or ignored; it exhausts no stack."""
    deep = opening * depth + "1" + closing * depth
    for field in [*GENERATION_FIELDS, "unknown"]:
        with contextlib.suppress(NeuralBoxError):
            responses.decode_generation(200, {}, f'{{"id": 1, "status": "completed", "{field}": {deep}}}'.encode())
    for field in ERROR_FIELDS:
        for value in (deep, f"[{deep}]", f'{{"message": {deep}}}', f'[{{"loc": [{deep}], "msg": {deep}}}]'):
            error = status_errors.error_from(400, {}, f'{{"{field}": {value}}}'.encode())
            assert len(str(error)) <= 1000
    for field in EVENT_FIELDS:
        for event_type in ("generation_start", "content_delta", "generation_end", "error"):
            with contextlib.suppress(NeuralBoxError):
                events.decode_event(f'{{"type": "{event_type}", "{field}": {deep}}}')


@given(
    st.lists(
        st.binary(max_size=30)
        | st.sampled_from([b"data: {}\n\n", b"\r", b"\n", b"\xef\xbb\xbf", b"data:", b"retry: 9" + b"9" * 5000])
    )
)
def test_any_bytes_for_the_decoder(chunks):
    """Any bytes, cut anywhere, are events or an error."""
    decoder = SSEDecoder(max_event_bytes=100)
    with only_sdk_errors():
        for chunk in chunks:
            for event in decoder.feed(chunk):
                assert len(event.data.encode()) <= 3 * 100  # each byte that is not UTF-8 becomes three


# ---------------------------------------------------------------------------------------------------------- whole calls


def client_of(*responses):
    """Return a client that receives *responses*."""
    policy = RetryPolicy(jitter=lambda _low, _high: 0.0, max_retry_after=0.0)
    return AsyncNeuralBox(
        "nb_test_key", base_url="https://api.example", transport=FakeTransport(*responses), retry_policy=policy
    )


async def read_stream(client):
    """Read a stream to its end; return the text."""
    async with client.stream("gpt-5", "Hi", recover=False) as stream:
        texts = [text async for text in stream.text_stream]
    assert "".join(texts) == stream.generation.content
    assert stream.generation.finished
    return texts


streams = st.lists(
    st.binary(max_size=20)
    | (objects(EVENT_FIELDS) | values).map(lambda value: b"data: " + json.dumps(value).encode() + b"\n\n")
    | st.sampled_from(
        [
            b'data: {"type": "content_delta", "delta": "x"}\n\n',
            b'data: {"type": "generation_end"}\n\n',
            b"data: [DONE]\r\n\r\n",
        ]
    ),
    max_size=8,
)


@given(
    streams,
    st.sampled_from(["text/event-stream", "application/json", "text/html", "", "x/y; charset=\u00ff", "TEXT/PLAIN"]),
)
async def test_any_stream(chunks, content_type):
    """Any bytes as a stream are events and an end, or events and an error with their text."""
    client = client_of(FakeResponse(*chunks, headers={"content-type": content_type}))
    texts = []
    try:
        async with client.stream("gpt-5", "Hi", recover=False) as stream:
            async for text in stream.text_stream:
                texts.append(text)
    except StreamInterruptedError as error:
        assert_presentable(error)
        assert "".join(texts) == error.text
    except NeuralBoxError as error:
        assert_presentable(error)


@given(st.sampled_from([200, 201, *STATUSES]), objects(GENERATION_FIELDS) | objects(ERROR_FIELDS) | values)
async def test_any_response_to_any_call(status, value):
    """Any response with any status is a result or an error of any call."""
    response = FakeResponse(
        json.dumps(value).encode(), status_code=status, headers={"content-type": "application/json"}
    )
    for call in (
        lambda client: client.generate("gpt-5", "Hi", max_retries=0),
        lambda client: client.retrieve("gen_1", max_retries=0),
        lambda client: client.with_options(max_retries=0).wait("gen_1", timeout=0.01, poll_interval=0.001),
        lambda client: read_stream(client.with_options(max_retries=0)),
    ):
        with only_sdk_errors():
            await call(client_of(response))


@settings(max_examples=15)
@given(st.binary(max_size=200), st.binary(max_size=60))
async def test_any_bytes_on_the_wire(serve, connect, data, more):
    """Any bytes as a response, head included, are an error after one request, and the connection is closed."""
    for pieces in ([data, more], [response(data)], [STREAM_HEAD + data, more]):
        server = serve(respond_once(*pieces, every=0.001), respond_to_each(response({"error": "x"}, status="400 No")))
        client = connect(server, timeout=2, max_retries=0)
        with only_sdk_errors():
            await client.generate("gpt-5", "Hi")
        assert 1 == server.posts
        assert await eventually(lambda server=server: server.connections[0].ended)

        with only_sdk_errors():
            await read_stream(client)
        assert 2 == server.posts
