"""Secrets in options: invalid ones, headers, the `repr` of a client, ids and pickles."""

import asyncio
import pickle
import traceback

import pytest
from fault_server import FaultServer, respond_once, respond_to_each, response
from secret_checks import CANARY, COMPLETE, assert_no_secret, chain, failure_of, new_client

from neuralbox_async import AsyncNeuralBox, GenerationFailedError, InvalidParameterError

pytestmark = pytest.mark.usefixtures("no_secret_in_logs")


@pytest.mark.parametrize("streamed", [False, True], ids=["generate", "stream"])
@pytest.mark.parametrize(
    "refusal",
    [
        response({"error": "not_authenticated", "message": f"Incorrect API key provided: {CANARY}."}, status="401 No"),
        response({"error": {"message": f"Bearer {CANARY} is unknown"}}, status="403 No"),
        response({"detail": [{"loc": ["header", "authorization"], "msg": f"bad: {CANARY}"}]}, status="422 No"),
        response(f"<html>{CANARY}".encode(), status="502 Bad"),
        response({"error": "not_authenticated"}, f"X-Debug: Bearer {CANARY}", status="401 No"),
        response(f"<html>{CANARY}".encode()),
    ],
    ids=["message", "nested message", "detail", "text", "header", "not JSON"],
)
async def test_echo(serve, refusal, streamed):
    """An error does not show the key, even if the server or a gateway echoes it."""
    server = serve(respond_once(refusal))

    error = await failure_of(new_client(server.url), streamed=streamed)

    for each in chain(error):
        assert CANARY not in f"{each} {each!r} {each.args}"
    assert CANARY not in "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def invalid_clients():
    """Return functions that make a client with an invalid secret, or with a secret beside an invalid option."""
    url = "https://api.example"
    return {
        "key with a line break": lambda: AsyncNeuralBox(f"{CANARY}\n", base_url=url),
        "key that is not ASCII": lambda: AsyncNeuralBox(f"{CANARY}\u20ac", base_url=url),
        "key of bytes": lambda: AsyncNeuralBox(CANARY.encode(), base_url=url),
        "key in a list": lambda: AsyncNeuralBox([CANARY], base_url=url),
        "derived client": lambda: AsyncNeuralBox("k", base_url=url).with_options(api_key=f"{CANARY}\r\nX: 1"),
        "proxy of another scheme": lambda: AsyncNeuralBox("k", base_url=url, proxy=f"socks5://user:{CANARY}@localhost"),
        "proxy without a host": lambda: AsyncNeuralBox("k", base_url=url, proxy=f"http://user:{CANARY}@"),
        "proxy with a bad port": lambda: AsyncNeuralBox("k", base_url=url, proxy=f"http://user:{CANARY}@localhost:x"),
        "base URL with a password": lambda: AsyncNeuralBox("k", base_url=f"https://user:{CANARY}@localhost"),
        "base URL with a user": lambda: AsyncNeuralBox("k", base_url=f"https://{CANARY}@localhost"),
        "base URL with a query": lambda: AsyncNeuralBox("k", base_url=f"https://localhost?key={CANARY}"),
        "header with a line break": lambda: AsyncNeuralBox("k", base_url=url, default_headers={"X-Key": f"{CANARY}\n"}),
        "reserved header": lambda: AsyncNeuralBox("k", base_url=url, default_headers={"Authorization": CANARY}),
        "another option, with a key": lambda: AsyncNeuralBox(CANARY, base_url=url, timeout=-1),
        "another option, with a proxy": lambda: AsyncNeuralBox(
            "k", base_url="ftp://x", proxy=f"http://user:{CANARY}@localhost"
        ),
    }


@pytest.mark.parametrize("make", invalid_clients().values(), ids=invalid_clients())
def test_invalid_option(make):
    """The error of an invalid option has no secret."""
    with pytest.raises(InvalidParameterError) as caught:
        make()
    assert_no_secret(caught.value)


def test_invalid_environment(monkeypatch):
    """The error of an invalid key in the environment does not have the key."""
    monkeypatch.setenv("NEURALBOX_API_KEY", f"{CANARY}\n")
    with pytest.raises(InvalidParameterError) as caught:
        AsyncNeuralBox(base_url="https://api.example")
    assert_no_secret(caught.value)


@pytest.mark.parametrize("form", ["socks5://user:{}@a", "user:{}@", "http://user:{}@a:port"])
def test_invalid_proxy_of_the_environment(monkeypatch, form):
    """The error of an invalid proxy in the environment does not have its password."""
    monkeypatch.setenv("https_proxy", form.format(CANARY))
    with pytest.raises(InvalidParameterError) as caught:
        AsyncNeuralBox("k", base_url="https://api.example")
    assert_no_secret(caught.value)


@pytest.mark.parametrize(
    "make", [lambda key: lambda: key, lambda key: lambda: asyncio.sleep(0, key)], ids=["plain", "async"]
)
@pytest.mark.parametrize("invalid", ["line break", "bytes"])
async def test_invalid_key_of_a_function(make, invalid):
    """The error of an invalid key that a function returns does not have the key."""
    function = make(f"{CANARY}\n" if invalid == "line break" else CANARY.encode())
    async with AsyncNeuralBox(function, base_url="https://api.example") as client:
        with pytest.raises(InvalidParameterError) as caught:
            await client.generate("gpt-5", "Hi")
    assert_no_secret(caught.value)


async def test_line_break_in_a_header(serve):
    """A header with a line break is rejected before anything is sent."""
    server = serve(respond_to_each(COMPLETE))
    async with new_client(server.url) as client:
        for value in ("a\r\nX-More: 1", "a\nb", "a\0b", "a\rb", "\u20ac"):
            for options in ({"extra_headers": {"X-One": value}}, {"idempotency_key": value}):
                with pytest.raises(InvalidParameterError):
                    await client.generate("gpt-5", "Hi", **options)
        for name in ("X One", "X:One", "", "X\r\nOne", "authorization", "Host"):
            with pytest.raises(InvalidParameterError):
                await client.generate("gpt-5", "Hi", extra_headers={name: "1"})
        with pytest.raises(InvalidParameterError):
            await client.retrieve("gen_1", extra_headers={"X-One": "a\nb"})
    assert not server.connections


async def test_repr():
    """No `repr` of a client, or of a value that it holds, has the key."""
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


async def test_unusual_ids(serve):
    """An id is one segment of the path, whatever characters it has."""
    server = serve(respond_to_each(COMPLETE))
    async with new_client(server.url) as client:
        for generation_id in ("../../keys", "a/b", "a?b=c", "a#b", "a\r\nX: 1", "\u20ac", "%2e%2e"):
            await client.retrieve(generation_id)
        for invalid in ("..", ".", ""):
            with pytest.raises(InvalidParameterError):
                await client.retrieve(invalid)
    prefix = "/api/v2/generate/status/"
    assert 7 == len(server.requests)
    for request in server.requests:
        assert request.path.startswith(prefix)
        assert not {"/", "?", "#"} & set(request.path.removeprefix(prefix))


def test_error_of_a_failed_generation_pickles():
    """An error with a generation, which has the whole response, can be pickled."""
    with FaultServer(respond_once(response({"id": 1, "status": "failed", "error": "refused", "x": [1]}))) as server:

        async def call():
            async with new_client(server.url) as client:
                await client.generate("gpt-5", "Hi")

        with pytest.raises(GenerationFailedError) as caught:
            asyncio.run(call())
    again = pickle.loads(pickle.dumps(caught.value))
    assert caught.value.generation == again.generation
    assert vars(caught.value) == vars(again)
