"""Other event loops in the process, contexts that reach the call, tracebacks that come back."""

import asyncio
import contextvars
import socket
import threading
import traceback

import pytest

from neuralbox_sync import APIConnectionError, AuthenticationError, NeuralBox


@pytest.fixture
def client(neuralbox_server):
    with NeuralBox(**neuralbox_server.client_options) as client:
        yield client


@pytest.mark.neuralbox_server(pending_models=["slow"], pending_seconds=60)
def test_uvloop_policy(start):
    """With uvloop's policy set, calls in and beside a loop, streams, forks and Ctrl-C work as without it."""
    pytest.importorskip("uvloop", reason="uvloop is there for CPython on Unix")
    script = start(
        """
import asyncio, os, signal, threading, uvloop
from neuralbox_sync import NeuralBox

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
client = NeuralBox()

def say(text):
    return client.generate("gpt-5", text).content

async def main():
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
    print(say("inside a loop"))
    print(await asyncio.to_thread(say, "beside a loop"))

print(say("Hi"))
with client.stream("gpt-5", "one two") as stream:
    print("".join(stream.text_stream))
asyncio.run(main())
pid = os.fork()
if not pid:
    assert say("child") == "You said: child"
    os._exit(0)
print(os.waitpid(pid, 0)[1])
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    client.generate("slow", "?", wait=True)
except KeyboardInterrupt:
    print(say("after an interrupt"))
""",
        *("-W", "ignore::DeprecationWarning"),
    )
    ended = script.end()

    said = ["Hi", "one two", "inside a loop", "beside a loop", None, "after an interrupt"]
    assert ["0" if text is None else f"You said: {text}" for text in said] == ended.lines
    assert (0, "") == (ended.status, ended.errors)


async def test_in_a_callback(client):
    """A callback of a running loop may make calls, which hold that loop up."""
    replies = asyncio.get_running_loop().create_future()

    def call():
        replies.set_result(client.generate("gpt-5", "Hi").content)

    asyncio.get_running_loop().call_soon(call)

    assert "You said: Hi" == await replies


@pytest.mark.parametrize("kind", ["call", "stream"])
def test_context(neuralbox_server, kind):
    """What a call runs of the user's (here what gives it the key) sees the context of the thread that calls."""
    tenant = contextvars.ContextVar("tenant", default="nobody")
    seen = []

    def key():
        seen.append(tenant.get())
        return neuralbox_server.api_key

    def call(name):
        tenant.set(name)
        if kind == "call":
            client.generate("gpt-5", "Hi")
        else:
            with client.stream("gpt-5", "Hi") as stream:
                list(stream)

    with NeuralBox(key, base_url=neuralbox_server.base_url) as client:
        for name in ("red", "blue"):
            thread = threading.Thread(target=contextvars.copy_context().run, args=(call, name))
            thread.start()
            thread.join()
        call("green")

    assert ["red", "blue", "green"] == seen


def frames_of(error, package):
    """Return the functions of *package* in the traceback of *error*."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__) if package in frame.filename]


def test_traceback(neuralbox_server):
    """The traceback of an error leads from the caller's line to its cause, by at most three frames of the facade."""
    with NeuralBox("nb_wrong", base_url=neuralbox_server.base_url) as client:
        with pytest.raises(AuthenticationError) as refused:
            client.generate("gpt-5", "Hi")
        with pytest.raises(AuthenticationError) as not_opened, client.stream("gpt-5", "Hi"):
            pass
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # nobody else gets the port, and nobody listens
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with (
            NeuralBox("nb_test", base_url=url, max_retries=0) as client,
            pytest.raises(APIConnectionError) as unreachable,
        ):
            client.generate("gpt-5", "Hi")

    for caught in (refused, not_opened, unreachable):
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert __file__ == frames[0].filename
        assert 1 <= len(frames_of(caught.value, "neuralbox_sync")) <= 3
        assert frames_of(caught.value, "neuralbox_async")
        assert not frames_of(caught.value, "anyio")
    assert isinstance(unreachable.value.__cause__, OSError)
