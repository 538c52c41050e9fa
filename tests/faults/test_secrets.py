"""The key leaves this process in one header of a request and in no other way: no text, record or traceback has it."""

import asyncio
import socket
import ssl

import pytest
import trustme
from discretion import CANARY, PROMPT, WHOLE, assert_discreet, chain, failure_of, new_client
from fault_server import STREAM_HEAD, answer, event, events, generation, reads_and_stalls, replies, serves

from neuralbox_async import APIConnectionError, AsyncNeuralBox, StreamInterruptedError
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("discreet_records")


STALLED = {"timeout": 0.4, "first_event_timeout": 0.4, "stall_timeout": 0.4}


async def resets(connection):
    """Read the request, and reset."""
    await connection.request()
    connection.reset()


FAILURES = {
    "silence": reads_and_stalls,
    "reset": resets,
    "closed": replies(),
    "garbage": replies(b"garbage\r\n\r\n"),
    "bad header": replies(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
    "cut": replies(WHOLE[:-10]),
    "stalled": replies(WHOLE[:-10], then="stall"),
    "not JSON": replies(answer(b"<html>")),
    "wrong type": replies(answer(generation(content=5))),
    "failed": replies(answer({"id": 1, "status": "failed", "error": "refused"})),
    "unknown encoding": replies(answer(b"x", "Content-Encoding: zstd")),
    "401": replies(answer({"error": "not_authenticated", "message": "no"}, status="401 No")),
    "429": serves(answer({"error": "rate_limit_exceeded", "retry_after": 900}, status="429 No")),
    "500": serves(answer({"error": "provider_error"}, status="500 No")),
    "302": replies(answer(b"", "Location: http://127.0.0.1:9/x", status="302 Found")),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["generate", "stream"])
@pytest.mark.parametrize("name", FAILURES)
async def test_failure(serve, name, streamed):
    """Whatever goes wrong, the error has neither the key nor the prompt."""
    asyncio.get_running_loop().set_debug(True)
    server = serve(FAILURES[name])
    clocks = STALLED if name in {"silence", "stalled"} else {}

    error = await failure_of(new_client(server.url, **clocks), streamed=streamed)

    assert f"Bearer {CANARY}" == server.requests[0].headers["authorization"]
    assert_discreet(error)
    for each in chain(error):
        assert PROMPT not in f"{each} {each!r} {each.args} {vars(each)}"


BROKEN = {
    "closed": replies(STREAM_HEAD + events("Hello ", "world", end=False)),
    "stalled": replies(STREAM_HEAD + events("Hello ", "world", end=False), then="stall"),
    "garbage": replies(STREAM_HEAD + events("Hello ", "world", end=False) + b"data: {\n\n"),
    "error event": replies(STREAM_HEAD + events("Hello ", "world", end=False) + event(type="error", message="no")),
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
async def test_broken_stream(serve, script):
    """Nor has that of a stream which broke."""
    server = serve(script)

    error = await failure_of(new_client(server.url, stall_timeout=0.4), streamed=True)

    assert "Hello world" == error.text
    assert_discreet(error)


CUT = [
    events("Hello ", end=False),
    b'data: {"type": "debug", "headers": {"Authorization": "Bearer %b"}' % CANARY.encode(),
    APIConnectionError("reset", request_sent=True),
]


@pytest.mark.parametrize(
    "answer, raised",
    [
        (FakeResponse(...), asyncio.CancelledError),
        ({"id": "gen_1", "status": "failed", "model": "gpt-5"}, StreamInterruptedError),
        (FakeResponse(b"{}", status_code=404), StreamInterruptedError),
        (ZeroDivisionError("a bug"), ZeroDivisionError),
    ],
    ids=["cancelled", "failed", "not found", "a bug"],
)
async def test_recovery(answer, raised):
    """Nor has what ends the recovery of a stream that echoed the key before it was cut."""
    cut = FakeResponse(*CUT, headers={"content-type": "text/event-stream"})
    client = AsyncNeuralBox(CANARY, transport=FakeTransport(cut, answer), max_retries=0)

    async def read():
        async with client.stream("gpt-5", "Hi") as stream:
            async for _event in stream:
                pass

    reading = asyncio.create_task(read())
    await asyncio.wait([reading], timeout=0.2)
    reading.cancel()
    with pytest.raises(raised) as caught:
        await reading

    assert_discreet(caught.value)
    await client.aclose()


async def test_no_connection():
    """Nor has that of a connection which did not come about."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        error = await failure_of(new_client(f"http://127.0.0.1:{placeholder.getsockname()[1]}"))
    assert_discreet(error)


async def test_untrusted_certificate(serve):
    """Nor has that of a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = serve(reads_and_stalls, tls=context)

    assert_discreet(await failure_of(new_client(server.url)))


@pytest.mark.parametrize(
    "first", [b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nhello", b"?\r\n\r\n", b""]
)
async def test_proxy(serve, first):
    """Nor has that of a proxy; its password is as secret."""

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
        assert_discreet(error)
        assert_discreet(error, secret="dXNlcjpuYl9jYW5hcnlfN2YzYTlj")  # what Basic makes of them


async def test_upload(serve):
    """Nor has that of an upload which broke off."""

    async def script(connection):
        await connection.head()
        connection.reset()

    server = serve(script)
    assert_discreet(await failure_of(new_client(server.url), text=PROMPT + "x" * 4_000_000))


async def test_client_closed(serve):
    """Nor has that of a client which was closed."""
    server = serve(reads_and_stalls)
    client = new_client(server.url)
    asyncio.get_running_loop().call_later(0.1, lambda: closing.append(asyncio.create_task(client.aclose())))
    closing = []

    assert_discreet(await failure_of(client))


@pytest.mark.parametrize(
    "make", [lambda key: lambda: key, lambda key: lambda: asyncio.sleep(0, key)], ids=["plain", "async"]
)
async def test_key_from_a_function(serve, make):
    """A key that a function gives is as secret as one that was given."""
    server = serve(replies())
    client = new_client(server.url).with_options(api_key=make(CANARY))

    assert_discreet(await failure_of(client))
    assert f"Bearer {CANARY}" == server.requests[0].headers["authorization"]
