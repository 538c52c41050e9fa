"""A call, a read or a closing that is interrupted at each of its steps: the server's ledger shows what was sent."""

import functools
import gc

import pytest
from interrupts import count_steps, interrupt_at, settle

from neuralbox_async import AsyncBatch
from neuralbox_async._call import polling
from neuralbox_sync._stream import ReadingState

COUNT = 5  # of the requests of a batch
SAMPLES = 12  # of the steps of one call; with the marker `slow`, all

pytestmark = pytest.mark.neuralbox_server(pending_models=["slow"], pending_seconds=0)


@pytest.fixture(params=["some steps", pytest.param("every step", marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def stride(request):
    """Return a function of a step and the number of steps: how far the next interrupt is."""
    if request.param == "every step":
        return lambda _steps: 1
    return lambda steps: max(1, steps // SAMPLES)


@pytest.fixture
def client(warm_client, monkeypatch):
    monkeypatch.setitem(polling.wait.__kwdefaults__, "default_interval", 0.01)
    return warm_client


def each_step(stride, prepare, *others):
    """
    Call the function that *prepare* returns, and interrupt it; once for each step. Yield after each interrupt.

    *prepare* returns a new one for each call. *others*: see `interrupt_at`.
    """
    steps = count_steps(prepare(), *others)
    assert steps > 5
    for step in range(0, steps, stride(steps)):
        function = prepare()
        if interrupt_at(step, function, *others):
            yield step


CALLS = {
    "generate": lambda client: client.generate("gpt-5", "Hi"),
    "generate and wait": lambda client: client.generate("slow", "Hi", wait=True),
    "wait": lambda client: client.wait(client.first.id, poll_interval=0.01),
    "wait for a generation": lambda client: client.wait(client.pending, poll_interval=0.01),
    "retrieve": lambda client: client.retrieve(client.first),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_calls(client, transport, neuralbox_server, stride, call):
    """After an interrupt nothing is sent any more, a POST was sent once at most, and the client works."""

    def prepare():
        client.pending = client.generate("slow", "Hi")
        transport.sent.clear()
        return functools.partial(call, client)

    for _ in each_step(stride, prepare):
        sent = len(transport.sent)
        settle(client)
        assert sent == len(transport.sent)
        assert transport.sent.count("POST") <= ("generate" in call.__code__.co_names)
        assert "You said: Hi" == client.retrieve(client.first).content
    assert_nothing_else_was_sent(neuralbox_server, transport)


def assert_nothing_else_was_sent(server, transport):
    """Check that the server has no request that the client has not sent: each has an idempotency key of its own."""
    keys = [billed.idempotency_key for billed in server.billed]
    assert len(keys) == len(set(keys))
    assert transport.total >= len(server.requests)


READS = {
    "iterate": lambda stream, pieces: pieces.extend(stream),
    "text_stream": lambda stream, pieces: read_all(stream.text_stream, pieces),
    "get_final_generation": lambda stream, pieces: pieces.append(stream.get_final_generation().content),
}


def read_all(iterator, items):
    """Append all items of *iterator* to *items*, as a `for` loop does."""
    items.extend(iterator)


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reading_a_stream(client, transport, neuralbox_server, stride, read):
    """An interrupted stream goes on where it was: its text is whole, and it was sent and billed once."""
    views, pieces = [], []

    def prepare():
        close_all(views)
        pieces.clear()
        views.append(client.stream("gpt-5", "one two three").__enter__())
        transport.sent.clear()
        return functools.partial(read, views[0], pieces)

    for _ in each_step(stride, prepare):
        if read is READS["get_final_generation"]:
            assert "You said: one two three" == views[0].get_final_generation().content
        else:
            rest = views[0].text_stream if read is READS["text_stream"] else views[0]
            if views[0]._state is ReadingState.ENDED:  # the interrupt came when nothing was left but to end the loop
                rest = []
            texts = [getattr(piece, "delta", piece) for piece in [*pieces, *rest]]
            assert "You said: one two three" == "".join(text for text in texts if isinstance(text, str))
        assert [] == transport.sent
    close_all(views)
    assert_nothing_else_was_sent(neuralbox_server, transport)


def close_all(views):
    """Close the streams or batches in *views*, and empty it."""
    for view in views:
        view.close()
    views.clear()


def prompts(count=COUNT):
    """Yield prompts."""
    for number in range(count):
        yield f"text {number}"


class Prompts:
    """An iterator of prompts that an interrupt does not end, as a database cursor."""

    def __init__(self):
        self._numbers = iter(range(COUNT))

    def __iter__(self):
        return self

    def __next__(self):
        return f"text {next(self._numbers)}"


SOURCES = {
    "list": lambda: [*prompts()],
    "functions of C": lambda: map("text {}".format, range(COUNT)),
    "class": Prompts,
}


@pytest.mark.parametrize("with_progress", [False, True], ids=["", "on_progress"])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_reading_a_batch(client, neuralbox_server, stride, source, with_progress):
    """An interrupted batch goes on: each request has one result, and is sent and billed once."""
    views, results = [], []
    progress = (lambda _progress: None) if with_progress else None

    def prepare():
        nonlocal billed
        close_all(views)
        results.clear()
        billed = len(neuralbox_server.billed)
        batch = client.generate_many(source(), model="gpt-5", max_concurrency=2, on_progress=progress)
        views.append(batch.__enter__())
        return functools.partial(read_all, batch, results)

    billed = 0
    others = [progress] if progress else []
    for _ in each_step(stride, prepare, *others):
        read_all(views[0], results)
        assert [*range(COUNT)] == sorted(result.index for result in results)
        assert {f"You said: text {number}" for number in range(COUNT)} == {r.generation.content for r in results}
        assert billed + COUNT == len(neuralbox_server.billed) == billed + views[0].report.completed
    close_all(views)


def test_a_generator_that_is_interrupted(client, neuralbox_server, stride):
    """An interrupt ends a generator: that is an error after the last result, not the end of the batch."""
    views, results = [], []

    def prepare():
        nonlocal billed
        close_all(views)
        results.clear()
        billed = len(neuralbox_server.billed)
        views.append(client.generate_many(prompts(), model="gpt-5", max_concurrency=2).__enter__())
        return functools.partial(read_all, views[0], results)

    billed = 0
    for _ in each_step(stride, prepare, prompts):
        try:
            read_all(views[0], results)
        except RuntimeError as error:
            assert "ended after an interrupt" in str(error)
        else:
            assert COUNT == len(results)
        assert len({result.index for result in results}) == len(results)
        assert billed + len(results) == len(neuralbox_server.billed)
    close_all(views)


def test_an_interrupt_in_the_iterator(client, neuralbox_server):
    """It is raised at once; then all results of what was read can be read, and a generator's early end is an error."""

    def interrupted():
        yield from prompts(3)
        raise KeyboardInterrupt

    with client.generate_many(interrupted(), model="gpt-5") as batch:
        results = []
        with pytest.raises(KeyboardInterrupt):
            read_all(batch, results)
        with pytest.raises(RuntimeError, match="ended after an interrupt"):
            read_all(batch, results)
    assert 3 == len(results) == len(neuralbox_server.billed) - 1


def test_an_iterator_that_survives(client):
    """An iterator that an interrupt does not end is read on."""

    class Interrupted(Prompts):
        def __next__(self):
            if not interrupts and (number := next(self._numbers)) == 3:
                interrupts.append(number)
                raise KeyboardInterrupt
            return f"text {number if not interrupts else next(self._numbers)}"

    interrupts, results = [], []
    with client.generate_many(Interrupted(), model="gpt-5") as batch:
        with pytest.raises(KeyboardInterrupt):
            read_all(batch, results)
        read_all(batch, results)
    assert [*range(COUNT - 1)] == sorted(result.index for result in results)


def make_view(client, kind):
    """Return a stream, or a batch with a list or a generator, that was read from."""
    if kind == "stream":
        view = client.stream("gpt-5", "one two three")
    else:
        requests = prompts(100)
        view = client.generate_many([*requests] if kind == "list" else requests, model="gpt-5", max_concurrency=2)
    next(view.__enter__())
    return view


def test_results_before_an_error(client, monkeypatch):
    """Results that an interrupted read got when the next one had begun are read before the error of that one."""

    async def fails():  # on the loop: the thread that reads is not needed for it
        for prompt in prompts():
            yield prompt
        raise ZeroDivisionError

    fill = AsyncBatch.read_batch

    async def with_interrupted_read(batch):
        while results := await fill(batch):
            views[0]._items.extend(results)  # as if its caller had not waited for it
        return results

    views, results = [client.generate_many(fails(), model="gpt-5")], []
    monkeypatch.setattr(AsyncBatch, "read_batch", with_interrupted_read)
    with views[0], pytest.raises(ZeroDivisionError):
        read_all(views[0], results)
    assert [*range(COUNT)] == sorted(result.index for result in results)


@pytest.mark.parametrize("kind", ["stream", "list", "generator"])
def test_closing(client, transport, neuralbox_server, stride, kind):
    """After an interrupted `close`, another one closes; nothing more is sent, and what had arrived can be read."""
    views = []

    def prepare():
        close_all(views)
        views.append(make_view(client, kind))
        return views[0].close

    for _ in each_step(stride, prepare):
        (view,) = views
        view.close()
        sent = len(transport.sent)
        rest = len(list(view))
        assert kind == "stream" or rest + 1 == view.report.completed
        settle(client)
        assert sent == len(transport.sent)
    close_all(views)
    assert_nothing_else_was_sent(neuralbox_server, transport)


@pytest.mark.parametrize("kind", ["stream", "list", "generator"])
def test_leaving_the_block(client, transport, neuralbox_server, stride, kind):
    """After an interrupt while a `with` block is left, nothing more is sent once the object is dropped."""
    views = []

    def prepare():
        views[:] = [make_view(client, kind)]
        return functools.partial(views[0].__exit__, None, None, None)

    for _ in each_step(stride, prepare):
        views.clear()
        gc.collect()  # the interrupt's traceback may hold it in a cycle
        for _ in range(3):  # what was on its way may still be sent
            settle(client)
        sent = len(transport.sent)
        settle(client)
        assert sent == len(transport.sent)
    views.clear()
    assert_nothing_else_was_sent(neuralbox_server, transport)
