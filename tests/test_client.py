"""`AsyncNeuralBox`: options, the environment, derived clients, closing and logging."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest

from neuralbox_async import APIConnectionError, AsyncNeuralBox, ClientClosedError, InvalidParameterError, RetryPolicy
from neuralbox_async.testing import FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

KEY = "nb_canary_key_that_must_not_be_seen_7f3a"
REPLY = {"id": "gen_1", "status": "completed", "content": "Hello"}

REFUSED = APIConnectionError("refused")


# ------------------------------------------------------------------------------------------------------------ options

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
    ("base_url", {"base_url": "https://api..example"}),
    ("base_url", {"base_url": "https://.example"}),
    ("base_url", {"base_url": f"https://{'a' * 64}.example"}),
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
    ("proxy", {"proxy": "http://a..b:3128"}),
    ("proxy", {"proxy": "http://user:pw@.b:3128"}),
    ("proxy", {"proxy": f"http://{'a' * 64}:3128"}),
    ("proxy", {"proxy": "http://a b:3128"}),
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
    """The error of an invalid option names the option, and shows no secret."""
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
    """Valid options are accepted; a key may have any length and prefix."""
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
    """An invalid parameter is rejected before anything is sent; `stream` rejects it when it is called."""
    transport = FakeTransport(REPLY)
    client = make_client(transport)
    with pytest.raises(InvalidParameterError) as caught:
        await client.generate("gpt-5", "Hi", **options)
    with pytest.raises(InvalidParameterError):
        client.stream("gpt-5", "Hi", **options)

    assert parameter == caught.value.parameter
    assert [] == transport.requests


async def test_environment(monkeypatch):
    """A client without a key or a base URL takes them from the environment when it is made."""
    monkeypatch.setenv("NEURALBOX_API_KEY", KEY)
    monkeypatch.setenv("NEURALBOX_BASE_URL", "https://env.example.com/")
    transport = FakeTransport(REPLY)
    await AsyncNeuralBox(transport=transport).generate("gpt-5", "Hi")

    assert "https://env.example.com/generate" == transport.requests[0].url
    assert f"Bearer {KEY}" == str(transport.requests[0].headers["Authorization"])

    monkeypatch.delenv("NEURALBOX_API_KEY")
    with pytest.raises(InvalidParameterError, match="NEURALBOX_API_KEY"):
        AsyncNeuralBox()


@pytest.mark.parametrize("is_async", [False, True])
async def test_rotating_keys(make_client, is_async):
    """A key function, plain or async, is called before each attempt."""
    keys = iter(["one", "two"])

    async def next_key() -> str:
        return next(keys)

    transport = FakeTransport(REFUSED, REPLY)
    client = make_client(transport).with_options(api_key=next_key if is_async else lambda: next(keys))
    await client.generate("gpt-5", "Hi")

    assert ["Bearer one", "Bearer two"] == [str(request.headers["Authorization"]) for request in transport.requests]


async def test_key_function_that_returns_an_invalid_key(make_client):
    """The result of a key function is validated like a key."""
    transport = FakeTransport(REPLY)
    with pytest.raises(InvalidParameterError, match="api_key"):
        await make_client(transport).with_options(api_key=lambda: "a\nb").generate("gpt-5", "Hi")
    assert [] == transport.requests


async def test_with_options(make_client):
    """A derived client shares the connections and changes its options only."""
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
    with pytest.raises(InvalidParameterError):
        client.with_options(timeout=-1)


async def test_closed(make_client):
    """The methods of a closed client raise an error and send nothing; closing is idempotent."""
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
    """A client cannot be pickled or copied deeply, and its repr has no secret."""
    client = AsyncNeuralBox(KEY, proxy="http://user:hunter2@localhost:1")
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="make one in each process"):
            attempt(client)
    assert "AsyncNeuralBox(base_url='https://neuralbox.top/api/v2')" == repr(client)
    text = repr(vars(client)) + repr(vars(client._executor.shared.transport))
    assert KEY not in text
    assert "hunter2" not in text


# ------------------------------------------------------------------------------------------------------------ logging


async def test_log(make_client, caplog):
    """Attempts and retries are logged, without key, prompt or generated text."""
    caplog.set_level(logging.DEBUG)
    await make_client(FakeTransport(REFUSED, REPLY)).generate("gpt-5", "my secret prompt")

    assert "POST /generate: retry in" in caplog.text
    assert "POST /generate: 200" in caplog.text
    for secret in (KEY, "my secret prompt", "Hello"):
        assert secret not in caplog.text


@pytest.mark.parametrize("value, level", [("debug", 10), ("INFO", 20), ("", 0)])
async def test_log_to_stderr(monkeypatch, value, level):
    """NEURALBOX_LOG adds one handler to the logger."""
    logger = logging.getLogger("neuralbox")
    monkeypatch.setattr(logger, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(logger, "level", 0)
    monkeypatch.setenv("NEURALBOX_LOG", value)
    AsyncNeuralBox(KEY)
    AsyncNeuralBox(KEY)

    assert (level, 2 if level else 1) == (logger.level, len(logger.handlers))


@pytest.mark.parametrize(
    "setting", [{"max_retries": "5"}, {"max_retries": -1}, {"backoff": -1}, {"max_backoff": "1"}, {"retry_unknown": 1}]
)
async def test_invalid_policies(setting):
    """A policy is validated when it is made."""
    with pytest.raises(InvalidParameterError, match=next(iter(setting))):
        RetryPolicy(**setting)
