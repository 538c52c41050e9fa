"""Connections that cannot be opened."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
from fault_server import eventually, never_responds
from outcomes import LONG, SHORT, URLOnly, assert_never_sent, assert_unknown, closed_port, generate, stream

from neuralbox_async import APIConnectionError, APITimeoutError


@contextlib.contextmanager
def black_hole():
    """Yield a loopback port whose queue is full, so that connecting hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize("call", [generate, stream])
async def test_refused(connect, call):
    """A refused connection is attempted three times in all, and nothing is sent."""
    with closed_port() as port:
        outcome = await call(connect(URLOnly(f"http://127.0.0.1:{port}")))

    assert APIConnectionError is type(outcome.error)
    assert_never_sent(outcome.error, attempts=3)
    assert outcome.elapsed < LONG


@pytest.mark.parametrize("call", [generate, stream])
async def test_black_hole(connect, call):
    """Each attempt to connect ends at connect_timeout."""
    with black_hole() as port:
        outcome = await call(connect(URLOnly(f"http://127.0.0.1:{port}"), connect_timeout=0.2))

    assert isinstance(outcome.error, APITimeoutError)
    assert "connect" == outcome.error.phase
    assert_never_sent(outcome.error, attempts=3)
    assert 0.6 <= outcome.elapsed < LONG


async def test_deadline_while_connecting(connect):
    """The timeout of a call holds while it connects, and nothing was sent."""
    with black_hole() as port:
        outcome = await generate(connect(URLOnly(f"http://127.0.0.1:{port}"), timeout=SHORT))

    assert isinstance(outcome.error, APITimeoutError)
    assert_never_sent(outcome.error, attempts=1)
    assert SHORT <= outcome.elapsed < LONG


async def test_deadline_while_waiting_for_a_connection(serve, connect):
    """A call that times out while it waits for one of max_connections was never sent."""
    server = serve(never_responds)
    client = connect(server, max_connections=1)
    first = asyncio.create_task(generate(client, timeout=1))
    await eventually(lambda: server.posts)

    outcome = await generate(client, timeout=SHORT)

    assert isinstance(outcome.error, APITimeoutError)
    assert_never_sent(outcome.error, attempts=1)
    assert_unknown((await first).error)
    assert 1 == server.posts


async def test_unknown_name(connect, monkeypatch):
    """The look-up of an unknown name is retried, and nothing is sent."""

    def unknown(*_args, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    client = connect(URLOnly("https://api.invalid"))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    outcome = await generate(client)

    assert APIConnectionError is type(outcome.error)
    assert_never_sent(outcome.error, attempts=3)


async def test_look_up_that_hangs(connect, monkeypatch):
    """A look-up that hangs ends at connect_timeout and delays neither the call nor closing."""
    finished = threading.Event()
    client = connect(URLOnly("https://api.invalid"), connect_timeout=0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: finished.wait(10) and [])
    started = time.monotonic()
    try:
        outcome = await generate(client, max_retries=1)
        await client.aclose()
        assert time.monotonic() - started < LONG
    finally:
        finished.set()

    assert isinstance(outcome.error, APITimeoutError)
    assert "connect" == outcome.error.phase
    assert_never_sent(outcome.error, attempts=2)
