"""The key is sent in one header and appears nowhere else: in no text, log record or traceback."""

import asyncio
import socket
import ssl

import pytest
import trustme
from fault_server import (
    STREAM_HEAD,
    event,
    events,
    eventually,
    generation,
    never_responds,
    respond_once,
    respond_to_each,
    response,
)
from secret_checks import CANARY, COMPLETE, PROMPT, assert_no_secret, chain, failure_of, new_client

from neuralbox_async import APIConnectionError, AsyncNeuralBox, StreamInterruptedError
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_secret_in_logs")


STALLED = {"timeout": 0.8, "first_event_timeout": 0.8, "stall_timeout": 0.8}


async def resets(connection):
    """Read the request and reset."""
    await connection.request()
    connection.reset()


FAILURES = {
    "silence": never_responds,
    "reset": resets,
    "closed": respond_once(),
    "garbage": respond_once(b"garbage\r\n\r\n"),
    "bad header": respond_once(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
    "cut": respond_once(COMPLETE[:-10]),
    "stalled": respond_once(COMPLETE[:-10], then="stall"),
    "not JSON": respond_once(response(b"<html>")),
    "wrong type": respond_once(response(generation(content=5))),
    "failed": respond_once(response({"id": 1, "status": "failed", "error": "refused"})),
    "unknown encoding": respond_once(response(b"x", "Content-Encoding: zstd")),
    "401": respond_once(response({"error": "not_authenticated", "message": "no"}, status="401 No")),
    "429": respond_to_each(response({"error": "rate_limit_exceeded", "retry_after": 900}, status="429 No")),
    "500": respond_to_each(response({"error": "provider_error"}, status="500 No")),
    "302": respond_once(response(b"", "Location: http://127.0.0.1:9/x", status="302 Found")),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["generate", "stream"])
@pytest.mark.parametrize("name", FAILURES)
async def test_failure(serve, name, streamed):
    """No error has the key or the prompt."""
    asyncio.get_running_loop().set_debug(True)
    server = serve(FAILURES[name])
    timeouts = STALLED if name in {"silence", "stalled"} else {}

    error = await failure_of(new_client(server.url, **timeouts), streamed=streamed)

    await eventually(lambda: server.requests)  # the server may be slower than the timeouts
    assert f"Bearer {CANARY}" == server.requests[0].headers["authorization"]
    assert_no_secret(error)
    for each in chain(error):
        assert PROMPT not in f"{each} {each!r} {each.args} {vars(each)}"


BROKEN = {
    "closed": respond_once(STREAM_HEAD + events("Hello ", "world", end=False)),
    "stalled": respond_once(STREAM_HEAD + events("Hello ", "world", end=False), then="stall"),
    "garbage": respond_once(STREAM_HEAD + events("Hello ", "world", end=False) + b"data: {\n\n"),
    "error event": respond_once(STREAM_HEAD + events("Hello ", "world", end=False) + event(type="error", message="no")),
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
async def test_broken_stream(serve, script):
    """The error of a broken stream does not have the key."""
    server = serve(script)

    error = await failure_of(new_client(server.url, stall_timeout=0.4), streamed=True)

    assert "Hello world" == error.text
    assert_no_secret(error)


CUT = [
    events("Hello ", end=False),
    b'data: {"type": "debug", "headers": {"Authorization": "Bearer %b"}' % CANARY.encode(),
    APIConnectionError("reset", request_sent=True),
]


@pytest.mark.parametrize(
    "status_response, error_type",
    [
        (FakeResponse(...), asyncio.CancelledError),
        ({"id": "gen_1", "status": "failed", "model": "gpt-5"}, StreamInterruptedError),
        (FakeResponse(b"{}", status_code=404), StreamInterruptedError),
        (ZeroDivisionError("a bug"), ZeroDivisionError),
    ],
    ids=["cancelled", "failed", "not found", "a bug"],
)
async def test_recovery(status_response, error_type):
    """The error that ends the recovery of a stream does not have the key, although the stream echoed it."""
    cut = FakeResponse(*CUT, headers={"content-type": "text/event-stream"})
    client = AsyncNeuralBox(CANARY, transport=FakeTransport(cut, status_response), max_retries=0)

    async def read():
        async with client.stream("gpt-5", "Hi") as stream:
            async for _event in stream:
                pass

    reading = asyncio.create_task(read())
    await asyncio.wait([reading], timeout=0.2)
    reading.cancel()
    with pytest.raises(error_type) as caught:
        await reading

    assert_no_secret(caught.value)
    await client.aclose()


async def test_no_connection():
    """The error of a refused connection does not have the key."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        error = await failure_of(new_client(f"http://127.0.0.1:{placeholder.getsockname()[1]}"))
    assert_no_secret(error)


async def test_untrusted_certificate(serve):
    """The error of an untrusted certificate does not have the key."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = serve(never_responds, tls=context)

    assert_no_secret(await failure_of(new_client(server.url)))


@pytest.mark.parametrize(
    "first", [b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nhello", b"?\r\n\r\n", b""]
)
async def test_proxy(serve, first):
    """The error of a proxy has neither the key nor the password."""

    async def script(connection):
        await connection.head()
        await connection.send(first)
        connection.finish()

    server = serve(script)
    for streamed in (False, True):
        client = new_client(
            "https://api.example", proxy=f"http://user:{CANARY}@127.0.0.1:{server.port}", timeout=2, connect_timeout=1
        )
        assert CANARY not in repr(client)
        error = await failure_of(client, streamed=streamed)
        assert_no_secret(error)
        assert_no_secret(error, secret="dXNlcjpuYl9jYW5hcnlfN2YzYTlj")  # the credentials as Basic encodes them


async def test_upload(serve):
    """The error of an upload that broke off has neither the key nor the prompt."""

    async def script(connection):
        await connection.head()
        connection.reset()

    server = serve(script)
    assert_no_secret(await failure_of(new_client(server.url), text=PROMPT + "x" * 4_000_000))


async def test_client_closed(serve):
    """The error of a closed client does not have the key."""
    server = serve(never_responds)
    client = new_client(server.url)
    asyncio.get_running_loop().call_later(0.1, lambda: closing.append(asyncio.create_task(client.aclose())))
    closing = []

    assert_no_secret(await failure_of(client))


@pytest.mark.parametrize(
    "make", [lambda key: lambda: key, lambda key: lambda: asyncio.sleep(0, key)], ids=["plain", "async"]
)
async def test_key_from_a_function(serve, make):
    """An error does not have a key that a function returned."""
    server = serve(respond_once())
    client = new_client(server.url).with_options(api_key=make(CANARY))

    assert_no_secret(await failure_of(client))
    assert f"Bearer {CANARY}" == server.requests[0].headers["authorization"]
