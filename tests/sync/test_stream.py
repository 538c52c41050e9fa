"""`Stream` against a local server: order, bulk reads, threads, and every way to leave."""

import gc
import itertools
import threading
import time

import pytest

from neuralbox_async import AsyncNeuralBox
from neuralbox_sync import (
    ClientClosedError,
    ContentDelta,
    GenerationEnd,
    GenerationStart,
    InvalidParameterError,
    StreamInterruptedError,
    StreamStateError,
)
from neuralbox_sync._loop import EventLoop

ENDLESS = pytest.mark.neuralbox_server(reply=lambda _: itertools.repeat("x "), event_interval=0.005)


def reply_to(text):
    """Return the content of the local server's response to *text*."""
    return f"You said: {text}"


def test_events(client):
    """A stream yields every event, once and in order, and then has the whole generation."""
    with client.stream("gpt-5", "one two") as stream:
        events = list(stream)

    assert [GenerationStart, *[ContentDelta] * 4, GenerationEnd] == [type(event) for event in events]
    assert reply_to("one two") == stream.generation.content
    assert stream.generation.completed


async def test_same_events_as_async(client, neuralbox_server):
    """A blocking stream has the same events as an async one."""
    async with (
        AsyncNeuralBox(**neuralbox_server.client_options) as other,
        other.stream("gpt-5", "one two three") as async_stream,
    ):
        expected = [type(event) async for event in async_stream]

    with client.stream("gpt-5", "one two three") as stream:
        assert expected == [type(event) for event in stream]


def test_text_stream(client):
    """`text_stream` yields the pieces of text, after the events that were already read."""
    with client.stream("gpt-5", "one two") as stream:
        next(stream)
        assert ["You ", "said: ", "one ", "two"] == list(stream.text_stream)


def test_get_final_generation(client):
    """`get_final_generation` reads the rest of a stream and returns the whole generation."""
    with client.stream("gpt-5", "one two") as stream:
        next(stream)
        assert reply_to("one two") == stream.get_final_generation().content


@pytest.mark.neuralbox_server(reply="word " * 3000)
def test_bulk_reads(client, monkeypatch):
    """Events that arrive together are fetched in one call of the loop."""
    calls = []
    call = EventLoop.call
    monkeypatch.setattr(EventLoop, "call", lambda loop, function: calls.append(function) or call(loop, function))

    with client.stream("gpt-5", "?") as stream:
        assert 3000 <= len(list(stream))

    assert len(calls) < 600


def test_error_after_the_events(client, neuralbox_server):
    """A stream that is cut yields the events that arrived, then raises each time."""
    neuralbox_server.cut(after_events=3)
    delivered = []

    with client.stream("gpt-5", "one two", recover=False) as stream:
        with pytest.raises(StreamInterruptedError) as caught:
            delivered.extend(stream)
        with pytest.raises(StreamInterruptedError):
            next(stream)

    assert [GenerationStart, ContentDelta, ContentDelta] == [type(event) for event in delivered]
    assert "You said: " == caught.value.text


def test_invalid_parameter(client):
    """An invalid parameter raises before anything is opened."""
    with pytest.raises(InvalidParameterError):
        client.stream("gpt-5", "Hi", temperature=9)


def test_not_entered(client):
    """A stream that was not entered cannot be read, but can be closed."""
    stream = client.stream("gpt-5", "Hi")

    with pytest.raises(StreamStateError):
        next(stream)
    stream.close()


@pytest.mark.parametrize("wait_for", ["response", "first_event"])
def test_opened_outside_a_block(client, wait_for):
    """A stream opened outside a block is read as in one; it is opened once, which a second attempt does not disturb."""
    stream = client.stream("gpt-5", "one two").open(wait_for=wait_for)
    with pytest.raises(StreamStateError, match="opened only once"):
        stream.open()

    assert reply_to("one two") == "".join(stream.text_stream)
    assert stream.generation.completed


def test_failure_before_the_first_event(client, neuralbox_server):
    """`open` raises the error of a generation that fails before its first content, and closes the stream."""
    neuralbox_server.error_event(after_events=1)
    stream = client.stream("gpt-5", "one two", recover=False)

    with pytest.raises(StreamInterruptedError):
        stream.open(wait_for="first_event")
    neuralbox_server.wait_until(lambda: not neuralbox_server.in_flight)


