"""`AsyncNeuralBox`: what is sent, what is checked before, what is tried again, and what errors tell."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle

import anyio
import pytest

from neuralbox_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncNeuralBox,
    ClientClosedError,
    Generation,
    GenerationFailedError,
    InsufficientTokensError,
    InvalidParameterError,
    NeuralBoxError,
    NotFoundError,
    ProviderError,
    RateLimitError,
    ResponseError,
    RetryPolicy,
    WaitTimeoutError,
)
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

KEY = "nb_canary_key_that_must_not_be_seen_7f3a"
REPLY = {"id": "gen_1", "status": "completed", "content": "Hello"}
PENDING = {"id": "gen_1", "status": "pending"}
REFUSED = APIConnectionError("refused")
LOST = APIConnectionError("reset", request_sent=True)


async def test_generate(make_client):
    """One POST with the key goes out, and the generation comes back."""
    transport = FakeTransport(REPLY)
    client = make_client(transport, base_url="https://api.example.com/v2/", default_headers={"X-Team": "a"})

    reply = await client.generate(
        "gpt-5",
        "Hi",
        system="Be brief.",
        temperature=0.5,
        max_tokens=9,
        extra_headers={"X-Trace": "t"},
        extra_body={"seed": 1},
    )

    (request,) = transport.requests
    assert Generation(id="gen_1", content="Hello") == reply
    assert ("POST", "https://api.example.com/v2/generate") == (request.method, request.url)
    assert {
        "model": "gpt-5",
        "messages": [{"role": "user", "content": "Hi"}],
        "system": "Be brief.",
        "temperature": 0.5,
        "max_tokens": 9,
        "seed": 1,
    } == request.json
    expected = {
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "X-Team": "a",
        "X-Trace": "t",
    }
    assert expected == {name: str(request.headers[name]) for name in expected}
    assert request.headers["User-Agent"].startswith("neuralbox-python/")


async def test_stream_headers(make_client):
    """A stream asks for events, uncompressed."""
    transport = FakeTransport(FakeResponse(b"data: [DONE]\n\n", headers={"content-type": "text/event-stream"}))
    async with make_client(transport).stream("gpt-5", "Hi"):
        pass

    (request,) = transport.requests
    assert ("text/event-stream", "identity") == (request.headers["Accept"], request.headers["Accept-Encoding"])
    assert request.json["stream"] is True


async def test_idempotency_key(make_client):
    """Each call has a key of its own, the same on each attempt; the user's own is taken."""
    transport = FakeTransport(REFUSED, REPLY)
    client = make_client(transport)
    await client.generate("gpt-5", "Hi")
    await client.generate("gpt-5", "Hi")
    await client.generate("gpt-5", "Hi", idempotency_key="mine")

    keys = [request.headers["Idempotency-Key"] for request in transport.requests]
    assert keys[0] == keys[1] != keys[2] != keys[3] == "mine"


# ------------------------------------------------------------------------------------------------------ configuration

