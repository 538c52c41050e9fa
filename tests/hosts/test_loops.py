"""Other event loops in the process, context variables, tracebacks."""

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
    """Calls in and beside a loop, streams, forks and Ctrl-C work under uvloop's policy."""
    pytest.importorskip("uvloop", reason="uvloop is for CPython on Unix")
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
    result = script.end()

    texts = ["Hi", "one two", "inside a loop", "beside a loop", None, "after an interrupt"]
    assert ["0" if text is None else f"You said: {text}" for text in texts] == result.lines
    assert (0, "") == (result.status, result.errors)


async def test_in_a_callback(client):
    """A callback of a running loop can make calls, which block that loop."""
    future = asyncio.get_running_loop().create_future()

    def call():
        future.set_result(client.generate("gpt-5", "Hi").content)

    asyncio.get_running_loop().call_soon(call)

    assert "You said: Hi" == await future


@pytest.mark.parametrize("kind", ["call", "stream"])
def test_context(neuralbox_server, kind):
    """A function of the user (here the one that returns the key) sees the context variables of the caller."""
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
    """The traceback of an error starts at the caller's line and has at most four frames of the facade."""
    with NeuralBox("nb_wrong", base_url=neuralbox_server.base_url) as client:
        with pytest.raises(AuthenticationError) as rejected:
            client.generate("gpt-5", "Hi")
        with pytest.raises(AuthenticationError) as not_opened, client.stream("gpt-5", "Hi"):
            pass
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))  # it does not listen, and no other process gets the port
        url = f"http://127.0.0.1:{placeholder.getsockname()[1]}"
        with (
            NeuralBox("nb_test", base_url=url, max_retries=0) as client,
            pytest.raises(APIConnectionError) as unreachable,
        ):
            client.generate("gpt-5", "Hi")

    for caught in (rejected, not_opened, unreachable):
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert __file__ == frames[0].filename
        assert 1 <= len(frames_of(caught.value, "neuralbox_sync")) <= 4
        assert frames_of(caught.value, "neuralbox_async")
        assert not frames_of(caught.value, "anyio")
    assert isinstance(unreachable.value.__cause__, OSError)
