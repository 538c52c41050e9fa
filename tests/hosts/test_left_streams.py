"""Streams that are not read to their end: by generators, by an early break, by the garbage collector."""

import contextlib
import gc
import itertools
import time

import pytest

from neuralbox_sync import NeuralBox

SOON = 0.2  # seconds


def reply(body):
    """Return the reply to the request *body*: endless for a stream."""
    return itertools.repeat("word " * 200) if body.get("stream") else "You said: Hi"


pytestmark = [pytest.mark.neuralbox_server(reply=reply), pytest.mark.timing]


@pytest.fixture
def client(neuralbox_server):
    with NeuralBox(**neuralbox_server.client_options) as client:
        yield client


@pytest.fixture
def read(client):
    """Return a function that starts a generator over a stream, as a web view has it."""

    def read():
        with client.stream("gpt-5", "?") as stream:
            yield from stream.text_stream

    def start():
        pieces = read()
        assert next(pieces)
        return pieces

    return start


@pytest.fixture
def seconds_until_the_server_stops(neuralbox_server):
    """Return a function that measures the time from *leave* until the server sees one more disconnect."""
    disconnects = itertools.count(1)

    def measure(leave):
        started = time.monotonic()
        leave()
        neuralbox_server.wait_for_disconnect(count=next(disconnects))
        return time.monotonic() - started

    return measure


def test_generator_closed(read, neuralbox_server, seconds_until_the_server_stops, in_time):
    """Closing a generator that reads a stream closes its connection soon, and costs nothing."""
    assert in_time(SOON, lambda: seconds_until_the_server_stops(read().close))

    assert () == neuralbox_server.billed


def test_generator_garbage_collected(read, neuralbox_server):
    """A generator that is garbage-collected closes its stream."""
    read()
    gc.collect()

    neuralbox_server.wait_for_disconnect()


def test_reference_cycle(client, neuralbox_server):
    """A stream in a reference cycle is closed when the garbage collector finds it."""
    stream = client.stream("gpt-5", "?").__enter__()
    next(stream)
    stream.itself = stream
    del stream

    def is_closed_by_collector():
        gc.collect()  # again: the thread of the loop may have held the stream in its last frame a moment longer
        return neuralbox_server.requests[0].disconnected

    neuralbox_server.wait_until(is_closed_by_collector)


def test_early_break(client, seconds_until_the_server_stops, in_time):
    """The server stops soon after a break, and the next call works."""

    def attempt():
        with client.stream("gpt-5", "?") as stream:
            for _ in stream.text_stream:
                break
            return seconds_until_the_server_stops(stream.close)

    assert in_time(SOON, attempt)
    assert "You said: Hi" == client.generate("gpt-5", "?").content


def test_many_left_early(client, neuralbox_server):
    """Many streams that are left early leave no connection."""
    for _ in range(40):
        with client.stream("gpt-5", "?") as stream:
            next(stream)

    neuralbox_server.wait_for_disconnect(count=40)
    neuralbox_server.wait_until(lambda: neuralbox_server.connections == 0)


def test_stream_that_nobody_reads(client):
    """A stream that nobody reads blocks no other call, and can be read later."""
    with client.stream("gpt-5", "?") as stream:
        next(stream)
        assert ["You said: Hi"] * 20 == [client.generate("gpt-5", "?").content for _ in range(20)]

        assert ["word " * 200] * 100 == list(itertools.islice(stream.text_stream, 100))


def test_closed_before_it_was_entered(client, neuralbox_server):
    """Closing a stream before it is entered, once or twice, sends nothing."""
    stream = client.stream("gpt-5", "?")
    with contextlib.closing(stream):
        stream.close()

    assert () == neuralbox_server.requests