INVALID_OPTIONS = [
    ("api_key", {"api_key": ""}),
    ("api_key", {"api_key": "nb_\nX-Evil: 1"}),
    ("api_key", {"api_key": "nb_\u0430"}),
    ("api_key", {"api_key": " nb"}),
    ("api_key", {"api_key": 5}),
    ("base_url", {"base_url": "ftp://example.com"}),
    ("base_url", {"base_url": "https://"}),
    ("base_url", {"base_url": "https://user:pw@example.com"}),
    ("base_url", {"base_url": "https://example.com/?a=b"}),
    ("base_url", {"base_url": "https://example.com:99999"}),
    ("base_url", {"base_url": "https://exa mple.com"}),
    ("base_url", {"base_url": "http://example.com"}),
    ("base_url", {"base_url": 5}),
    ("timeout", {"timeout": 0}),
    ("timeout", {"timeout": "1"}),
    ("timeout", {"timeout": float("nan")}),
    ("timeout", {"timeout": True}),
    ("connect_timeout", {"connect_timeout": -1}),
    ("first_event_timeout", {"first_event_timeout": 0}),
    ("stall_timeout", {"stall_timeout": 0}),
    ("max_retries", {"max_retries": -1}),
    ("max_retries", {"max_retries": 1.5}),
    ("retry_policy", {"retry_policy": 3}),
    ("reuse_connections", {"reuse_connections": "no"}),
    ("allow_insecure", {"allow_insecure": "no"}),
    ("ssl_context", {"ssl_context": "cert.pem"}),
    ("base_url", {"base_url": ""}),
    ("proxy", {"base_url": "http://localhost:5", "proxy": "http://proxy.example.com"}),
    ("max_connections", {"max_connections": 0}),
    ("max_response_bytes", {"max_response_bytes": 0}),
    ("max_event_bytes", {"max_event_bytes": 0}),
    ("proxy", {"proxy": "socks5://localhost:1"}),
    ("proxy", {"proxy": "http://"}),
    ("proxy", {"proxy": "http://[::1"}),
    ("proxy", {"proxy": 5}),
    ("default_headers", {"default_headers": {"A b": "c"}}),
    ("default_headers", {"default_headers": {"Authorization": "c"}}),
    ("default_headers", {"default_headers": {5: "c"}}),
    ("default_headers", {"default_headers": ["a"]}),
    ("default_headers['X-A']", {"default_headers": {"X-A": "b\r\nX-Evil: 1"}}),
    ("default_headers['X-A']", {"default_headers": {"X-A": "\u0430"}}),
    ("default_headers['X-A']", {"default_headers": {"X-A": 5}}),
]


@pytest.mark.parametrize("parameter, options", INVALID_OPTIONS, ids=str)
async def test_invalid_options(parameter, options):
    """A client with a wrong option is not made, and the error names the option."""
    with pytest.raises(InvalidParameterError) as caught:
        AsyncNeuralBox(**{"api_key": KEY, **options})
    assert parameter == caught.value.parameter
    assert "Evil" not in str(caught.value)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "x"},
        {"base_url": "https://example.com:8443/some/path/"},
        {"base_url": "http://localhost:8000"},
        {"base_url": "http://127.0.0.53"},
        {"base_url": "http://[::1]:80/v2"},
        {"base_url": "http://example.com", "allow_insecure": True},
        {"timeout": None, "connect_timeout": None, "first_event_timeout": None, "stall_timeout": None},
        {"proxy": "http://user:p%40ss@[::1]:3128"},
        {"proxy": "https://proxy.example.com"},
    ],
)
async def test_valid_options(options):
    """Nothing valid is refused; keys are not checked for length or prefix."""
    AsyncNeuralBox(**{"api_key": KEY, **options})


@pytest.mark.parametrize(
    "parameter, options",
    [
        ("temperature", {"temperature": 3}),
        ("timeout", {"timeout": 0}),
        ("max_retries", {"max_retries": -1}),
        ("extra_headers", {"extra_headers": {"content-length": "5"}}),
        ("extra_headers['X-A']", {"extra_headers": {"X-A": "a\nb"}}),
        ("idempotency_key", {"idempotency_key": "a\nb"}),
        ("idempotency_key", {"idempotency_key": ""}),
        ("extra_headers", {"extra_headers": {"Idempotency-Key": "mine"}}),
        ("timeout", {"timeout": 10**400}),
        ("temperature", {"temperature": 10**400}),
        ("extra_body", {"extra_body": {"a": float("nan")}}),
    ],
)
async def test_invalid_calls(make_client, parameter, options):
    """Nothing invalid reaches the network; a stream refuses it at the call."""
    transport = FakeTransport(REPLY)
    client = make_client(transport)
    with pytest.raises(InvalidParameterError) as caught:
        await client.generate("gpt-5", "Hi", **options)
    with pytest.raises(InvalidParameterError):
        client.stream("gpt-5", "Hi", **options)

    assert parameter == caught.value.parameter
    assert [] == transport.requests


