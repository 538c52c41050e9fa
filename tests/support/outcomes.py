"""
Calls that fail, and checks of their errors.

Each fault test checks the error, its billing status, the number of requests, the time, the connection, and that no text
is lost.
"""

import contextlib
import socket
import time

import attrs
import pytest
from fault_server import STREAM_HEAD, events, generation, response

from neuralbox_async import NeuralBoxError

SHORT = 0.2  # the timeouts of these tests, in seconds
LONG = SHORT + 30  # an upper bound for a busy machine; the default of every other timeout is longer
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
COMPLETE = response(generation())
BODY = COMPLETE.partition(b"\r\n\r\n")[2]
MIB = 1024 * 1024


@attrs.frozen
class Outcome:
    """The error, duration and text of a call that failed."""

    error: NeuralBoxError
    elapsed: float
    texts: list[str]


async def generate(client, **options):
    """Call `generate`, which fails."""
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
    """Check that the request was sent once and that its billing status is unknown."""
    assert "unknown" == error.billed
    assert error.request_sent
    assert 1 == error.attempts
    assert error.idempotency_key


def assert_never_sent(error, *, attempts):
    """Check that the request was never sent."""
    assert "no" == error.billed
    assert not error.request_sent
    assert attempts == error.attempts


START = STREAM_HEAD + events("Hello ", "world", end=False)


@contextlib.contextmanager
def closed_port():
    """Yield a loopback port that refuses connections."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        yield placeholder.getsockname()[1]


@attrs.frozen
class URLOnly:
    """A server that is only a URL."""

    url: str
