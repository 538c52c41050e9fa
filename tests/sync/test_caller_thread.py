"""The user's code of a blocking batch (its iterator, its functions) runs in the thread that reads the results."""

import itertools
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from neuralbox_sync import AsyncNeuralBox, BatchStateError, InvalidParameterError, NeuralBox

COUNT = 40


def contents(results):
    """Return the texts of *results*."""
    return [result.generation.content for result in results]


@pytest.fixture
def connection():
    """Return a database of SQLite, which refuses other threads."""
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE texts (prompt)")
        database.executemany("INSERT INTO texts VALUES (?)", [(f"text {number}",) for number in range(COUNT)])
        yield database
    database.close()


@pytest.fixture(params=["general", "asyncio debug mode"])
def any_client(request, neuralbox_server, monkeypatch):
    """Return a client, whose loop may be in debug mode: that refuses calls from a wrong thread."""
    if request.param != "general":
        monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    with NeuralBox(**neuralbox_server.client_options) as client:
        yield client


def test_a_database_cursor(any_client, connection):
    """A cursor, which may be used in the thread of its connection only, is a source of requests."""
    prompts = (prompt for (prompt,) in connection.execute("SELECT prompt FROM texts"))
    with any_client.generate_many(prompts, model="gpt-5", max_concurrency=4, ordered=True) as results:
        assert [f"You said: text {number}" for number in range(COUNT)] == contents(results)
        assert COUNT == results.report.completed == results.progress.total


def test_rows_as_requests(client, connection):
    """The cursor itself, with rows as dicts, is one too: it is read as an iterator, and not closed."""
    connection.row_factory = lambda cursor, row: {"prompt": row[0]}
    cursor = connection.execute("SELECT prompt FROM texts")
    with client.generate_many(itertools.islice(cursor, 3), model="gpt-5") as results:
        assert 3 == len(list(results))

    assert "text " == next(cursor)["prompt"][:5]


@pytest.mark.process
def test_django(neuralbox_server, tmp_path):
    """A queryset of Django, also as an iterator, is a source of requests, and on_progress may use the database."""
    pytest.importorskip("django")
    script = f"""
import django
from django.conf import settings

databases = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {str(tmp_path / "texts")!r}}}}}
settings.configure(DATABASES=databases, INSTALLED_APPS=[])
django.setup()

from django.db import connection, models
from neuralbox_sync import NeuralBox

class Text(models.Model):
    prompt, reply = models.TextField(), models.TextField(default="")

    class Meta:
        app_label = "texts"

with connection.schema_editor() as editor:
    editor.create_model(Text)
Text.objects.bulk_create(Text(prompt=f"text {{number}}") for number in range({COUNT}))

counts = []

def show(progress):
    counts.append(Text.objects.exclude(reply="").count())

queryset = Text.objects.order_by("id")
requests = ({{"key": str(text.id), "prompt": text.prompt}} for text in queryset.iterator(chunk_size=7))
with NeuralBox() as client, client.generate_many(requests, model="gpt-5", on_progress=show) as results:
    for result in results:
        Text.objects.filter(id=result.key).update(reply=result.generation.content)
with NeuralBox() as client, client.generate_many(queryset.values("prompt"), model="gpt-5") as results:
    assert {COUNT} == len(list(results)) == results.progress.total
assert counts
print(Text.objects.get(prompt="text 7").reply)
"""
    environment = {
        "NEURALBOX_API_KEY": neuralbox_server.api_key,
        "NEURALBOX_BASE_URL": neuralbox_server.base_url,
        "PYTHONPATH": ":".join(filter(None, sys.path)),
    }
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)

    assert ("", "You said: text 7\n") == (done.stderr, done.stdout)


def test_an_iterator_that_calls_the_client(client, neuralbox_server):
    """The iterator may call the client, and read another batch of it: a pipeline of two stages on one client."""

    def second_stage():
        yield client.generate("gpt-5", "one").content
        with client.generate_many(iter(["two", "three"]), model="gpt-5", ordered=True) as first_stage:
            yield from contents(first_stage)

    with client.generate_many(second_stage(), model="gpt-5", ordered=True) as results:
        assert [f"You said: You said: {text}" for text in ["one", "two", "three"]] == contents(results)
    assert 6 == len(neuralbox_server.billed)