async def test_environment(monkeypatch):
    """Key and base URL come from the environment when they are not given; it is read when the client is made."""
    monkeypatch.setenv("NEURALBOX_API_KEY", KEY)
    monkeypatch.setenv("NEURALBOX_BASE_URL", "https://env.example.com/")
    transport = FakeTransport(REPLY)
    await AsyncNeuralBox(transport=transport).generate("gpt-5", "Hi")

    assert "https://env.example.com/generate" == transport.requests[0].url
    assert f"Bearer {KEY}" == str(transport.requests[0].headers["Authorization"])

    monkeypatch.delenv("NEURALBOX_API_KEY")
    with pytest.raises(InvalidParameterError, match="NEURALBOX_API_KEY"):
        AsyncNeuralBox()


@pytest.mark.parametrize("later", [False, True])
async def test_rotating_keys(make_client, later):
    """A function, plain or async, is asked for the key before each attempt."""
    keys = iter(["one", "two"])

    async def next_key_later() -> str:
        return next(keys)

    transport = FakeTransport(REFUSED, REPLY)
    client = make_client(transport).with_options(api_key=next_key_later if later else lambda: next(keys))
    await client.generate("gpt-5", "Hi")

    assert ["Bearer one", "Bearer two"] == [str(request.headers["Authorization"]) for request in transport.requests]


async def test_a_function_that_returns_no_key(make_client):
    """What a key function returns is checked like a key."""
    transport = FakeTransport(REPLY)
    with pytest.raises(InvalidParameterError, match="api_key"):
        await make_client(transport).with_options(api_key=lambda: "a\nb").generate("gpt-5", "Hi")
    assert [] == transport.requests


async def test_with_options(make_client):
    """A derived client shares the connections, changes what it was told, and leaves the first as it was."""
    transport = FakeTransport(REPLY)
    client = make_client(transport, default_headers={"X-A": "1"})
    derived = client.with_options(api_key="other", max_retries=0, timeout=1, default_headers={"X-B": "2"})
    await client.generate("gpt-5", "Hi")
    await derived.generate("gpt-5", "Hi")

    first, second = (request.headers for request in transport.requests)
    assert ("1", None) == (str(first["X-A"]), first.get("X-B"))
    assert ("1", "2", "Bearer other") == (str(second["X-A"]), str(second["X-B"]), str(second["Authorization"]))
    assert str(first["Authorization"]) == f"Bearer {KEY}"
    assert type(derived) is AsyncNeuralBox
    await derived.aclose()
    assert client.closed
    with pytest.raises(InvalidParameterError):
        client.with_options(timeout=-1)


async def test_closed(make_client):
    """A closed client refuses calls without sending them; closing twice is fine."""
    transport = FakeTransport(REPLY)
    async with make_client(transport) as client:
        assert not client.closed
        stream = client.stream("gpt-5", "Hi")
    await client.aclose()

    assert transport.closed
    for call in (client.generate("gpt-5", "Hi"), client.retrieve(1), client.wait(1), stream.__aenter__()):
        with pytest.raises(ClientClosedError, match="closed"):
            await call
    assert [] == transport.requests


async def test_no_pickle_no_secret():
    """A client is not pickled or copied deeply, and does not show its key."""
    client = AsyncNeuralBox(KEY, proxy="http://user:hunter2@localhost:1")
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="make one in each process"):
            attempt(client)
    assert "AsyncNeuralBox(base_url='https://neuralbox.top/api/v2')" == repr(client)
    shown = repr(vars(client)) + repr(vars(client._caller.shared.transport))
    assert KEY not in shown
    assert "hunter2" not in shown


# ------------------------------------------------------------------------------------------------------------ retries


@pytest.mark.parametrize(
    "answers, attempts",
    [
        ([REPLY], 1),
        ([REFUSED, REPLY], 2),
        ([REFUSED, RateLimitError("429", status=429), REPLY], 3),
        ([FakeResponse(b'{"error": "provider_error"}', status=500), REPLY], 2),
        ([FakeResponse(b'{"error": "model_unavailable", "retry_after": 0.001}', status=503), REPLY], 2),
    ],
)
async def test_repeats_what_cost_nothing(make_client, answers, attempts):
    """What surely was not billed is tried again until it succeeds."""
    transport = FakeTransport(*answers)

    assert "Hello" == (await make_client(transport).generate("gpt-5", "Hi")).content
    assert attempts == len(transport.requests)


