"""The key leaves this process in one header of a request and in no other way: no text, record or traceback has it."""

import asyncio
import logging
import pickle
import socket
import ssl
import traceback

import pytest
import trustme
from fault_server import (
    STREAM_HEAD,
    FaultServer,
    answer,
    event,
    events,
    generation,
    reads_and_stalls,
    replies,
    serves,
)

from neuralbox_async import (
    APIConnectionError,
    AsyncNeuralBox,
    GenerationFailedError,
    InvalidParameterError,
    NeuralBoxError,
    RetryPolicy,
    StreamInterruptedError,
)
from neuralbox_async.testing import FakeResponse, FakeTransport

AT_ONCE = RetryPolicy(uniform=lambda _low, _high: 0.0)
CANARY = "nb_canary_7f3a9c"
PROMPT = "prompt_canary_51d2"
WHOLE = answer(generation())


def chain(error):
    """Return *error*, its causes and its contexts."""
    found, todo = [], [error]
    while todo:
        each = todo.pop()
        if each is not None and not any(each is other for other in found):
            found.append(each)
            todo += [each.__cause__, each.__context__]
    return found


def everything_of(error):
    """Return all texts that loggers, error trackers and queues make of *error*."""
    texts = []
    for each in chain(error):
        texts.append("".join(traceback.TracebackException.from_exception(each, capture_locals=True).format()))
        texts += [str(each), repr(each), repr(each.args), repr(vars(each)), *getattr(each, "__notes__", [])]
        texts += [repr(value) for value in vars(each).values()]
    return texts


def assert_discreet(error, *, secret=CANARY):
    """Nothing of *error* tells the secret."""
    telling = [text for text in everything_of(error) if secret in text]
    assert not telling, telling[0]
    if isinstance(error, NeuralBoxError):
        pickled = pickle.dumps(error)
        assert secret.encode() not in pickled
        assert str(error) == str(pickle.loads(pickled))