@ENDLESS
def test_closed_outside_a_block(client, neuralbox_server):
    """Closing a stream that was opened outside a block closes the connection."""
    client.stream("gpt-5", "?").open(wait_for="first_event").close()

    neuralbox_server.wait_for_disconnect()


@ENDLESS
def test_leaving_early(client, neuralbox_server):
    """Leaving the block closes the connection at once, and the server stops generating."""
    with client.stream("gpt-5", "?") as stream:
        for event in stream:
            if isinstance(event, ContentDelta):
                break

    neuralbox_server.wait_for_disconnect()
    assert len(list(stream)) < 100  # those that had arrived
    assert "incomplete" == stream.generation.status
    assert () == neuralbox_server.billed


@ENDLESS
def test_leaving_by_an_exception(client, neuralbox_server):
    """An exception in the block closes the connection and is raised unchanged."""
    with pytest.raises(ZeroDivisionError), client.stream("gpt-5", "?") as stream:
        next(stream)
        raise ZeroDivisionError

    neuralbox_server.wait_for_disconnect()


@ENDLESS
@pytest.mark.parametrize("iterate", [iter, lambda stream: stream.text_stream])
def test_garbage_collected(client, neuralbox_server, iterate):
    """A stream that is collected in the middle is closed."""
    iterator = iterate(client.stream("gpt-5", "?").__enter__())
    next(iterator)

    del iterator
    gc.collect()

    neuralbox_server.wait_for_disconnect()


@ENDLESS
def test_read_in_another_thread(client):
    """A stream opened in one thread can be read in another."""
    pieces = []
    with client.stream("gpt-5", "?") as stream:
        reader = threading.Thread(target=lambda: pieces.extend(itertools.islice(stream.text_stream, 3)))
        reader.start()
        reader.join()

    assert ["x "] * 3 == pieces


@pytest.mark.parametrize("closed", ["stream", "client"])
def test_closed_by_another_thread(client, neuralbox_server, closed):
    """A waiting reader wakes up when another thread closes the stream or the client."""
    neuralbox_server.stall(after_events=1)
    outcomes = []

    def read():
        try:
            for event in stream:
                outcomes.append(type(event))
        except (StreamStateError, ClientClosedError) as error:
            outcomes.append(type(error))

    with client.stream("gpt-5", "Hi") as stream:
        reader = threading.Thread(target=read)
        reader.start()
        neuralbox_server.wait_until(lambda: outcomes == [GenerationStart])
        time.sleep(0.02)  # by now it waits for the second event
        (stream if closed == "stream" else client).close()
        reader.join(5)

    assert [GenerationStart, StreamStateError if closed == "stream" else ClientClosedError] == outcomes


def test_two_readers(client, neuralbox_server):
    """A second thread that reads while the first one waits gets an error."""
    neuralbox_server.stall(after_events=1)
    with client.stream("gpt-5", "Hi") as stream:
        next(stream)
        reader = threading.Thread(target=lambda: outcomes.append(error_type(stream)))
        outcomes = []
        reader.start()
        with pytest.raises(StreamStateError, match="another"):
            for _ in range(1000):
                time.sleep(0.001)
                if stream._subject._is_reading:
                    next(stream)
        stream.close()
        reader.join(5)

    assert [StreamStateError] == outcomes


def error_type(stream):
    """Return the type of the error that reading *stream* raises."""
    try:
        next(stream)
    except StreamStateError as error:
        return type(error)


@pytest.mark.neuralbox_server(reply=lambda _: itertools.repeat("word " * 200))
def test_slow_reader(start):
    """A slow reader of an endless stream slows the server down instead of filling the memory."""
    pytest.importorskip("psutil")
    script = start("""
        import time, psutil
        from neuralbox_sync import NeuralBox

        memory = lambda: psutil.Process().memory_info().rss
        with NeuralBox() as client, client.stream("gpt-5", "?") as stream:
            for _ in range(500):
                next(stream)
            before = memory()
            time.sleep(0.5)
            for _ in range(500):
                next(stream)
            print(memory() - before < 2 * 1024 * 1024)
    """)

    assert ["True"] == script.end().lines