@pytest.mark.parametrize(
    "answer, kind, billed, attempts",
    [
        (LOST, APIConnectionError, "unknown", 1),
        (REFUSED, APIConnectionError, "no", 3),
        (FakeResponse(b"Oops", status=502), APIStatusError, "unknown", 1),
        (FakeResponse(b"", status=402), InsufficientTokensError, "no", 1),
        (FakeResponse(b'{"retry_after": 847}', status=429), RateLimitError, "no", 1),
        (FakeResponse(b"<html>", status=200), ResponseError, "unknown", 1),
        (FakeResponse(b'{"id": 1, "status": "failed"}'), GenerationFailedError, "no", 1),
        (FakeResponse(b'{"id"', LOST), APIConnectionError, "unknown", 1),
    ],
)
async def test_gives_up(make_client, answer, kind, billed, attempts):
    """The error that is raised tells how often it was tried and what is known of the bill."""
    transport = FakeTransport(answer)
    with pytest.raises(kind) as caught:
        await make_client(transport).generate("gpt-5", "Hi", idempotency_key="mine")

    error = caught.value
    assert (billed, attempts, "mine") == (error.billed, error.attempts, error.idempotency_key)
    assert attempts == len(transport.requests)
    assert error.elapsed >= 0
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


async def test_body_of_a_broken_answer_is_kept(make_client):
    """What had come of an answer that broke off is in the error."""
    transport = FakeTransport(FakeResponse(b'{"content": "Once', LOST))
    with pytest.raises(APIConnectionError) as caught:
        await make_client(transport).generate("gpt-5", "Hi")
    assert b'{"content": "Once' == caught.value.body


@pytest.mark.parametrize("max_retries, attempts", [(0, 1), (1, 2), (5, 6)])
async def test_max_retries(make_client, max_retries, attempts):
    """The number of further attempts is the client's, the call's or the policy's."""
    for place in ("client", "call", "with_options"):
        transport = FakeTransport(REFUSED)
        client = make_client(transport, **({"max_retries": max_retries} if place == "client" else {}))
        if place == "with_options":
            client = client.with_options(max_retries=max_retries)
        with pytest.raises(APIConnectionError):
            await client.generate("gpt-5", "Hi", **({"max_retries": max_retries} if place == "call" else {}))
        assert attempts == len(transport.requests)


async def test_opting_in(make_client):
    """Who accepts to be billed twice gets unknown outcomes repeated, and a later refusal still says "unknown"."""
    transport = FakeTransport(LOST, REFUSED)
    client = make_client(transport).with_options(
        retry_policy=RetryPolicy(retry_unknown=True, uniform=lambda low, _high: low)
    )
    with pytest.raises(APIConnectionError, match="refused") as caught:
        await client.generate("gpt-5", "Hi")
    assert (3, "unknown", True) == (len(transport.requests), caught.value.billed, caught.value.request_sent)


async def test_budget(make_client):
    """In an outage the retry budget of the client, and of those derived from it, runs out."""
    transport = FakeTransport(REFUSED)
    client = make_client(transport)
    for _ in range(40):
        with pytest.raises(APIConnectionError):
            await client.with_options(timeout=5).generate("gpt-5", "Hi")
    assert 40 + 35 == len(transport.requests)


async def test_stream_is_requested_again_before_it_begins(make_client):
    """A stream's request is repeated like any other, until its answer has begun."""
    transport = FakeTransport(REFUSED, FakeResponse(b"data: [DONE]\n\n", headers={"content-type": "text/event-stream"}))
    async with make_client(transport).stream("gpt-5", "Hi") as stream:
        await stream.until_done()
    assert 2 == len(transport.requests)


async def test_cancelled_during_the_wait(make_client):
    """A cancellation during a back-off wait ends the call at once; nothing more is sent."""
    transport = FakeTransport(REFUSED)
    client = make_client(transport, retry_policy=RetryPolicy(uniform=lambda _low, high: high))
    with anyio.move_on_after(0.05) as scope:
        await client.generate("gpt-5", "Hi")

    assert scope.cancelled_caught
    assert 1 == len(transport.requests)


