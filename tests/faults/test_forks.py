"""An `AsyncNeuralBox` that the parent used before a fork: the child never harms the parent's connections."""

import ssl
import subprocess
import sys

import pytest
import trustme
from fault_server import STREAM_HEAD, events, generation, response

PARENT = """
import asyncio, contextlib, gc, importlib, os, pathlib, ssl, sys, threading
from neuralbox_async import AsyncNeuralBox
from neuralbox_async._call import stream as streams
from neuralbox_async._http import aiohttp_connector as connections

# A busy machine must not part a connection from its next request.
streams._DRAIN_TIMEOUT = connections._KEEP_ALIVE = 60.0
URL, LOOP, CERTIFICATE = sys.argv[1:]
event_loop = importlib.import_module(LOOP)
context = ssl.create_default_context(cafile=CERTIFICATE) if CERTIFICATE else None
client = AsyncNeuralBox("nb_test_key", base_url=URL, ssl_context=context, timeout=5)

async def generate():
    assert "Hello" == (await client.generate("gpt-5", "Hi")).content

def drop():
    global client, stream
    del client, stream
    gc.collect()

def epoll_registrations():
    # The descriptors in each epoll of this process, which the child shares.
    registrations = {}
    for number in os.listdir("/proc/self/fdinfo"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing
            lines = pathlib.Path("/proc/self/fdinfo", number).read_text().splitlines()
            registrations[number] = sorted(line for line in lines if line.startswith("tfd:"))
    return {number: lines for number, lines in registrations.items() if lines}

def fork():
    registrations = epoll_registrations()
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except Exception:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        leave()
    status = os.waitpid(pid, 0)[1]
    assert 0 == status, status
    assert registrations == epoll_registrations()

# As multiprocessing does: the frames below are those of the parent's loop.
leave = lambda: os._exit(0)
"""

IN_A_RUNNING_LOOP = """
async def main():
    global client, stream
    await generate()
    async with client.stream("gpt-5", "Hi") as stream:
        await anext(stream)
        fork()
        assert "Hello world" == (await stream.get_final_generation()).content
    await generate()
    await client.aclose()
    del stream

event_loop.run(main())
"""

BESIDE_A_RUNNING_LOOP = """
# The main thread forks, so that the child can exit as any program does.
leave = lambda: sys.exit(0)
ready, forked = threading.Event(), threading.Event()

async def main():
    global stream
    await generate()
    async with client.stream("gpt-5", "Hi") as stream:
        await anext(stream)
        ready.set()
        while not forked.is_set():
            await asyncio.sleep(0.01)
        assert "Hello world" == (await stream.get_final_generation()).content
    await generate()
    await client.aclose()
    del stream

thread = threading.Thread(target=lambda: event_loop.run(main()), daemon=True)
thread.start()
ready.wait()
fork()
forked.set()
thread.join()
"""

PARENTS = {"in a running loop": IN_A_RUNNING_LOOP, "beside a running loop": BESIDE_A_RUNNING_LOOP}
CHILDREN = {
    "nothing": "pass",
    "a call": "event_loop.run(generate())",
    "close": "event_loop.run(client.aclose())",
    "a call and close": "event_loop.run(generate()); event_loop.run(client.aclose())",
    "a closed stream": "event_loop.run(stream.aclose())",
    "garbage collection": "drop()",
    "a call and garbage collection": "event_loop.run(generate()); drop()",
    "a fork and a call": "global child; child = lambda: event_loop.run(generate()); fork()",
}


async def serve_requests(connection):
    """Respond to each request on a kept connection; the second half of a stream comes after the fork."""
    while True:
        request = await connection.request()
        if b'"stream":true' not in request.body:
            await connection.send(response(generation()))
            continue
        head = STREAM_HEAD.replace(b"Connection: close", b"Transfer-Encoding: chunked")
        for part in (events("Hello ", end=False), events("world", start=False)):
            await connection.send(head + b"%x\r\n%s\r\n" % (len(part), part), every=0.2)
            head = b""
        await connection.send(b"0\r\n\r\n")


def run(server, parent, child, *, loop="asyncio", certificate=""):
    """Run *parent*, whose forked child runs *child*; neither writes to standard error."""
    code = f"{PARENT}\ndef child():\n    {CHILDREN[child]}\n{PARENTS[parent]}"
    # Since Python 3.12 a fork of a process with threads warns. These tests do exactly that.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, server.url, loop, str(certificate)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (0, "") == (result.returncode, result.stderr), result.stderr
    connections_of_the_child = 1 if "call" in child else 0
    assert 1 + connections_of_the_child == len(server.connections)


@pytest.mark.process
@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("parent", PARENTS)
def test_fork(serve, parent, child):
    """The parent's connection and its epoll still work after the child used, closed or dropped the client."""
    run(serve(serve_requests), parent, child)


@pytest.mark.process
@pytest.mark.parametrize("child", ["a closed stream", "garbage collection"])
@pytest.mark.parametrize("parent", PARENTS)
def test_fork_with_tls(serve, tmp_path, parent, child):
    """The child ends no TLS session of the parent."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    run(serve(serve_requests, tls=context), parent, child, certificate=tmp_path / "authority.pem")


@pytest.mark.process
@pytest.mark.parametrize("child", ["a closed stream", "garbage collection"])
def test_fork_with_uvloop(serve, child):
    """The child harms no event loop of uvloop."""
    pytest.importorskip("uvloop")

    # Not beside a running loop: there a child crashes when it exits, as with aiohttp's session alone.
    run(serve(serve_requests), "in a running loop", child, loop="uvloop")
