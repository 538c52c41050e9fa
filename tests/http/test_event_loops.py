"""A client serves any number of event loops, in any number of threads, and after a fork."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref

import pytest

from neuralbox_async import AsyncNeuralBox, ClientClosedError, UnsupportedEventLoopError

pytestmark = pytest.mark.usefixtures("no_task_left")


def test_loops_one_after_the_other(server):
    """One client serves several event loops, one after the other."""
    client = AsyncNeuralBox(**server.client_options)

    async def once() -> str:
        return (await client.generate("gpt-5", "Hi")).content

    assert ["You said: Hi"] * 4 == [asyncio.run(once()) for _ in range(4)]
    asyncio.run(client.aclose())


def test_a_loop_that_is_closed_explicitly(server):
    """A loop that ends without `asyncio.run` does not affect the next."""
    client = AsyncNeuralBox(**server.client_options, reuse_connections=False)
    for _ in range(2):
        loop = asyncio.new_event_loop()
        assert "Hi" in loop.run_until_complete(client.generate("gpt-5", "Hi")).content
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_threads(server):
    """One client serves several threads, each with a loop of its own."""
    client = AsyncNeuralBox(**server.client_options)
    replies = []

    async def several(name: str) -> None:
        for reply in await asyncio.gather(*(client.generate("gpt-5", f"{name}-{n}") for n in range(5))):
            replies.append(reply.content)

    threads = [threading.Thread(target=lambda n=n: asyncio.run(several(str(n)))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sorted(f"You said: {name}-{n}" for name in range(8) for n in range(5)) == sorted(replies)
    asyncio.run(client.aclose())


def test_closing_from_another_loop(endless):
    """Closing the client in one loop closes its streams in another loop."""
    client = AsyncNeuralBox(**endless.client_options)
    started = threading.Event()
    errors = []

    async def read() -> None:
        async with client.stream("gpt-5", "Hi") as stream:
            await anext(stream)
            started.set()
            await stream.get_final_generation()

    def run() -> None:
        try:
            asyncio.run(read())
        except ClientClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    asyncio.run(client.aclose())
    thread.join(10)
    assert 1 == len(errors)


@pytest.mark.process
def test_clients_that_are_not_closed(server):
    """Clients that are never closed leave no task, no warning and no output."""
    program = f"""
import asyncio, gc, aiohttp
from neuralbox_async import AsyncNeuralBox
client = AsyncNeuralBox({server.api_key!r}, base_url={server.base_url!r})
async def main():
    await client.generate("gpt-5", "Hi")
    async with client.stream("gpt-5", "Hi") as stream:
        await anext(stream)
    assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()
for _ in range(4):
    asyncio.run(main())
async def dropped():
    await AsyncNeuralBox({server.api_key!r}, base_url={server.base_url!r}).generate("gpt-5", "Hi")
    gc.collect()
    await asyncio.sleep(0.05)
asyncio.run(dropped())
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # On a slow machine, the debug mode of asyncio logs slow callbacks.
    logged = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert ("done\n", [], 0) == (done.stdout, logged, done.returncode)


def test_no_loop():
    """Without a running event loop, a call raises `UnsupportedEventLoopError`."""
    client = AsyncNeuralBox("key")
    coroutine = client.generate("gpt-5", "Hi")
    with pytest.raises(UnsupportedEventLoopError, match="no asyncio event loop"):
        coroutine.send(None)


def test_trio(server):
    """Under trio, the error names the blocking client."""
    trio = pytest.importorskip("trio")

    async def main() -> None:
        with pytest.raises(UnsupportedEventLoopError, match="neuralbox_sync"):
            await AsyncNeuralBox(**server.client_options).generate("gpt-5", "Hi")

    trio.run(main)


def test_uvloop(server):
    """Calls and streams work on uvloop."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> str:
        async with AsyncNeuralBox(**server.client_options) as client:
            async with client.stream("gpt-5", "Hi") as stream:
                await stream.get_final_generation()
            return (await client.generate("gpt-5", "Hi")).content

    assert "Hi" in uvloop.run(main())


async def test_reset_after_fork(server, client):
    """A forked child drops the connections of its parent without closing them."""
    await client.generate("gpt-5", "Hi")
    transport = client._executor.shared.transport
    (inherited,) = transport._sockets
    of_the_parent = inherited.dup()

    transport.reset_after_fork()

    assert [] == list(transport._sockets)
    assert "Hi" in (await client.generate("gpt-5", "Hi")).content
    assert 2 == server.connections_accepted
    assert 2 == server.connections
    of_the_parent.close()


def test_loops_are_freed(server):
    """A client holds no reference to the loops that it has served."""
    client = AsyncNeuralBox(**server.client_options)

    async def once() -> weakref.ref:
        await client.generate("gpt-5", "Hi")
        return weakref.ref(asyncio.get_running_loop())

    first = asyncio.run(once())
    asyncio.run(once())
    gc.collect()
    assert first() is None


@pytest.mark.timing
def test_construction_is_cheap():
    """A new client starts no thread and opens no connection."""
    started = time.process_time()
    threads = threading.active_count()
    for _ in range(100):
        AsyncNeuralBox("key")
    assert threads == threading.active_count()
    assert time.process_time() - started < 5
