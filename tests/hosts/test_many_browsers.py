"""500 browsers at once, half of which leave: the generations of those end, and the memory of the server stays."""

import asyncio
import contextlib
import itertools

import psutil
import pytest
from event_source import interpret
from web_server import free_port, wait_until_listening

from neuralbox_async.testing import NeuralBoxServer

BROWSERS = 500
TIMEOUT = 120.0  # seconds
MAX_GROWTH = 48 * 2**20  # bytes between the second and the last round; an open stream each would be more

pytest.importorskip("uvicorn", reason="serves the application")
pytest.importorskip("starlette", reason="the application uses Starlette")


def reply(body):
    """Return the reply to the request *body*: endless for the prompt "endless"."""
    prompt = body["messages"][-1]["content"]
    return itertools.repeat("x ") if prompt == "endless" else "one two three"


async def stay(port):
    """Read a whole response and return its text."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        writer.write(b"GET /chat?q=Hi HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        received = await reader.read()
    head, _, body = received.partition(b"\r\n\r\n")
    assert b" 200 " in head.partition(b"\r\n")[0]
    chunks = body.split(b"\r\n")  # of HTTP: a length and a chunk by turns; an event has no carriage return
    return interpret(b"".join(chunks[1::2])).text


async def leave(port, all_arrived, *, after_text):
    """Send a request and leave when all have arrived: after the first text, or whatever has been sent by then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        writer.write(b"GET /chat?q=endless HTTP/1.1\r\nHost: test\r\n\r\n")
        if after_text:
            await reader.readuntil(b"data: ")
        await all_arrived.wait()


async def visit(port, server):
    """Let all browsers come at once, and return the texts of those who stay."""
    before, all_arrived = len(server.requests), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        texts = [tasks.create_task(stay(port)) for _ in range(BROWSERS // 2)]
        for number in range(BROWSERS // 2):
            tasks.create_task(leave(port, all_arrived, after_text=number % 2 == 0))
        await server.wait_until_async(lambda: len(server.requests) == before + BROWSERS, TIMEOUT)
        all_arrived.set()
    return [text.result() for text in texts]


def test_half_of_them_leave(launch):
    """Those who stay get their text and are billed; of those who leave, nothing is in flight soon after."""
    port = free_port()
    with NeuralBoxServer(reply=reply, event_interval=0.4) as server:
        command = ("-m", "uvicorn", "--log-level", "warning", "--factory", "--port", str(port))
        host = launch(server, *command, "web_apps:starlette_app")
        wait_until_listening(port)
        process, memory = psutil.Process(host.pid), []
        for number in range(1, 4):
            texts = asyncio.run(asyncio.wait_for(visit(port, server), TIMEOUT))
            server.wait_until(lambda: not server.in_flight, TIMEOUT)

            assert ["one two three"] * (BROWSERS // 2) == texts
            assert number * BROWSERS // 2 == len(server.billed)
            memory.append(process.memory_info().rss)
    assert memory[-1] - memory[1] < MAX_GROWTH
