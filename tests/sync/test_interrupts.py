"""An interrupt at any step of any blocking call loses nothing that was paid for, and nothing is sent after it."""

import asyncio
import gc
import math
from functools import partial

import pytest
from interrupts import interrupt_at, needs_instructions, settle

from neuralbox_sync import ClientClosedError, NeuralBox, StreamStateError
from neuralbox_sync._loop import EventLoop, _Call

pytestmark = pytest.mark.signals

TEXT = "You said: one two three"
PROMPTS = [f"text {number}" for number in range(6)]
MAX_STEPS = 20  # of those of one call


@pytest.fixture
def client(warm_client):
    return warm_client


@pytest.fixture(params=["one", "two, the second at once", "two, the second while it unwinds"])
def interrupts(request, monkeypatch):
    """How many interrupts there are: a second one arrives while the facade handles the first."""
    abandon, left = _Call.abandon, []

    def interrupted(call, loop):
        if left:
            if left.pop() == "two, the second while it unwinds":
                abandon(call, loop)
            raise KeyboardInterrupt
        abandon(call, loop)

    monkeypatch.setattr(_Call, "abandon", interrupted)

    def interrupt(step, function):
        left[:] = [request.param] if request.param != "one" else []
        interrupted = interrupt_at(step, function)
        left.clear()
        return interrupted

    return interrupt


def steps_of(interrupts, call):
    """Interrupt *call*, a function of no arguments, at up to `MAX_STEPS` of its steps; yield after each interrupt."""
    step, stride = 0, 1
    while interrupts(step, call):
        yield step
        stride = max(stride, step // MAX_STEPS * 2)
        step += stride
    assert step > 5


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.generate("gpt-5", "Hi"),
        lambda client: client.retrieve(client.first),
        lambda client: client.with_options(timeout=5).generate("gpt-5", "Hi"),
    ],
    ids=["generate", "retrieve", "derived client"],
)
def test_calls(client, transport, interrupts, call):
    """Nothing is sent after the interrupt of a call was raised, no task of it is left, and the client works."""
    for _ in steps_of(interrupts, partial(call, client)):
        before = len(transport.sent)
        settle(client)
        assert before == len(transport.sent)
        assert 1 == client._loop.call(count_tasks)
    assert "You said: Hi" == client.generate("gpt-5", "Hi").content


async def count_tasks():
    """Return the number of tasks that do not belong to the loop itself: this one."""
    return len([task for task in asyncio.all_tasks() if "_execute" in task.get_coro().__qualname__])


