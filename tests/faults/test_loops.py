"""One client in many event loops, one after the other and in threads, closed or not: it works without a warning."""

import asyncio
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from fault_server import STREAM_HEAD, events, eventually, generation, respond_once, respond_to_each, response

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
    "a client in each run, garbage-collected": """
        async def main():
            mine = AsyncNeuralBox("nb_test_key", base_url=URL)
            await mine.generate("gpt-5", "Hi")
            del mine
            gc.collect()
            async with asyncio.timeout(30):  # the task that closes the connections ends when they are closed
                while {asyncio.current_task()} != asyncio.all_tasks():
                    await asyncio.sleep(0.01)
                    gc.collect()
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
        # A loop that ends at this moment does not run the task in which aiohttp waits for closed connections.
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
    "running calls at the end": """
        async def main():
            tasks = [asyncio.create_task(client.generate("gpt-5", "Hi")) for _ in range(5)]
            await asyncio.sleep(0.002)
        for _ in range(4):
            asyncio.run(main())
            assert not connections()
        """,
    "a running stream at the end": """
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


def run(code, *arguments, limit=60):
    """Run *code* in a Python whose warnings are errors; return its standard error and the seconds that it took."""
    started = time.monotonic()
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    assert 0 == result.returncode, result.stderr
    return result.stderr, time.monotonic() - started


@pytest.mark.process
@pytest.mark.parametrize("name", PROGRAMS)
def test_program(serve, name):
    """The program succeeds and prints nothing to standard error."""
    endless_stream = respond_once(STREAM_HEAD + events("Hello", end=False), then="stall")
    server = serve(endless_stream if name in STREAMED else respond_to_each(response(generation())))

    errors, _ = run(START + textwrap.dedent(PROGRAMS[name]), server.url)

    assert "" == "\n".join(line for line in errors.splitlines() if not _is_slow_callback(line))


@pytest.mark.process
def test_loops_closed_by_hand(serve):
    """A loop that is closed without its async generators causes warnings about open connections, nothing else."""
    server = serve(respond_to_each(response(generation())))
    code = """
    for _ in range(4):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(call())
        loop.close()
        del loop
        gc.collect()
        assert len(connections()) <= 1
    """

    errors, _ = run(START + textwrap.dedent(code), server.url)

    lines = [line for line in errors.splitlines() if line[:1].isalpha() and not _is_slow_callback(line)]
    # Since 3.14 it is "Exception ignored while" instead of "Exception ignored in".
    assert all(line.startswith(("Exception ignored", "Traceback", "ResourceWarning")) for line in lines), errors
    assert 12 == server.posts


def _is_slow_callback(line):
    # asyncio's debug mode logs slow callbacks: on a busy machine, and when aiohttp is imported in a loop.
    return line.startswith("Executing <") and " took " in line


@pytest.mark.timing
@pytest.mark.process
def test_look_up_that_hangs_does_not_delay_exit():
    """A look-up that hangs delays neither the call nor the exit of the program."""
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
    """A client in the loop of a test works in each test."""
    server = serve(respond_to_each(response(generation(str(number)))))

    assert str(number) == (await connect(server).generate("gpt-5", "Hi")).content


def test_connections_of_a_loop_end_with_it(serve):
    """The connections of a loop are closed when it ends, and not before; calls in other loops continue."""
    server = serve(respond_to_each(response(generation())))
    client = AsyncNeuralBox("k", base_url=server.url)
    ends = []

    async def call():
        await client.generate("gpt-5", "Hi")
        await client.generate("gpt-5", "Hi")
        ends.append(server.ends)

    async def main():
        await client.generate("gpt-5", "Hi")
        thread = threading.Thread(target=lambda: asyncio.run(call()))
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.01)
        await client.generate("gpt-5", "Hi")
        assert await eventually(lambda: [None, "fin"] == server.ends)
        await client.aclose()

    asyncio.run(main())
    assert [[None, None]] == ends
    assert 4 == server.posts


def test_no_running_loop():
    """A call without a running asyncio loop raises `UnsupportedEventLoopError`."""
    client = AsyncNeuralBox("k", base_url="https://api.example")
    call = client.generate("gpt-5", "Hi")

    with pytest.raises((UnsupportedEventLoopError, RuntimeError)) as caught:
        call.send(None)

    assert isinstance(caught.value, UnsupportedEventLoopError)
    assert "trio" in str(caught.value)
