"""Connections that cannot be opened."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
from fault_server import eventually, reads_and_stalls
from outcomes import LONG, SHORT, Place, assert_never_sent, assert_unknown, closed_port, generate, stream

from neuralbox_async import APIConnectionError, APITimeoutError


@contextlib.contextmanager
def black_hole():
    """A port of the loopback where no connection comes about: its queue is full."""
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
    """A connection that is refused is tried again, three times in all; nothing was sent."""
    with closed_port() as port:
        outcome = await call(connect(Place(f"http://127.0.0.1:{port}")))

    assert APIConnectionError is type(outcome.error)
    assert_never_sent(outcome.error, attempts=3)
    assert outcome.elapsed < LONG


@pytest.mark.parametrize("call", [generate, stream])
async def test_black_hole(connect, call):
    """A connection that does not come about ends by connect_timeout, each time."""
    with black_hole() as port:
        outcome = await call(connect(Place(f"http://127.0.0.1:{port}"), connect_timeout=0.2))

    assert isinstance(outcome.error, APITimeoutError)
    assert "connect" == outcome.error.phase
    assert_never_sent(outcome.error, attempts=3)
    assert 0.6 <= outcome.elapsed < LONG


async def test_deadline_while_connecting(connect):
    """The deadline holds for connecting, too: nothing was sent, and the error says so."""
    with black_hole() as port:
        outcome = await generate(connect(Place(f"http://127.0.0.1:{port}"), timeout=SHORT))

    assert isinstance(outcome.error, APITimeoutError)
    assert_never_sent(outcome.error, attempts=1)
    assert SHORT <= outcome.elapsed < LONG


async def test_deadline_while_waiting_for_a_connection(serve, connect):
    """A call that waited in vain for one of max_connections was never sent."""
    server = serve(reads_and_stalls)
    client = connect(server, max_connections=1)
    first = asyncio.create_task(generate(client, timeout=1))
    await eventually(lambda: server.posts)

    outcome = await generate(client, timeout=SHORT)

    assert isinstance(outcome.error, APITimeoutError)
    assert_never_sent(outcome.error, attempts=1)
    assert_unknown((await first).error)
    assert 1 == server.posts


async def test_unknown_name(connect, monkeypatch):
    """A name without an address is looked up again; nothing was sent."""

    def unknown(*_args, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    client = connect(Place("https://api.invalid"))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    outcome = await generate(client)

    assert APIConnectionError is type(outcome.error)
    assert_never_sent(outcome.error, attempts=3)


async def test_name_server_that_hangs(connect, monkeypatch):
    """A look-up that hangs ends by connect_timeout, and holds up neither the call nor closing."""
    over = threading.Event()
    client = connect(Place("https://api.invalid"), connect_timeout=0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: over.wait(10) and [])
    started = time.monotonic()
    try:
        outcome = await generate(client, max_retries=1)
        await client.aclose()
        assert time.monotonic() - started < LONG
    finally:
        over.set()

    assert isinstance(outcome.error, APITimeoutError)
    assert "connect" == outcome.error.phase
    assert_never_sent(outcome.error, attempts=2)