@pytest.fixture(autouse=True)
def discreet_records(caplog, capfd, monkeypatch):
    """No logger, at any level, is told the key, a prompt, or a text; nor is the terminal."""
    monkeypatch.setenv("NEURALBOX_LOG", "debug")
    ours = logging.getLogger("neuralbox")
    monkeypatch.setattr(ours, "handlers", list(ours.handlers))  # what NEURALBOX_LOG adds goes with the test
    monkeypatch.setattr(ours, "level", logging.NOTSET)
    asyncio_logger = logging.getLogger("asyncio")
    monkeypatch.setattr(asyncio_logger, "level", logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    yield
    written = capfd.readouterr()
    for text in (*(f"{record.getMessage()} {vars(record)!r}" for record in caplog.records), written.out, written.err):
        assert CANARY not in text
        assert PROMPT not in text
        assert "Hello world" not in text


def new_client(url, **options):
    """Return a client with the canary for a key."""
    told = {"base_url": url, "retry_policy": AT_ONCE, "timeout": 5, **options}
    return AsyncNeuralBox(CANARY, **told)


STALLED = {"timeout": 0.4, "first_event_timeout": 0.4, "stall_timeout": 0.4}


async def failure_of(client, *, streamed=False, text=PROMPT):
    """Return the error of a call that fails."""
    async with client:
        try:
            if streamed:
                async with client.stream("gpt-5", text, recover=False) as stream:
                    await stream.until_done()
            else:
                await client.generate("gpt-5", text)
        except NeuralBoxError as error:
            return error
    raise AssertionError


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
        (FakeResponse(b"{}", status=404), StreamInterruptedError),
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


# A key of the server's that comes back to us.


@pytest.mark.parametrize("streamed", [False, True], ids=["generate", "stream"])
@pytest.mark.parametrize(
    "refusal",
    [
        answer({"error": "not_authenticated", "message": f"Incorrect API key provided: {CANARY}."}, status="401 No"),
        answer({"error": {"message": f"Bearer {CANARY} is unknown"}}, status="403 No"),
        answer({"detail": [{"loc": ["header", "authorization"], "msg": f"bad: {CANARY}"}]}, status="422 No"),
        answer(f"<html>{CANARY}".encode(), status="502 Bad"),
        answer({"error": "not_authenticated"}, f"X-Debug: Bearer {CANARY}", status="401 No"),
        answer(f"<html>{CANARY}".encode()),
    ],
    ids=["message", "nested message", "detail", "text", "header", "not JSON"],
)
async def test_echo(serve, refusal, streamed):
    """A server, or a gateway before it, that repeats the key does not bring it into what errors show."""
    server = serve(replies(refusal))

    error = await failure_of(new_client(server.url), streamed=streamed)

    for each in chain(error):
        assert CANARY not in f"{each} {each!r} {each.args}"
    assert CANARY not in "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


# Mistakes in what a client is told.


def secret_mistakes():
    """Return functions that make a client with a secret that cannot be used."""
    url = "https://api.example"
    return {
        "key with a line break": lambda: AsyncNeuralBox(f"{CANARY}\n", base_url=url),
        "key with an odd sign": lambda: AsyncNeuralBox(f"{CANARY}\u20ac", base_url=url),
        "key of bytes": lambda: AsyncNeuralBox(CANARY.encode(), base_url=url),
        "key in a list": lambda: AsyncNeuralBox([CANARY], base_url=url),
        "derived client": lambda: AsyncNeuralBox("k", base_url=url).with_options(api_key=f"{CANARY}\r\nX: 1"),
        "proxy of another kind": lambda: AsyncNeuralBox("k", base_url=url, proxy=f"socks5://user:{CANARY}@localhost"),
        "proxy without a host": lambda: AsyncNeuralBox("k", base_url=url, proxy=f"http://user:{CANARY}@"),
        "proxy with a bad port": lambda: AsyncNeuralBox("k", base_url=url, proxy=f"http://user:{CANARY}@localhost:x"),
        "base URL with a password": lambda: AsyncNeuralBox("k", base_url=f"https://user:{CANARY}@localhost"),
        "base URL with a user": lambda: AsyncNeuralBox("k", base_url=f"https://{CANARY}@localhost"),
        "base URL with a query": lambda: AsyncNeuralBox("k", base_url=f"https://localhost?key={CANARY}"),
        "header with a line break": lambda: AsyncNeuralBox("k", base_url=url, default_headers={"X-Key": f"{CANARY}\n"}),
        "header of its own": lambda: AsyncNeuralBox("k", base_url=url, default_headers={"Authorization": CANARY}),
        "something else, with a key": lambda: AsyncNeuralBox(CANARY, base_url=url, timeout=-1),
        "something else, with a proxy": lambda: AsyncNeuralBox(
            "k", base_url="ftp://x", proxy=f"http://user:{CANARY}@localhost"
        ),
    }


@pytest.mark.parametrize("make", secret_mistakes().values(), ids=secret_mistakes())
def test_mistake(make):
    """A mistake in a secret, or beside one, is told without it."""
    with pytest.raises(InvalidParameterError) as caught:
        make()
    assert_discreet(caught.value)


def test_mistake_in_the_environment(monkeypatch):
    """So is one in the environment."""
    monkeypatch.setenv("NEURALBOX_API_KEY", f"{CANARY}\n")
    with pytest.raises(InvalidParameterError) as caught:
        AsyncNeuralBox(base_url="https://api.example")
    assert_discreet(caught.value)


@pytest.mark.parametrize(
    "make", [lambda key: lambda: key, lambda key: lambda: asyncio.sleep(0, key)], ids=["plain", "async"]
)
@pytest.mark.parametrize("mistake", ["line break", "bytes"])
async def test_mistake_of_a_function(make, mistake):
    """So is one that a function makes."""
    function = make(f"{CANARY}\n" if mistake == "line break" else CANARY.encode())
    async with AsyncNeuralBox(function, base_url="https://api.example") as client:
        with pytest.raises(InvalidParameterError) as caught:
            await client.generate("gpt-5", "Hi")
    assert_discreet(caught.value)


async def test_line_break_in_a_header_is_refused(serve):
    """What would make two headers of one is refused before anything is sent."""
    server = serve(serves(WHOLE))
    async with new_client(server.url) as client:
        for value in ("a\r\nX-More: 1", "a\nb", "a\0b", "a\rb", "\u20ac"):
            for told in ({"extra_headers": {"X-One": value}}, {"idempotency_key": value}):
                with pytest.raises(InvalidParameterError):
                    await client.generate("gpt-5", "Hi", **told)
        for name in ("X One", "X:One", "", "X\r\nOne", "authorization", "Host"):
            with pytest.raises(InvalidParameterError):
                await client.generate("gpt-5", "Hi", extra_headers={name: "1"})
        with pytest.raises(InvalidParameterError):
            await client.retrieve("gen_1", extra_headers={"X-One": "a\nb"})
    assert not server.connections


async def test_what_a_client_shows():
    """Neither a client nor anything it holds shows the key."""
    client = AsyncNeuralBox(CANARY, proxy=f"http://user:{CANARY}@localhost", default_headers={"X-Key": CANARY})
    todo, seen = [client, client.with_options(timeout=1), client.stream("gpt-5", "Hi")], []
    while todo:
        each = todo.pop()
        if any(each is other for other in seen):
            continue
        seen.append(each)
        assert CANARY not in f"{each!r}"
        assert isinstance(each, str) or CANARY not in f"{each!s}"
        names = [*getattr(each, "__dict__", ()), *getattr(type(each), "__slots__", ())]
        todo += [getattr(each, name, None) for name in names if not name.startswith("__")]
        todo += [cell.cell_contents for cell in getattr(each, "__closure__", None) or ()]
    with pytest.raises(TypeError):
        pickle.dumps(client)
    await client.aclose()


async def test_odd_ids_stay_in_the_path(serve):
    """An id is one segment of the path, whatever is in it."""
    server = serve(serves(WHOLE))
    async with new_client(server.url) as client:
        for odd in ("../../keys", "a/b", "a?b=c", "a#b", "a\r\nX: 1", "\u20ac", "%2e%2e"):
            await client.retrieve(odd)
        for impossible in ("..", ".", ""):
            with pytest.raises(InvalidParameterError):
                await client.retrieve(impossible)
    prefix = "/api/v2/generate/status/"
    assert 7 == len(server.requests)
    for request in server.requests:
        assert request.path.startswith(prefix)
        assert not {"/", "?", "#"} & set(request.path.removeprefix(prefix))


def test_error_of_a_failed_generation_pickles():
    """An error with a generation, which has all of the answer, pickles, too."""
    with FaultServer(replies(answer({"id": 1, "status": "failed", "error": "refused", "x": [1]}))) as server:

        async def call():
            async with new_client(server.url) as client:
                await client.generate("gpt-5", "Hi")

        with pytest.raises(GenerationFailedError) as caught:
            asyncio.run(call())
    again = pickle.loads(pickle.dumps(caught.value))
    assert caught.value.generation == again.generation
    assert vars(caught.value) == vars(again)