def test_a_slow_iterator(client):
    """While an iterator takes its time, other threads make calls; results are returned after the item it makes."""
    waits, resume = threading.Event(), threading.Event()

    def prompts():
        yield "first"
        waits.set()
        resume.wait(30)
        yield "second"

    def call():
        waits.wait(30)
        replies.append(client.generate("gpt-5", "Hi", timeout=20).content)
        resume.set()

    replies, thread = [], threading.Thread(target=call)
    thread.start()
    with client.generate_many(prompts(), model="gpt-5") as results:
        assert ["You said: first", "You said: second"] == sorted(contents(results))
    thread.join()
    assert ["You said: Hi"] == replies


def test_a_result_before_the_next_item(client, neuralbox_server):
    """A result that is ready is returned before more items are read than the one that is being read."""
    taken = []

    def prompts():
        for number in range(10):
            taken.append(number)
            if number:
                neuralbox_server.wait_until(lambda count=number: len(neuralbox_server.billed) >= count)
                time.sleep(0.05)
            yield f"text {number}"

    with client.generate_many(prompts(), model="gpt-5") as results:
        next(results)
        assert len(taken) < 10
        assert 9 == len(list(results))


def test_read_ahead(client, neuralbox_server):
    """While the reader does other things, as many requests as before are in flight; few items are read ahead."""
    taken = []

    def prompts():
        for number in itertools.count():
            taken.append(number)
            yield f"text {number}"

    neuralbox_server.delay(3, times=100)  # seconds: the requests after the first ones are in flight for so long
    with client.generate_many(prompts(), model="gpt-5", max_concurrency=3) as results:
        next(results)
        next(results)
        neuralbox_server.wait_until(lambda: neuralbox_server.in_flight == 3)
        assert len(taken) <= 2 + 2 * 3 + 3  # results were read; in flight or ready; read ahead


def test_an_endless_iterator(client):
    """However many items there are, only those that fit ahead of the results are read."""
    read, ahead = itertools.count(), 0
    with client.generate_many((f"text {number}" for number in read), model="gpt-5", max_concurrency=2) as results:
        for number, _ in enumerate(itertools.islice(results, 60), 1):
            ahead = max(ahead, int(repr(read)[6:-1]) - number)
    assert 2 <= ahead <= 8


@pytest.mark.parametrize("source", ["iterator", "on_progress", "on_unknown"])
def test_an_error_of_the_users_code(client, tmp_path, neuralbox_server, source):
    """An error of the iterator or of a function is raised after the last result."""
    journal = tmp_path / "run.jsonl"
    if source == "on_unknown":
        make_unknown(client, neuralbox_server, journal)

    def fail(*_):
        raise ZeroDivisionError(source)

    def prompts():
        yield from ("one", "two", "unknown" if source == "on_unknown" else "three")
        if source == "iterator":
            fail()

    functions = {} if source == "iterator" else {source: fail}
    with client.generate_many(prompts(), model="gpt-5", journal=journal, **functions) as results:
        read = []
        with pytest.raises(ZeroDivisionError, match=source):
            read.extend(next(results) for _ in itertools.count())
        if source == "iterator":
            with pytest.raises(ZeroDivisionError):
                next(results)
    assert len(read) == len(neuralbox_server.billed) == results.report.completed
    if source != "on_progress":
        assert len(read) == (2 if source == "on_unknown" else 3)


def test_the_results_before_an_error(client):
    """All results of the items before the error are read first."""

    def prompts():
        yield from ["one", "two", "three"]
        raise ZeroDivisionError

    read = []
    with (
        pytest.raises(ZeroDivisionError),
        client.generate_many(prompts(), model="gpt-5", max_concurrency=1) as results,
    ):
        for result in results:
            read.append(result)  # noqa: PERF402 - the error comes after it
    assert 3 == len(read)


def make_unknown(client, server, journal):
    """Make a journal with a request whose outcome is unknown."""
    server.delay(30)
    with client.generate_many(["unknown"], model="gpt-5", journal=journal):
        server.wait_until(lambda: server.in_flight == 1)


@pytest.mark.parametrize("decision", [True, False])
def test_functions(client, neuralbox_server, tmp_path, decision):
    """on_progress and on_unknown run in the thread that reads, and may call the client."""
    journal, threads = tmp_path / "run.jsonl", set()
    make_unknown(client, neuralbox_server, journal)

    def here(value):
        threads.add(threading.current_thread())
        client.generate("gpt-5", "Hi")
        return decision

    progress = []

    def show(value):
        here(value)
        progress.append(value)

    options = {"model": "gpt-5", "journal": journal, "on_unknown": here, "on_progress": show}
    for requests in (["unknown", "other"], iter(["another"])):
        with client.generate_many(requests, **options) as results:
            outcomes = {result.error is None for result in results}
            assert progress[-1] == results.progress or progress[-1].completed == results.progress.completed
        assert {True, decision} if requests == ["unknown", "other"] else {True} == outcomes
    assert {threading.current_thread()} == threads


