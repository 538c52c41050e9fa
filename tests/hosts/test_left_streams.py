"""Streams that are not read to their end: by generators, by chance, in numbers."""

import contextlib
import gc
import itertools
import time

import pytest

from neuralbox_sync import NeuralBox

SOON = 0.2  # seconds


def reply(asked):
    """Return an endless answer to a stream, a short one to the rest."""
    return itertools.repeat("word " * 200) if asked.get("stream") else "You said: Hi"


pytestmark = pytest.mark.neuralbox_server(reply=reply)


@pytest.fixture
def client(neuralbox_server):
    with NeuralBox(**neuralbox_server.client_options) as client:
        yield client


@pytest.fixture
def read(client):
    """Make a generator as views have it, which has begun."""

    def read():
        with client.stream("gpt-5", "?") as stream:
            yield from stream.text_stream

    def begun():
        pieces = read()
        assert next(pieces)
        return pieces

    return begun


@pytest.fixture
def seconds_until_the_server_stops(neuralbox_server):
    """Measure how long it takes, after *leave*, until the server sees that one more reader has gone."""
    gone = itertools.count(1)

    def measure(leave):
        since = time.monotonic()
        leave()
        neuralbox_server.wait_for_disconnect(count=next(gone))
        return time.monotonic() - since

    return measure


def test_generator_closed(read, neuralbox_server, seconds_until_the_server_stops, in_time):
    """Closing the generator that reads a stream closes its connection, soon, and costs nothing."""
    assert in_time(SOON, lambda: seconds_until_the_server_stops(read().close))

    assert () == neuralbox_server.billed


def test_generator_dropped(read, neuralbox_server):
    """Dropping that generator does the same."""
    read()
    gc.collect()

    neuralbox_server.wait_for_disconnect()


def test_cycle(client, neuralbox_server):
    """A half-read stream in a reference cycle is closed when the collector finds it."""
    stream = client.stream("gpt-5", "?").__enter__()
    next(stream)
    stream.itself = stream
    del stream
    gc.collect()

    neuralbox_server.wait_for_disconnect()


def test_an_early_break(client, seconds_until_the_server_stops, in_time):
    """After a break the server stops soon, and the next call has its answer."""

    def attempt():
        with client.stream("gpt-5", "?") as stream:
            for _ in stream.text_stream:
                break
            return seconds_until_the_server_stops(stream.close)

    assert in_time(SOON, attempt)
    assert "You said: Hi" == client.generate("gpt-5", "?").content


def test_many_left_early(client, neuralbox_server):
    """Streams left early leave no connection behind, however many."""
    for _ in range(40):
        with client.stream("gpt-5", "?") as stream:
            next(stream)

    neuralbox_server.wait_for_disconnect(count=40)
    neuralbox_server.wait_until(lambda: neuralbox_server.connections == 0)


def test_a_stream_that_nobody_reads(client):
    """It holds up neither the calls of others nor itself: later it can be read on."""
    with client.stream("gpt-5", "?") as stream:
        next(stream)
        assert ["You said: Hi"] * 20 == [client.generate("gpt-5", "?").content for _ in range(20)]

        assert ["word " * 200] * 100 == list(itertools.islice(stream.text_stream, 100))


def test_closed_before_it_was_entered_or_twice(client, neuralbox_server):
    """Closing is possible at any time, any number of times, and sends nothing."""
    stream = client.stream("gpt-5", "?")
    with contextlib.closing(stream):
        stream.close()

    assert () == neuralbox_server.requests
