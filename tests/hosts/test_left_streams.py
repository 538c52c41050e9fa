"""Streams that are not read to their end: by generators, by chance, in numbers."""

import contextlib
import gc
import itertools
import time

import pytest

from neuralbox_sync import NeuralBox

SOON = 1.5  # seconds; it takes milliseconds, but not on a machine under load


def reply(asked):
    """Return an endless answer to a stream, a short one to the rest."""
    return itertools.repeat("word " * 200) if asked.get("stream") else "You said: Hi"


pytestmark = pytest.mark.neuralbox_server(reply=reply)


@pytest.fixture
def client(neuralbox_server):
    with NeuralBox(**neuralbox_server.options) as client:
        yield client


@pytest.fixture
def pieces(client):
    """A generator as views have it, which has begun."""

    def read():
        with client.stream("gpt-5", "?") as stream:
            yield from stream.text

    pieces = read()
    assert next(pieces)
    return [pieces]


def test_generator_closed(pieces, neuralbox_server):
    """Closing the generator that reads a stream closes its connection, soon, and costs nothing."""
    began = time.monotonic()
    pieces.pop().close()

    neuralbox_server.wait_for_disconnect()
    assert time.monotonic() - began < SOON
    assert () == neuralbox_server.billed


def test_generator_dropped(pieces, neuralbox_server):
    """Dropping that generator does the same."""
    pieces.clear()
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


def test_an_early_break(client, neuralbox_server):
    """After a break the server stops soon, and the next call has its answer."""
    with client.stream("gpt-5", "?") as stream:
        for _ in stream.text:
            break
    left = time.monotonic()

    neuralbox_server.wait_for_disconnect()
    assert time.monotonic() - left < SOON
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

        assert ["word " * 200] * 100 == list(itertools.islice(stream.text, 100))


def test_closed_before_it_was_entered_or_twice(client, neuralbox_server):
    """Closing is possible at any time, any number of times, and sends nothing."""
    stream = client.stream("gpt-5", "?")
    with contextlib.closing(stream):
        stream.close()

    assert () == neuralbox_server.requests