async def test_closing_ends_a_wait(make_client):
    """A call that waits for its next attempt ends soon when the client is closed."""
    transport = FakeTransport(RateLimitError("429", status=429, retry_after=30.0))
    client = make_client(transport)
    call = asyncio.ensure_future(client.generate("gpt-5", "Hi"))
    await asyncio.sleep(0.01)
    await client.aclose()
    with anyio.fail_after(5), pytest.raises(ClientClosedError) as caught:
        await call
    assert ("no", True) == (caught.value.billed, caught.value.request_sent)


async def test_deadline(make_client):
    """The deadline of a call ends it wherever it is; the error says what was sent, and keeps what had come."""
    for transport, sent, body in [(FakeTransport(FakeResponse(b"{", ...)), True, b"{"), (Hanging(), False, b"")]:
        with anyio.fail_after(5), pytest.raises(APITimeoutError, match=r"within 0\.05 s") as caught:
            await make_client(transport).generate("gpt-5", "Hi", timeout=0.05)
        assert (sent, "total", body) == (caught.value.request_sent, caught.value.phase, caught.value.body)


class Hanging(FakeTransport):
    """A transport that never gets as far as a connection."""

    async def send(self, *args):
        await anyio.sleep_forever()


async def test_deadline_of_opening_a_stream(make_client):
    """Opening a stream ends with the clock that runs out first."""
    client = make_client(Hanging())
    for limits, phase in [
        ({"first_event_timeout": 0.02}, "first_event"),
        ({"timeout": 0.02, "first_event_timeout": 5}, "total"),
        ({"timeout": 0.02, "first_event_timeout": None}, "total"),
    ]:
        with anyio.fail_after(5), pytest.raises(APITimeoutError) as caught:
            await client.stream("gpt-5", "Hi", **limits).__aenter__()
        assert phase == caught.value.phase


# ---------------------------------------------------------------------------------------------------------- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_post_is_not_redirected(make_client, status):
    """A POST follows no redirect: the generation would be billed again, or the key told to another host."""
    transport = FakeTransport(FakeResponse(b"", status=status, headers={"location": "/elsewhere"}))
    with pytest.raises(APIStatusError) as caught:
        await make_client(transport).generate("gpt-5", "Hi")
    assert (status, 1, "/elsewhere") == (caught.value.status, len(transport.requests), caught.value.headers["location"])


@pytest.mark.parametrize(
    "location, url",
    [
        ("/v3/generate/1", "https://api.example.com/v3/generate/1"),
        ("https://api.example.com/x", "https://api.example.com/x"),
        ("https://api.example.com:444/x", None),
        ("http://api.example.com/x", None),
        ("//evil.example.com/x", None),
        ("https://user:pw@api.example.com/x", None),
        ("https://[::1/x", None),
        ("", None),
    ],
)
async def test_get_is_redirected_to_the_same_origin(make_client, location, url):
    """A GET follows a redirect to the same origin, and to no other."""
    transport = FakeTransport(FakeResponse(b"", status=302, headers={"location": location}), REPLY)
    client = make_client(transport, base_url="https://api.example.com/v2")
    if url is None:
        with pytest.raises(APIStatusError):
            await client.retrieve(1)
        assert 1 == len(transport.requests)
    else:
        assert "Hello" == (await client.retrieve(1)).content
        assert url == transport.requests[-1].url


async def test_endless_redirects(make_client):
    """A redirect to itself ends."""
    transport = FakeTransport(FakeResponse(b"", status=302, headers={"location": "/x"}))
    with pytest.raises(APIConnectionError, match="redirects"):
        await make_client(transport).retrieve(1)
    assert len(transport.requests) < 10


# --------------------------------------------------------------------------------------------------------------- jobs


