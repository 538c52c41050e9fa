"""Observers that are made or behave wrongly change nothing of a call, and see no key."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from stream_bodies import START, WHOLE, delta, sse, stream_of
from transports import FunctionTransport, completed

from neuralbox_async import (
    AsyncNeuralBox,
    AttemptStarted,
    BatchEnded,
    BatchItemEnded,
    BatchItemStarted,
    BatchStarted,
    CallEnded,
    CallStarted,
    ContentReceived,
    InvalidParameterError,
    ResponseReceived,
    RetryScheduled,
)
from neuralbox_async.testing import FakeResponse, FakeTransport
from neuralbox_sync import NeuralBox

KEY = "nb_canary_key_that_must_not_be_seen_7f3a"
REPLY = {"id": "gen_1", "status": "completed", "model": "gpt-5", "content": "Hello", "tokens_used": 3}
BUSY = FakeResponse(b'{"error":{"code":"provider_error"}}', status_code=500)


class Recorder:
    """An observer that keeps the events."""

    def __init__(self):
        self.events = []

    def observe(self, event):
        self.events.append(event)


class Raising:
    """An observer that raises *error* at each event of the type *at*."""

    def __init__(self, error, at=object):
        self._error, self._at, self.raised = error, at, 0

    def observe(self, event):
        if isinstance(event, self._at):
            self.raised += 1
            raise self._error


class Asynchronous:
    """No observer: nobody would await it."""

    async def observe(self, event):
        pass


class OwnError(BaseException):
    """An exception that no `except Exception` catches."""


# --------------------------------------------------------------------------------------------------- which are accepted


async def test_observers_of_any_iterable(make_client):
    """The observers may come from a generator."""
    recorder = Recorder()
    await make_client(FakeTransport(REPLY), observers=(one for one in [recorder])).generate("gpt-5", "Hi")

    assert 4 == len(recorder.events)


async def test_observer_twice(make_client):
    """An observer that is in the list twice gets each event once."""
    recorder = Recorder()
    await make_client(FakeTransport(REPLY), observers=[recorder, recorder]).generate("gpt-5", "Hi")

    assert 4 == len(recorder.events)


@pytest.mark.parametrize("observer", [Asynchronous(), Recorder])
def test_observers_that_cannot_work(observer):
    """A coroutine function would never run, and a class is no observer: both are refused."""
    with pytest.raises(InvalidParameterError, match="observers must be"):
        AsyncNeuralBox(KEY, observers=[observer])


# ------------------------------------------------------------------------------------------------------- which raise


@pytest.mark.parametrize("error", [RuntimeError(), OwnError(), asyncio.CancelledError(), GeneratorExit()], ids=repr)
@pytest.mark.parametrize("at", [CallStarted, AttemptStarted, ResponseReceived, RetryScheduled, CallEnded])
async def test_call(make_client, at, error, caplog):
    """Whatever an observer raises, at whichever event: the call has its result, and the log a line."""
    observer = Raising(error, at)
    client = make_client(FakeTransport(BUSY, REPLY), max_retries=1, observers=[observer])
    generation = await client.generate("gpt-5", "Hi")

    assert ("Hello", 1) == (generation.content, client.usage.calls)
    assert observer.raised >= 1
    assert "the observer Raising raised an exception" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError(), OwnError(), asyncio.CancelledError(), GeneratorExit()], ids=repr)
async def test_stream(make_client, error):
    """A stream is read to its end, whatever an observer raises."""
    observer = Raising(error)
    async with make_client(FakeTransport(stream_of(WHOLE)), observers=[observer]).stream("gpt-5", "Hi") as stream:
        assert "Hello, world" == (await stream.get_final_generation()).content

    assert observer.raised == 5


@pytest.mark.parametrize("error", [RuntimeError(), OwnError(), asyncio.CancelledError(), GeneratorExit()], ids=repr)
@pytest.mark.parametrize("at", [BatchStarted, BatchItemStarted, CallEnded, BatchItemEnded, BatchEnded])
async def test_batch(make_client, at, error):
    """A batch has all its results, whatever an observer raises."""
    observer = Raising(error, at)
    client = make_client(FunctionTransport(completed), observers=[observer])
    async with client.generate_many(["a", "b"], model="gpt-5") as results:
        assert 2 == len([result.unwrap() async for result in results])

    assert observer.raised >= 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()], ids=repr)
def test_exceptions_of_signals(error):
    """Those that end the process pass in the main thread, where signals raise them; in others they are logged."""
    observers = [Raising(error)]

    def generate():
        with NeuralBox(KEY, transport=FakeTransport(REPLY), observers=observers) as client:
            return client.generate("gpt-5", "Hi").content

    async def generate_here():
        await AsyncNeuralBox(KEY, transport=FakeTransport(REPLY), observers=observers).generate("gpt-5", "Hi")

    with ThreadPoolExecutor(1) as executor:
        assert "Hello" == executor.submit(generate).result(60)
    assert "Hello" == generate()  # it observes in the thread of its loop
    with pytest.raises(type(error)):
        asyncio.run(generate_here())


async def test_wants_content_that_raises(make_client):
    """An attribute *wants_content* that raises loses no text of a stream."""

    class Undecided(Recorder):
        @property
        def wants_content(self):
            raise OwnError

    client = make_client(FakeTransport(stream_of(WHOLE), REPLY), observers=[Undecided()])
    async with client.stream("gpt-5", "Hi") as stream:
        assert "Hello, world" == (await stream.get_final_generation()).content
    assert "Hello" == (await client.generate("gpt-5", "Hi")).content


# ------------------------------------------------------------------------------------------------------ what they see


@pytest.mark.parametrize("wants_content", [False, True])
async def test_key_in_a_response(make_client, wants_content):
    """A key that the server echoes in any member of a response is in no event."""
    recorder = Recorder()
    recorder.wants_content = wants_content
    echo = {"id": KEY, "status": KEY, "model": f"of {KEY}", "content": KEY}
    echoed = stream_of(sse({**START, "id": KEY, "model": KEY}, delta(f"my {KEY}")), WHOLE)
    refusal = FakeResponse(b'{"error":{"code":"%b"}}' % KEY.encode(), status_code=400)
    whole = {**echo, "status": "completed"}
    client = make_client(FakeTransport(whole, echo, whole, echoed, refusal), observers=[recorder])
    await client.generate("gpt-5", "Hi")
    await client.retrieve((await client.generate("gpt-5", "Hi")).id)
    async with client.stream("gpt-5", "Hi") as stream:
        await stream.get_final_generation()
    with pytest.raises(Exception, match=r"400|\*\*\*"):
        await client.generate("gpt-5", "Hi")
    ends = [event for event in recorder.events if isinstance(event, CallEnded)]

    assert ["completed", "pending", "completed", "completed", "failed"] == [event.outcome for event in ends]
    assert "***" == ends[0].generation_id
    assert KEY not in repr((recorder.events, [(event.content, event.error) for event in ends]))


async def test_empty_deltas(make_client):
    """A delta without text is a heartbeat, and no content."""
    recorder = Recorder()
    transport = FakeTransport(stream_of(sse(START, delta("")), sse(delta("")), WHOLE))
    async with make_client(transport, observers=[recorder]).stream("gpt-5", "Hi") as stream:
        await stream.get_final_generation()

    assert [1] == [event.number for event in recorder.events if isinstance(event, ContentReceived)]


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_collection_of_a_stream(make_client, where):
    """
    The end of a stream that is collected is never observed inside of the collection.

    That may run while the same thread observes something else, and holds a lock for it.
    """
    lock = threading.Lock()
    outcomes, reentered = [], []

    class Locking:
        def observe(self, event):
            if not lock.acquire(blocking=False):
                reentered.append(event)
                return
            try:
                if isinstance(event, CallStarted) and event.call.operation == "generate":
                    gc.collect()
                elif isinstance(event, CallEnded):
                    outcomes.append((event.call.operation, event.outcome))
            finally:
                lock.release()

    client = make_client(FakeTransport(stream_of(sse(START, delta("Hello")), ...), REPLY), observers=[Locking()])
    stream = client.stream("gpt-5", "Hi")
    await stream.__aenter__()
    stream.cycle = stream
    del stream
    if where == "loop":
        await client.generate("gpt-5", "Hi")
    else:
        await anyio.to_thread.run_sync(gc.collect)
    with anyio.fail_after(30):
        while ("stream", "closed") not in outcomes:
            await anyio.sleep(0.001)

    assert [] == reentered
    assert 1 == client.usage.unknown


@pytest.mark.parametrize("loop", ["closed", "elsewhere"])
def test_collection_outside_the_loop(loop, caplog):
    """A stream that is collected where its loop does not run ends as well, and so does its line in the log."""
    caplog.set_level(logging.DEBUG)
    ended = threading.Event()
    outcomes = []

    class Ends:
        def observe(self, event):
            if isinstance(event, CallEnded):
                outcomes.append((event.outcome, event.elapsed >= 0))
                ended.set()

    options = {"transport": FakeTransport(stream_of(sse(START, delta("Hello")), ...)), "observers": [Ends()]}

    async def open_stream():
        client = AsyncNeuralBox(KEY, **options)
        return client, await client.stream("gpt-5", "Hi").open()

    if loop == "closed":
        client, stream = asyncio.run(open_stream())
    else:
        client = NeuralBox(KEY, **options)
        stream = client.stream("gpt-5", "Hi")
        stream.__enter__()
    del stream
    gc.collect()

    assert ended.wait(30)
    assert ([("closed", True)], 1) == (outcomes, client.usage.unknown)
    assert "closed in " in caplog.text
    if loop == "elsewhere":
        client.close()


async def test_call_that_is_collected(make_client):
    """A call whose coroutine the collector closes is observed when that is over."""
    collecting, observed = [], []

    class Ends:
        def observe(self, event):
            if isinstance(event, CallEnded):
                observed.append((event.outcome, event.billed, bool(collecting)))

    def close(_request):
        raise GeneratorExit

    client = make_client(FunctionTransport(close), observers=[Ends()])
    collecting.append(True)
    with pytest.raises(GeneratorExit):
        await client.generate("gpt-5", "Hi")
    collecting.clear()
    with anyio.fail_after(30):
        while not observed:
            await anyio.sleep(0.001)

    assert [("cancelled", "unknown", False)] == observed
    assert 1 == client.usage.calls


def test_batch_that_is_collected():
    """A batch that is collected after its loop was closed ends, in a thread where nothing is collected."""
    ended, threads = threading.Event(), []

    class Ends:
        def observe(self, event):
            if isinstance(event, BatchEnded):
                threads.append(threading.get_ident())
                ended.set()

    async def begin():
        client = AsyncNeuralBox(KEY, transport=FakeTransport(FakeResponse(...)), observers=[Ends()])
        return await client.generate_many(["a"], model="gpt-5", budget=None).__aenter__()

    loop = asyncio.new_event_loop()
    batch = loop.run_until_complete(begin())
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine that never began
        del batch, loop
        gc.collect()

    assert ended.wait(30)
    assert threading.get_ident() not in threads