def test_progress_while_the_reader_waits(client, neuralbox_server):
    """A reader that waits for a result reports the progress meanwhile."""
    neuralbox_server.delay(1.5)
    progress = []
    with client.generate_many(
        ["one"], model="gpt-5", on_progress=lambda now: progress.append((now, is_read))
    ) as results:
        is_read = False
        next(results)
        is_read = True
    assert any(now.in_flight == 1 and now.elapsed > 0.5 for now, is_read in progress if not is_read)


def test_a_generator_is_closed(client):
    """A generator that was not read to its end is closed in the thread that read it, when the block is left."""
    closed = []

    def prompts():
        try:
            for number in itertools.count():
                yield f"text {number}"
        finally:
            closed.append((threading.current_thread(), client.generate("gpt-5", "Hi").content))

    generator = prompts()
    with client.generate_many(generator, model="gpt-5", max_concurrency=2) as results:
        next(results)
        closer = threading.Thread(target=results.close)
        closer.start()
        closer.join()
        assert [] == closed
    assert [(threading.current_thread(), "You said: Hi")] == closed


@pytest.mark.parametrize("end", ["stop", "close"])
def test_ended_by_another_thread(client, end):
    """A batch that another thread ends, while this one is in the iterator, reads nothing more and returns."""
    waits = threading.Event()

    def prompts():
        for number in itertools.count():
            if number == 5:
                waits.set()
                ended.wait(30)
            yield f"text {number}"

    def end_it():
        waits.wait(30)
        getattr(results, end)()
        ended.set()

    ended, ender = threading.Event(), threading.Thread(target=end_it)
    generator = prompts()
    with client.generate_many(generator, model="gpt-5") as results:
        ender.start()
        count = len(list(results))
    ender.join()
    assert 5 >= count == results.report.completed
    assert generator.gi_frame is None


def test_many_readers(client, neuralbox_server):
    """Several threads may read: one of them at a time is in the iterator, and any of them may leave."""
    inside, most, indices = [], [], []

    def prompts():
        for number in range(200):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.0005)
            inside.pop()
            yield f"text {number}"

    def read(number):
        for result in itertools.islice(results, 3 * number or None):
            indices.append(result.index)

    with client.generate_many(prompts(), model="gpt-5", max_concurrency=4) as results:
        threads = [threading.Thread(target=read, args=[number]) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert [*range(200)] == sorted(indices)
    assert {1} == set(most)
    assert 200 == len(neuralbox_server.billed)


def test_an_iterator_that_reads_its_own_batch(client):
    """An iterator that reads the results of its own batch would wait for itself: an error says so."""

    def prompts():
        yield "one"
        yield next(results).generation.content

    with client.generate_many(prompts(), model="gpt-5") as results, pytest.raises(BatchStateError, match="iterator"):
        list(results)


def test_before_and_after(client):
    """A batch that is not entered, or closed, reads nothing of its iterator."""
    prompts = iter(["one", "two"])
    batch = client.generate_many(prompts, model="gpt-5")
    with pytest.raises(BatchStateError):
        next(batch)
    with batch:
        pass
    assert [] == list(batch)
    assert ["one", "two"] == list(prompts)


@pytest.mark.parametrize("requests", [5, "text", {"prompt": "text"}, None])
def test_wrong_requests(client, requests):
    """What is no iterable of requests is refused as by the async client, with the value itself."""
    with pytest.raises(InvalidParameterError) as caught:
        client.generate_many(requests, model="gpt-5")
    with pytest.raises(InvalidParameterError) as expected:
        AsyncNeuralBox("nb_key").generate_many(requests, model="gpt-5")
    assert str(expected.value) == str(caught.value)


def test_an_async_iterator(client):
    """An async iterator is read on the client's loop: it may wait without delaying the results."""

    async def prompts():
        yield "one"
        yield "two"

    with client.generate_many(prompts(), model="gpt-5", ordered=True) as results:
        assert ["You said: one", "You said: two"] == contents(results)