async def test_retrieve(make_client):
    """The state is asked for under one documented path, on 404 under the other; what worked is remembered."""
    not_found = FakeResponse(b'{"error": "not_found"}', status=404)
    transport = FakeTransport(not_found, REPLY)
    client = make_client(transport, base_url="https://x.example.com")

    for generation in ("gen_1", Generation(id=7), 7):
        assert "Hello" == (await client.retrieve(generation)).content
    assert ["/generate/status/gen_1", "/generate/gen_1", "/generate/7", "/generate/7"] == [
        request.url.removeprefix("https://x.example.com") for request in transport.requests
    ]


async def test_retrieve_what_is_not_there(make_client):
    """When neither path knows it, the first 404 is raised; nothing was billed."""
    transport = FakeTransport(FakeResponse(b"first", status=404), FakeResponse(b"second", status=404))
    with pytest.raises(NotFoundError, match="first") as caught:
        await make_client(transport).retrieve("gen_1")
    assert "no" == caught.value.billed


async def test_retrieve_failed(make_client):
    """A generation that failed raises, under whichever path it was found."""
    transport = FakeTransport(FakeResponse(b"", status=404), {"id": 1, "status": "failed", "error": "policy"})
    client = make_client(transport)
    for _ in range(2):
        with pytest.raises(GenerationFailedError, match="policy"):
            await client.retrieve(1)
    assert 3 == len(transport.requests)


async def test_get_lives_through_what_is_transient(make_client):
    """A GET costs nothing, so every transient failure of it is tried again."""
    transport = FakeTransport(LOST, FakeResponse(b"", status=502), REPLY)
    assert "Hello" == (await make_client(transport).retrieve(1)).content


@pytest.mark.parametrize("generation", [None, "", True, 1.5, Generation(status="pending")])
async def test_ids(make_client, generation):
    """What has no id is refused."""
    client = make_client(FakeTransport(REPLY))
    for call in (client.retrieve(generation), client.wait(generation)):
        with pytest.raises(InvalidParameterError, match="generation"):
            await call


async def test_pending(make_client):
    """A pending generation is returned as it is, or waited for on request."""
    client = make_client(FakeTransport(PENDING))
    assert "pending" == (await client.generate("gpt-5", "Hi")).status

    transport = FakeTransport(REPLY)
    assert "Hello" == (await make_client(transport).generate("gpt-5", "Hi", wait=True)).content
    assert 1 == len(transport.requests)


async def test_wait(make_client):
    """Waiting asks until the generation is completed, through transient failures."""
    transport = FakeTransport(PENDING, LOST, {**PENDING, "status": "queued"}, FakeResponse(b"", status=503), REPLY)
    client = make_client(transport, max_retries=0)

    assert "Hello" == (await client.wait("gen_1", poll_interval=0.001)).content
    assert 5 == len(transport.requests)


async def test_wait_after_generate(make_client, monkeypatch):
    """`generate(wait=True)` posts once and then asks."""
    monkeypatch.setattr("neuralbox_async._calls.POLL_INTERVAL", 0.001)
    transport = FakeTransport(PENDING, PENDING, REPLY)
    client = make_client(transport)
    monkeypatch.setattr(type(client._caller).wait, "__kwdefaults__", {"interval": 0.001, "at_once": False})

    assert "Hello" == (await client.generate("gpt-5", "Hi", wait=True)).content
    assert ["POST", "GET", "GET"] == [request.method for request in transport.requests]


async def test_wait_for_what_is_finished(make_client):
    """A finished generation is not asked for."""
    transport = FakeTransport(REPLY)
    client = make_client(transport)

    assert "a" == (await client.wait(Generation(id=1, content="a"))).content
    with pytest.raises(GenerationFailedError):
        await client.wait(Generation(id=1, status="failed"))
    assert [] == transport.requests


async def test_wait_raises(make_client):
    """A failure is raised, and so is what asking again does not mend."""
    for answer, kind in [
        ({"id": 1, "status": "failed"}, GenerationFailedError),
        (FakeResponse(b"", status=401), APIStatusError),
        (FakeResponse(b"", status=404), NotFoundError),
        (APIConnectionError("certificate", retryable=False), APIConnectionError),
    ]:
        with anyio.fail_after(5), pytest.raises(kind):
            await make_client(FakeTransport(answer)).wait(1)