def test_a_result_that_had_arrived(client, monkeypatch):
    """An interrupt between the end of a call and its return names the generation, which `retrieve` returns."""
    submit = EventLoop._submit_and_wait

    def interrupted(*arguments):
        submit(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(EventLoop, "_submit_and_wait", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        client.generate("gpt-5", "Hi")
    monkeypatch.undo()

    (note,) = caught.value.__notes__
    assert "You said: Hi" == client.retrieve(note.split()[-1]).content


def read_into(items, read):
    """Append the next item to *items*."""
    items.append(read())


READS = {
    "iterate": lambda stream: partial(next, stream),
    "text_stream": lambda stream: partial(next, stream.text_stream),
    "get_final_generation": lambda stream: stream.get_final_generation,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("received", [0, 1])
def test_reads_of_a_stream(client, transport, interrupts, read, received):
    """An interrupted read loses no event: the text of the stream is whole, and it was sent once."""
    step = 0
    while True:
        sent = len(transport.sent)
        pieces = []
        with client.stream("gpt-5", "one two three") as stream:
            for _ in range(received):
                next(stream)
            interrupted = interrupts(step, partial(read_into, pieces, read(stream)))
            if read is READS["get_final_generation"]:
                assert TEXT == stream.get_final_generation().content
            else:
                pieces = [getattr(piece, "delta", piece) for piece in pieces]
                texts = [piece for piece in pieces if isinstance(piece, str)]
                assert TEXT == "".join([*texts, *stream.text_stream])
            assert stream.generation.completed
        assert sent + 1 == len(transport.sent)
        if not interrupted:
            break
        step += 1 + step // MAX_STEPS * 2
    assert step > 1 or received  # events that arrived together are there without a call


def test_reads_of_a_batch(client, transport, interrupts):
    """An interrupted read loses no result, no result comes twice, and each request is sent once."""
    step = 0
    while True:
        transport.sent.clear()
        results, interrupted = [], False
        with client.generate_many(PROMPTS, model="gpt-5", max_concurrency=2) as batch:
            for number in range(len(PROMPTS)):
                interrupted |= interrupts(step, partial(read_into, results, partial(next, batch)))
                if len(results) <= number:
                    results.append(next(batch))
            assert [] == list(batch)
        assert [*range(len(PROMPTS))] == sorted(result.index for result in results)
        assert len(PROMPTS) == len(transport.sent)
        if not interrupted:
            break
        step += 1 + step // MAX_STEPS * 4
    assert step > 1


@pytest.mark.parametrize("kind", ["stream", "batch"])
def test_entering(client, transport, interrupts, kind):
    """An interrupted entering leaves nothing open and sends nothing more."""
    step = 0
    while True:
        view = client.stream("gpt-5", "Hi") if kind == "stream" else client.generate_many(PROMPTS[:1], model="gpt-5")
        interrupted = interrupts(step, view.__enter__)
        sent = len(transport.sent)
        settle(client)
        assert sent == len(transport.sent) or not interrupted
        assert 1 == client._loop.call(count_tasks)
        view.close()
        if not interrupted:
            break
        step += 1 + step // MAX_STEPS * 2
    assert step > 5


@pytest.mark.parametrize("leave", ["close", "stop"])
def test_leaving_a_batch(client, transport, interrupts, leave):
    """After an interrupted `close` or `stop`, another one works; the results that arrived can be read."""
    step = 0
    while True:
        with client.generate_many(PROMPTS, model="gpt-5", max_concurrency=2) as batch:
            results = [next(batch)]
            interrupted = interrupts(step, getattr(batch, leave))
            getattr(batch, leave)()
            results.extend(batch)
        sent = len(transport.sent)
        settle(client)
        assert sent == len(transport.sent)
        assert len(results) == batch.report.completed
        if not interrupted:
            break
        step += 1 + step // MAX_STEPS * 4
    assert step > 5


def test_closing_a_stream(client, interrupts):
    """After an interrupted `close` of a stream, another one closes it."""
    step = 0
    while True:
        with client.stream("gpt-5", "Hi") as stream:
            interrupted = interrupts(step, stream.close)
            stream.close()
            with pytest.raises(StreamStateError, match="is closed"):
                list(stream)
        if not interrupted:
            break
        step += 1 + step // MAX_STEPS * 2
    assert step > 5


@needs_instructions
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("again", [True, False])
def test_closing_a_client(neuralbox_server, loop_threads, again):
    """After an interrupted `close` of a client another one ends its thread, as does the collection of the client."""
    threads = set(loop_threads())
    step, interrupted = 0, True
    while interrupted:
        client = NeuralBox(**neuralbox_server.client_options)
        client.generate("gpt-5", "Hi")
        interrupted = interrupt_at(step, client.close)
        if again:
            client.close()
            assert threads == set(loop_threads())
        if client.closed:
            with pytest.raises(ClientClosedError):
                client.generate("gpt-5", "Hi")
        del client
        gc.collect()
        step += 1
    assert step > 2


@needs_instructions
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # for a loop that never ran
def test_the_first_call(make_loop, loop_threads):
    """After an interrupt while the loop starts, the next call starts one, and no thread is left."""
    started = []

    async def work():
        started.append(1)
        return len(started)

    step, interrupted = 0, True
    while interrupted:
        loop = make_loop()
        interrupted = interrupt_at(step, partial(loop.call, work))
        started.clear()
        assert 1 == loop.call(work)
        loop.close()
        del loop
        gc.collect()
        step += 1 + step // MAX_STEPS * 2
    assert step > 20


def test_a_second_interrupt_cancels(loop):
    """A call that runs is cancelled even if a second interrupt arrives before the first could cancel it."""
    ended = []

    async def work():
        try:
            await asyncio.sleep(math.inf)
        finally:
            ended.append(1)

    abandon, calls = _Call.abandon, []

    def interrupted_once(call, loop):
        calls.append(call)
        if len(calls) == 1:
            raise KeyboardInterrupt
        abandon(call, loop)

    def submit(self, call, loop):
        self._inboxes[loop].append(call)
        loop.call_soon_threadsafe(self._drain_inbox, loop)
        while call.task is None:
            pass
        raise KeyboardInterrupt

    async def nothing():
        pass

    loop.call(nothing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Call, "abandon", interrupted_once)
        patch.setattr(EventLoop, "_submit_and_wait", submit)
        with pytest.raises(KeyboardInterrupt):
            loop.call(work)

    assert 2 == len(calls)
    loop.call(nothing)
    assert ended in ([], [1])
    assert calls[0].done
