"""
Each way in which a network, a proxy or a server fails, by a table.

What counts each time: which error, what it says of the money, how often the server was asked, how long it took, what
became of the connection, and that no text is lost.
"""

import contextlib
import socket
import time

import attrs
import pytest
from fault_server import STREAM_HEAD, answer, events, generation

from neuralbox_async import NeuralBoxError

SHORT = 0.2  # the timeouts of these tests, in seconds
LONG = SHORT + 2  # and what a busy machine may make of them
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WHOLE = answer(generation())
BODY = WHOLE.partition(b"\r\n\r\n")[2]
MIB = 1024 * 1024


@attrs.frozen
class Outcome:
    """What came of a call that failed."""

    error: NeuralBoxError
    elapsed: float
    texts: list[str]


async def generate(client, **options):
    """Generate, which fails."""
    started = time.monotonic()
    with pytest.raises(NeuralBoxError) as caught:
        await client.generate("gpt-5", "Hi", **options)
    return Outcome(caught.value, time.monotonic() - started, [])


async def stream(client, *, recover=False, **options):
    """Read a stream, which fails."""
    started = time.monotonic()
    texts = []
    with pytest.raises(NeuralBoxError) as caught:
        async with client.stream("gpt-5", "Hi", recover=recover, **options) as opened:
            async for text in opened.text_stream:
                texts.append(text)
    return Outcome(caught.value, time.monotonic() - started, texts)


def assert_unknown(error):
    """It was sent, once, nobody knows what became of it, and the error says so."""
    assert "unknown" == error.billed
    assert error.request_sent
    assert 1 == error.attempts
    assert error.idempotency_key


def assert_never_sent(error, *, attempts):
    """Nothing left this machine, and the error says so."""
    assert "no" == error.billed
    assert not error.request_sent
    assert attempts == error.attempts


START = STREAM_HEAD + events("Hello ", "world", end=False)


@contextlib.contextmanager
def closed_port():
    """A port of the loopback that refuses connections."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        yield placeholder.getsockname()[1]


@attrs.frozen
class Place:
    """Where a client is told to find the API."""

    url: str