@pytest.mark.parametrize("answer", [PENDING, LOST])
async def test_wait_ends_with_its_time(make_client, answer):
    """When time is over, the last known state is in the error."""
    with anyio.fail_after(5), pytest.raises(WaitTimeoutError) as caught:
        await make_client(FakeTransport(answer)).wait("gen_1", timeout=0.05, poll_interval=0.01)

    assert ("pending", "gen_1", "unknown") == (
        caught.value.generation.status,
        caught.value.generation_id,
        caught.value.billed,
    )


async def test_wait_hangs_on_no_question(make_client):
    """A question without an answer does not outlast the deadline."""
    with anyio.fail_after(5), pytest.raises(APITimeoutError):
        await make_client(Hanging()).wait("gen_1", timeout=0.05)


@pytest.mark.parametrize("options", [{"poll_interval": 0}, {"poll_interval": None}, {"timeout": 0}])
async def test_invalid_waits(make_client, options):
    """Times that are none are refused."""
    with pytest.raises(InvalidParameterError):
        await make_client(FakeTransport(REPLY)).wait(1, **options)


# --------------------------------------------------------------------------------------------------------------- logs


async def test_log(make_client, caplog):
    """Attempts and retries are logged, without key, prompt or generated text."""
    caplog.set_level(logging.DEBUG)
    await make_client(FakeTransport(REFUSED, REPLY)).generate("gpt-5", "my secret prompt")

    assert "POST /generate: again in" in caplog.text
    assert "POST /generate: 200" in caplog.text
    for secret in (KEY, "my secret prompt", "Hello"):
        assert secret not in caplog.text


