"""Deadlines that fire late, because the process was stopped or the loop blocked: a response that has arrived wins."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fault_server import STREAM_HEAD, events, eventually, generation, never_responds, response
from outcomes import LONG, SHORT, assert_never_sent, assert_unknown, generate

import neuralbox_async
from neuralbox_async import APITimeoutError

pytestmark = [pytest.mark.slow, pytest.mark.timing]

SCRIPT = Path(__file__).parents[1] / "support" / "stopped_process.py"
TIMEOUT = 1.0  # seconds: a stopped process has begun to wait long before
LARGE = "x" * 2_000_000
CHUNKED_STREAM = STREAM_HEAD.replace(b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n")


def chunked(data):
    """Return *data* as a body of one chunk."""
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


CALLS = {
    "generate": ({"timeout": TIMEOUT}, response(generation())),
    "blocking": ({"timeout": TIMEOUT}, response(generation())),
    "wait": ({"timeout": TIMEOUT}, response(generation())),
    "stream": ({"timeout": TIMEOUT}, CHUNKED_STREAM + chunked(events("Hello"))),
    "stream, first event": ({"first_event_timeout": TIMEOUT}, CHUNKED_STREAM + chunked(events("Hello"))),
}


class Stopped:
    """A process that is stopped when its request has arrived, and a server that responds then."""

    def __init__(self, serve, before, after, tls=None):
        self.respond, self.waiting = threading.Event(), threading.Event()
        self._before, self._after = before, after
        self.server = serve(self._script, tls=tls)

    async def _script(self, connection):
        await connection.request()
        await connection.send(self._before)
        self.waiting.set()
        while not self.respond.is_set():
            await asyncio.sleep(0.005)
        await connection.send(self._after)

    def run(self, call, options, authority=None, loop="asyncio"):
        """Run *call* in the process, which is stopped while its timeout expires; return what it prints."""
        pem = authority.cert_pem.bytes().decode() if authority else None
        arguments = {"call": call, "options": options, "url": self.server.url, "authority": pem, "loop": loop}
        environment = {**os.environ, "PYTHONPATH": str(Path(neuralbox_async.__file__).parent.parent)}
        command = [sys.executable, str(SCRIPT), json.dumps(arguments)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            try:
                assert self.waiting.wait(60)
                time.sleep(0.1)  # so that the process waits, too
                process.send_signal(signal.SIGSTOP)
                self.respond.set()
                time.sleep(TIMEOUT + 0.3)
                process.send_signal(signal.SIGCONT)
                output, _ = process.communicate(timeout=60)
            finally:
                process.kill()
        return json.loads(output)


@pytest.mark.process
@pytest.mark.parametrize(
    "call, secure, loop",
    [
        ("generate", False, "asyncio"),
        ("generate", True, "asyncio"),
        ("generate", False, "uvloop"),
        ("generate", True, "uvloop"),
        ("blocking", False, "asyncio"),
        ("wait", False, "asyncio"),
        ("wait", True, "uvloop"),
        ("stream", False, "asyncio"),
        ("stream", True, "uvloop"),
        ("stream, first event", False, "uvloop"),
    ],
)
def test_a_stopped_process(serve, tls, authority, call, secure, loop):
    """A response that arrived while the process was stopped beyond its deadline is returned."""
    options, data = CALLS[call]
    name = call.partition(",")[0]
    stopped = Stopped(serve, b"", data, tls if secure else None)

    assert {"text": "Hello"} == stopped.run(name, options, authority if secure else None, loop)
    assert 1 == len(stopped.server.requests)


@pytest.mark.process
@pytest.mark.parametrize("secure, loop", [(False, "uvloop"), (True, "asyncio")])
def test_a_stalled_stream_of_a_stopped_process(serve, tls, authority, secure, loop):
    """Events that arrived while the process was stopped beyond the stall timeout are read."""
    data = chunked(events("Hello ", "world"))
    stopped = Stopped(serve, CHUNKED_STREAM + data[:-60], data[-60:], tls if secure else None)

    outcome = stopped.run("stream", {"stall_timeout": TIMEOUT}, authority if secure else None, loop)

    assert {"text": "Hello world"} == outcome


@pytest.mark.process
def test_a_stopped_process_without_a_response(serve):
    """A stopped process whose response has not arrived reports the timeout."""
    stopped = Stopped(serve, b"", b"")

    outcome = stopped.run("generate", {"timeout": TIMEOUT})

    assert ("APITimeoutError", "unknown") == (outcome["error"], outcome["billed"])


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("text", ["Hello", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("count", [1, 50])
async def test_a_blocked_loop(serve, connect, tls, trusting, text, count, secure):
    """Responses that arrived while the loop was blocked beyond their deadlines are returned."""
    if text is LARGE and count > 1:
        count = 3
    respond = threading.Event()

    async def script(connection):
        await connection.request()
        while not respond.is_set():
            await asyncio.sleep(0.005)
        await connection.send(response(generation(text)))

    server = serve(script, tls=tls if secure else None)
    client = connect(server, ssl_context=trusting, timeout=2.0)
    calls = [asyncio.ensure_future(client.generate("gpt-5", "Hi")) for _ in range(count)]
    while len(server.requests) < count:
        await asyncio.sleep(0.005)
    respond.set()
    time.sleep(2.2)

    assert all(answer.content == text for answer in await asyncio.gather(*calls))
    assert count == server.posts


@pytest.mark.parametrize("text", ["Hello", LARGE], ids=["small", "large"])
async def test_a_stream_of_a_blocked_loop(serve, connect, text):
    """The events of a stream that arrived while the loop was blocked beyond its timeouts are read."""
    respond = threading.Event()

    async def script(connection):
        await connection.request()
        await connection.send(CHUNKED_STREAM)
        while not respond.is_set():
            await asyncio.sleep(0.005)
        await connection.send(chunked(events(*[text[i : i + 1000] for i in range(0, len(text), 1000)])))

    client = connect(serve(script))
    async with client.stream("gpt-5", "Hi", first_event_timeout=2 * TIMEOUT, recover=False) as opened:
        reader = asyncio.ensure_future(opened.get_final_generation())
        await asyncio.sleep(0.1)
        respond.set()
        time.sleep(2 * TIMEOUT + 0.1)
        assert text == (await reader).content


async def test_a_late_deadline_without_a_response_expires(serve, connect):
    """A deadline that fires late does so soon if no response has arrived."""
    server = serve(never_responds)
    client = connect(server, timeout=TIMEOUT)
    call = asyncio.ensure_future(generate(client))
    assert await eventually(lambda: server.requests)
    time.sleep(TIMEOUT)
    resumed = time.monotonic()

    outcome = await call

    assert isinstance(outcome.error, APITimeoutError)
    assert_unknown(outcome.error)
    assert time.monotonic() - resumed < LONG


async def test_a_late_deadline_expires_while_data_arrives(serve, connect):
    """A response that never ends does not postpone a late deadline."""

    async def script(connection):
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await connection.send(b"10000\r\n" + 0x10000 * b" " + b"\r\n", every=0.001)

    server = serve(script)
    client = connect(server, timeout=TIMEOUT)
    call = asyncio.ensure_future(generate(client))
    assert await eventually(lambda: server.requests)
    time.sleep(TIMEOUT)
    resumed = time.monotonic()

    outcome = await call

    assert isinstance(outcome.error, APITimeoutError)
    assert_unknown(outcome.error)
    assert outcome.error.body
    assert time.monotonic() - resumed < LONG


async def test_no_request_is_sent_after_its_deadline(serve, connect):
    """A call whose deadline expired while it connected, in a blocked loop, is not sent."""
    server = serve(never_responds)
    client = connect(server, timeout=SHORT)
    call = asyncio.ensure_future(generate(client))
    asyncio.get_running_loop().call_soon(time.sleep, 0.4)

    outcome = await call

    assert isinstance(outcome.error, APITimeoutError)
    assert_never_sent(outcome.error, attempts=1)
    await asyncio.sleep(0.05)
    assert 0 == server.posts
