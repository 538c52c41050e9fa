"""A call whose caller is interrupted between the making of its task and its first step never begins."""

import asyncio
import signal
import threading

import pytest
from interrupts import interrupted_between_task_and_first_step, settle

from neuralbox_sync import NeuralBox
from neuralbox_sync._stream import BulkIterator, ReadingState

TEXT = "You said: one two three"
PROMPTS = [f"text {number}" for number in range(6)]

pytestmark = [pytest.mark.neuralbox_server(pending_models=["slow"], pending_seconds=0), pytest.mark.signals]


@pytest.fixture
def client(warm_client):
    return warm_client


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.generate("gpt-5", "Hi"),
        lambda client: client.generate("slow", "Hi", wait=True),
        lambda client: client.retrieve("gen_1"),
        lambda client: client.wait("gen_1"),
    ],
    ids=["generate", "generate and wait", "retrieve", "wait"],
)
def test_a_call_that_has_not_begun(client, transport, monkeypatch, call):
    """A call that is interrupted between the making of its task and its first step never begins: nothing is sent."""
    with pytest.raises(KeyboardInterrupt), interrupted_between_task_and_first_step(monkeypatch):
        call(client)
    settle(client)

    assert [] == transport.sent
    assert "You said: Hi" == client.generate("gpt-5", "Hi").content


def test_entering_a_stream(client, transport, monkeypatch):
    """A stream whose entering is interrupted before it begins was not sent, and can be entered."""
    stream = client.stream("gpt-5", "one two three")
    with pytest.raises(KeyboardInterrupt), interrupted_between_task_and_first_step(monkeypatch):
        stream.__enter__()
    settle(client)

    assert [] == transport.sent
    with stream:
        assert TEXT == "".join(stream.text_stream)


def test_entering_a_batch(client, transport, monkeypatch):
    """A batch whose entering is interrupted before it begins was not sent, and can be entered."""
    batch = client.generate_many(PROMPTS, model="gpt-5")
    with pytest.raises(KeyboardInterrupt), interrupted_between_task_and_first_step(monkeypatch):
        batch.__enter__()
    settle(client)

    assert [] == transport.sent
    with batch:
        assert len(PROMPTS) == len(list(batch))


@pytest.mark.parametrize("read", [next, lambda stream: next(stream.text_stream), lambda s: s.get_final_generation()])
def test_reading_a_stream(client, monkeypatch, read):
    """A read that is interrupted before it begins takes nothing; the next read continues."""
    with client.stream("gpt-5", "one two three") as stream:
        with pytest.raises(KeyboardInterrupt), interrupted_between_task_and_first_step(monkeypatch):
            read(stream)

        assert TEXT == "".join(stream.text_stream)
        assert TEXT == stream.get_final_generation().content


def test_reading_a_batch(client, monkeypatch):
    """The same for a batch, at each of its reads."""
    results = []
    with client.generate_many(PROMPTS, model="gpt-5", max_concurrency=2) as batch:
        while len(results) < len(PROMPTS):
            results.append(next(batch))
            results.extend(next(batch) for _ in range(len(batch._items)))
            with pytest.raises(KeyboardInterrupt), interrupted_between_task_and_first_step(monkeypatch):
                next(batch)
        assert [] == list(batch)

    assert [*range(len(PROMPTS))] == sorted(result.index for result in results)


def test_the_last_items_of_an_interrupted_read():
    """A read that finds the end returns the items that an interrupted read has received meanwhile."""

    class Subject:
        async def read_batch(self):
            view._items.extend(interrupted_read)
            interrupted_read.clear()
            return []

    class Loop:
        call = staticmethod(asyncio.run)

    interrupted_read = [1, 2]
    loop = Loop()
    loop.call = lambda function: asyncio.run(function())
    view = BulkIterator(Subject(), loop, None)
    view._state = ReadingState.ENTERED

    assert [1, 2] == list(view)


def test_in_a_key_function(neuralbox_server, transport):
    """A call that is interrupted in a key function, which holds up the loop, is not sent when that returns."""
    calls, resume = [], threading.Event()

    def key():
        calls.append(1)
        if len(calls) > 1:
            resume.wait(10)
        return neuralbox_server.api_key

    def interrupt(*_):
        if len(calls) > 1:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    options = {**neuralbox_server.client_options, "api_key": key}
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with NeuralBox(**options, transport=transport) as client:
            client.generate("gpt-5", "warm up")
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            with pytest.raises(KeyboardInterrupt):
                client.generate("gpt-5", "Hi")
            resume.set()
            settle(client)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        resume.set()

    assert ["POST"] == transport.sent