@pytest.mark.parametrize("value, level", [("debug", 10), ("INFO", 20), ("nonsense", 0), ("", 0)])
async def test_log_to_stderr(monkeypatch, value, level):
    """NEURALBOX_LOG makes the logger write to stderr, once, and leaves it alone otherwise."""
    logger = logging.getLogger("neuralbox")
    monkeypatch.setattr(logger, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(logger, "level", 0)
    monkeypatch.setenv("NEURALBOX_LOG", value)
    AsyncNeuralBox(KEY)
    AsyncNeuralBox(KEY)

    assert (level, 2 if level else 1) == (logger.level, len(logger.handlers))


async def test_errors_are_ours(make_client):
    """Whatever the transport raises of ours comes out as it is, described."""
    error = ProviderError("500", status=500, code="provider_error")
    with pytest.raises(NeuralBoxError) as caught:
        await make_client(FakeTransport(error)).generate("gpt-5", "Hi")
    assert (ProviderError, str(error), 3) == (type(caught.value), str(caught.value), caught.value.attempts)


@pytest.mark.parametrize("status", [200, 401, 502])
async def test_an_echoed_key_is_not_shown(make_client, status):
    """A server or gateway that echoes the key does not bring it into the error, in whatever place."""
    body = json.dumps({"error": {"message": f"Incorrect API key: {KEY}"}, "details": {"a": [KEY]}}).encode()
    response = FakeResponse(body, status=status, headers={"x-echo": f"Bearer {KEY}"})
    with pytest.raises(NeuralBoxError) as caught:
        await make_client(FakeTransport(response)).generate("gpt-5", "Hi")

    assert "Incorrect API key: ***" in str(caught.value)
    assert KEY not in repr(vars(caught.value)) + repr(caught.value)


@pytest.mark.parametrize("status", [409, 422])
async def test_a_key_refused_as_repeated(make_client, status):
    """When a repetition is refused for its key, the first failure is what the caller needs to know."""
    transport = FakeTransport(LOST, FakeResponse(b'{"error": "key_reused"}', status=status))
    client = make_client(transport, retry_policy=RetryPolicy(retry_unknown=True, uniform=lambda low, _high: low))
    with pytest.raises(APIConnectionError, match="reset") as caught:
        await client.generate("gpt-5", "Hi")
    assert "unknown" == caught.value.billed
    assert isinstance(caught.value.__cause__, APIStatusError)
    assert 2 == caught.value.attempts == len(transport.requests)


async def test_wait_notices_what_finishes_at_the_end(make_client):
    """A generation that is finished during the last pause is noticed: the last question has time for its answer."""
    transport = FakeTransport(REPLY)
    with anyio.fail_after(5):
        reply = await make_client(transport).wait(Generation(id=1, status="pending"), timeout=0.2, poll_interval=5.0)
    assert "Hello" == reply.content


@pytest.mark.parametrize("remaining, pause", [(None, 4.0), (100, 4.0), (50, 4.0), (12, 8.0), (0, 16.0)])
async def test_polling_slows_down_with_the_headroom(make_client, monkeypatch, remaining, pause):
    """The less of the hour's requests is left, the slower the questions."""
    headers = (
        {} if remaining is None else {"x-ratelimit-limit-hour": "96", "x-ratelimit-remaining-hour": str(remaining)}
    )
    transport = FakeTransport(FakeResponse(json.dumps(PENDING).encode(), headers=headers), REPLY)
    client = make_client(transport)
    pauses = []

    async def sleep(_self, seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("neuralbox_async._calls.Caller._sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
    await client.wait("gen_1", poll_interval=4.0)

    assert [pytest.approx(pause)] == pauses


@pytest.mark.parametrize(
    "setting", [{"max_retries": "5"}, {"max_retries": -1}, {"backoff": -1}, {"max_backoff": "1"}, {"retry_unknown": 1}]
)
async def test_invalid_policies(setting):
    """A policy is checked when it is made, not when the first failure needs it."""
    with pytest.raises(InvalidParameterError, match=next(iter(setting))):
        RetryPolicy(**setting)


async def test_a_pending_generation_that_cannot_be_asked_for(make_client):
    """A pending answer without an id, or with one that no URL can carry, is an error of ours that may be billed."""
    for identifier, kind in [(None, ResponseError), ("\ud800", InvalidParameterError)]:
        client = make_client(FakeTransport({"id": identifier, "status": "pending"}))
        with pytest.raises(kind) as caught:
            await client.generate("gpt-5", "Hi", wait=True)
        assert "unknown" == caught.value.billed


async def test_wait_obeys_retry_after(make_client, monkeypatch):
    """A server that asks to wait longer than the interval is not asked before."""
    pauses = []

    async def sleep(_self, seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("neuralbox_async._calls.Caller._sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
    transport = FakeTransport(RateLimitError("429", status=429, retry_after=90.0), REPLY)
    await make_client(transport, max_retries=0).wait("gen_1", poll_interval=1.0, timeout=None)

    assert [pytest.approx(90.0)] == pauses


def done() -> FakeResponse:
    return FakeResponse(b"data: [DONE]\n\n", headers={"content-type": "text/event-stream"})


async def test_second_streaming_entry(make_client):
    """Where the first documented entry of streams is not found, the second is used, and remembered."""
    transport = FakeTransport(FakeResponse(b"", status=404), done(), done())
    client = make_client(transport, base_url="https://x.example.com")
    history = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    for _ in range(2):
        async with client.stream("gpt-5", history, system="Be brief.", temperature=0) as stream:
            await stream.until_done()

    first, second, third = transport.requests
    assert ["/generate", "/generate/stream", "/generate/stream"] == [
        request.url.removeprefix("https://x.example.com") for request in (first, second, third)
    ]
    assert second.json == third.json
    assert {
        "model": "gpt-5",
        "prompt": "Bye",
        "params": {"messages": history[:2], "system_prompt": "Be brief.", "temperature": 0},
    } == second.json


async def test_no_streaming_entry(make_client):
    """When neither entry is found, or the request has no form for the second, the first 404 is raised."""
    pictures = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]
    for messages, asked in [("Hi", 2), (pictures, 1)]:
        transport = FakeTransport(FakeResponse(b"first", status=404), FakeResponse(b"second", status=404))
        with pytest.raises(NotFoundError, match="first"):
            await make_client(transport).stream("gpt-5", messages).__aenter__()
        assert asked == len(transport.requests)
