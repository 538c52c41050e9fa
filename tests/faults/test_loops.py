"""One client in many event loops, in turn and in threads, closed or never: it works, and without a word of warning."""

import asyncio
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from fault_server import STREAM_HEAD, answer, events, eventually, generation, replies, serves

from neuralbox_async import AsyncNeuralBox, UnsupportedEventLoopError

START = """
import asyncio, gc, sys, threading
import psutil
from neuralbox_async import AsyncNeuralBox, NeuralBoxError

URL = sys.argv[1]
client = AsyncNeuralBox("nb_test_key", base_url=URL, timeout=5)

async def call(times=3):
    for _ in range(times):
        assert "Hello" == (await client.generate("gpt-5", "Hi")).content
    assert {asyncio.current_task()} == asyncio.all_tasks()

def connections():
    return [c for c in psutil.Process().net_connections("tcp") if c.status == "ESTABLISHED"]
"""

PROGRAMS = {
    "four runs": """
        for _ in range(4):
            asyncio.run(call())
            assert not connections()
        """,
    "four runs, closed in a fifth": """
        for _ in range(4):
            asyncio.run(call())
        asyncio.run(client.aclose())
        """,
    "runners": """
        for _ in range(4):
            with asyncio.Runner() as runner:
                runner.run(call())
                runner.run(call())
        """,
    "anyio": """
        import anyio
        for _ in range(3):
            anyio.run(call)
        """,
    "a client in each run, forgotten": """
        async def main():
            mine = AsyncNeuralBox("nb_test_key", base_url=URL)
            await mine.generate("gpt-5", "Hi")
            del mine
            gc.collect()
            await asyncio.sleep(0.05)
            gc.collect()
            assert {asyncio.current_task()} == asyncio.all_tasks()
        for _ in range(3):
            asyncio.run(main())
            assert not connections()
        """,
    "threads": """
        def work():
            for _ in range(3):
                asyncio.run(call())
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        asyncio.run(call(10))
        for thread in threads:
            thread.join()
        assert not connections()
        """,
    "closed while threads call": """
        import logging
        # A loop that ends in this very moment has no time for the task that aiohttp makes to see connections closed.
        logging.getLogger("asyncio").addFilter(lambda record: "destroyed but it is pending" not in record.getMessage())
        def work():
            try:
                asyncio.run(call(10_000))
            except NeuralBoxError as error:
                assert "closed" in str(error), error
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        asyncio.run(call(5))
        asyncio.run(client.aclose())
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()
        """,
    "calls under way at the end": """
        async def main():
            tasks = [asyncio.create_task(client.generate("gpt-5", "Hi")) for _ in range(5)]
            await asyncio.sleep(0.002)
        for _ in range(4):
            asyncio.run(main())
            assert not connections()
        """,
    "a stream under way at the end": """
        async def main():
            stream = await client.stream("gpt-5", "Hi", recover=False).__aenter__()
            await anext(stream)
            return stream
        kept = [asyncio.run(main()) for _ in range(3)]
        assert not connections()
        kept.clear()
        gc.collect()
        """,
    "a stream read in another loop": """
        async def enter():
            stream = await client.stream("gpt-5", "Hi", recover=False).__aenter__()
            await anext(stream)
            return stream
        async def read(stream):
            try:
                await stream.get_final_generation()
            except NeuralBoxError:
                pass
            await stream.aclose()
        stream = asyncio.run(enter())
        asyncio.run(read(stream))
        """,
    "never called": "",
    "at import": """
        assert not threading.active_count() > 1
        async def main():
            async with client:
                await call()
        asyncio.run(main())
        """,
}
STREAMED = {name for name in PROGRAMS if "stream" in name}


def run(code, *arguments, limit=20):
    """Run *code* in a Python that takes each warning for an error; return what it wrote to stderr, and the seconds."""
    started = time.monotonic()
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    assert 0 == done.returncode, done.stderr
    return done.stderr, time.monotonic() - started


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(serve, name):
    """The program ends well and silently."""
    endless_stream = replies(STREAM_HEAD + events("Hello", end=False), then="stall")
    server = serve(endless_stream if name in STREAMED else serves(answer(generation())))

    written, _ = run(START + textwrap.dedent(PROGRAMS[name]), server.url)

    assert "" == "\n".join(line for line in written.splitlines() if not _is_slowness(line))


def test_loops_closed_by_hand(serve):
    """Of a loop that is closed without its generators, Python tells what was left open, and no more."""
    server = serve(serves(answer(generation())))
    code = """
    for _ in range(4):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(call())
        loop.close()
        del loop
        gc.collect()
        assert len(connections()) <= 1
    """

    written, _ = run(START + textwrap.dedent(code), server.url)

    told = [line for line in written.splitlines() if line[:1].isalpha() and not _is_slowness(line)]
    assert all(line.startswith(("Exception ignored in", "Traceback", "ResourceWarning")) for line in told), written
    assert 12 == server.posts


def _is_slowness(line):
    # What asyncio's debug mode says of a busy machine, or of importing aiohttp in a loop.
    return line.startswith("Executing <") and " took " in line


def test_look_up_that_hangs_does_not_delay_the_end():
    """A name server that does not answer holds up neither the call nor the end of the program."""
    code = """
    import asyncio, socket, time
    from neuralbox_async import AsyncNeuralBox, APITimeoutError

    socket.getaddrinfo = lambda *_args, **_options: time.sleep(8)

    async def main():
        async with AsyncNeuralBox("k", base_url="https://api.invalid", connect_timeout=0.2, max_retries=0) as client:
            try:
                await client.generate("gpt-5", "Hi")
            except APITimeoutError as error:
                assert not error.request_sent

    asyncio.run(main())
    """
    _, seconds = run(textwrap.dedent(code))
    assert seconds < 5


@pytest.mark.parametrize("number", range(3))
async def test_loop_of_each_test(serve, connect, number):
    """A client for each test, in the loop of each test."""
    server = serve(serves(answer(generation(str(number)))))

    assert str(number) == (await connect(server).generate("gpt-5", "Hi")).content


def test_connections_of_a_loop_end_with_it(serve):
    """What a loop has opened is closed when it ends, and not before; other loops' calls are not disturbed."""
    server = serve(serves(answer(generation())))
    client = AsyncNeuralBox("k", base_url=server.url)
    ends = []

    async def call():
        await client.generate("gpt-5", "Hi")
        await client.generate("gpt-5", "Hi")
        ends.append(server.ends)

    async def beside():
        await client.generate("gpt-5", "Hi")
        thread = threading.Thread(target=lambda: asyncio.run(call()))
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.01)
        await client.generate("gpt-5", "Hi")
        assert await eventually(lambda: [None, "fin"] == server.ends)
        await client.aclose()

    asyncio.run(beside())
    assert [[None, None]] == ends
    assert 4 == server.posts


def test_no_loop_at_all():
    """Where no asyncio loop runs, one clear error says so."""
    client = AsyncNeuralBox("k", base_url="https://api.example")
    call = client.generate("gpt-5", "Hi")

    with pytest.raises((UnsupportedEventLoopError, RuntimeError)) as caught:
        call.send(None)

    assert isinstance(caught.value, UnsupportedEventLoopError)
    assert "trio" in str(caught.value)
