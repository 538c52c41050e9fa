"""Secrets in options: invalid ones, headers, the client's repr, ids and pickles."""

import asyncio
import pickle
import traceback

import pytest
from discretion import CANARY, WHOLE, assert_discreet, chain, failure_of, new_client
from fault_server import FaultServer, answer, replies, serves

from neuralbox_async import AsyncNeuralBox, GenerationFailedError, InvalidParameterError

pytestmark = pytest.mark.usefixtures("discreet_records")


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
