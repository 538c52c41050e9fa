"""A function that returns the key of a blocking client runs in the caller's thread, like all of the user's code."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import sqlite3
import threading
import time
import weakref

import pytest

from neuralbox_sync import AuthenticationError, InvalidParameterError, NeuralBox, ParsingError

COUNT = 30


@pytest.fixture
def database(neuralbox_server):
    """Return a database of SQLite with the key, which refuses other threads."""
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE tenants (key)")
        database.execute("INSERT INTO tenants VALUES (?)", [neuralbox_server.api_key])
        yield database
    database.close()


@pytest.fixture
def make(neuralbox_server):
    """Return a function that makes a client with a key function; the clients are closed at the end."""
    clients = []

    def make(api_key, **options):
        clients.append(NeuralBox(api_key, base_url=neuralbox_server.base_url, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def key(database):
    """Return a function that reads the key from the database, and fails in other threads and on a running loop."""

    def key():
        key.calls += 1
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return database.execute("SELECT key FROM tenants").fetchone()[0]

    key.calls = 0
    return key


def test_calls(make, key):
    """Calls and streams read the key in the caller's thread, once for each attempt."""
    client = make(key)
    assert "You said: Hi" == client.generate("gpt-5", "Hi").content
    with client.stream("gpt-5", "Ho") as stream:
        assert "You said: Ho" == "".join(stream.text_stream)
    assert client.get_balance().token_balance
    assert 3 == key.calls
    assert "You said: Hi" == client.with_options(timeout=5).generate("gpt-5", "Hi").content
    assert "You said: Hi" == make("nb_other").with_options(api_key=key).generate("gpt-5", "Hi").content


@pytest.mark.parametrize("source", [list, iter])
def test_batches(make, key, source):
    """A batch reads it in the thread that reads the results."""
    prompts = source([str(number) for number in range(COUNT)])
    with make(key).generate_many(prompts, model="gpt-5", max_concurrency=4) as results:
        assert COUNT == len(list(results)) == results.report.completed
    assert key.calls


def test_a_batch_that_is_read_late(make, key, neuralbox_server):
    """The requests of a batch are sent while the thread does other things, with the key that it had at entering."""
    with make(key).generate_many(["a", "b"], model="gpt-5") as results:
        neuralbox_server.wait_until(lambda: len(neuralbox_server.billed) == 2, timeout=60)
        assert 2 == len(list(results))


def test_a_slow_iterator(make, key, neuralbox_server):
    """While the thread waits in the iterator for the next item, the requests before it are sent."""

    def prompts():
        yield "a"
        neuralbox_server.wait_until(lambda: len(neuralbox_server.billed) == 1, timeout=60)
        yield "b"

    with make(key).generate_many(prompts(), model="gpt-5") as results:
        assert 2 == len(list(results))


@pytest.mark.parametrize("is_awaitable", [False, True], ids=["string", "awaitable"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_slow_iterator_and_more_readers(make, neuralbox_server, count, is_awaitable):
    """The same while another thread waits for results, and if the function returns something to await each time."""

    async def read():
        return neuralbox_server.api_key

    def key():
        return read() if is_awaitable else neuralbox_server.api_key

    def prompts():
        yield "a"
        neuralbox_server.wait_until(lambda: len(neuralbox_server.billed) == 1, timeout=60)
        yield "b"

    results = []
    with make(key).generate_many(prompts(), model="gpt-5") as batch:
        readers = [threading.Thread(target=lambda: results.extend(batch)) for _ in range(count)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(120)
    assert 2 == len(results)


def test_a_function_that_returns_coroutines(make, neuralbox_server):
    """A plain function whose result is awaitable is not called without need: nobody would await that."""
    coroutines = []

    async def read():
        return neuralbox_server.api_key

    def prompts():
        for number in range(3):
            yield str(number)
            time.sleep(1.1)

    with make(lambda: coroutines.append(read()) or coroutines[-1]).generate_many(prompts(), model="gpt-5") as results:
        assert 3 == len(list(results))
    assert {"CORO_CLOSED"} == {inspect.getcoroutinestate(coroutine) for coroutine in coroutines}


def test_a_key_that_changes(make, neuralbox_server):
    """A thread that comes back after a second reads the key again, also when no request waits for it."""
    calls = []

    def key():
        calls.append(threading.get_ident())
        return neuralbox_server.api_key

    def prompts():
        for number in range(3):
            yield str(number)
            time.sleep(1.1)

    with make(key).generate_many(prompts(), model="gpt-5") as results:
        assert 3 == len(list(results))
    assert {threading.get_ident()} == set(calls)
    assert len(calls) >= 3


def test_a_slow_function(make, neuralbox_server):
    """A key function that takes its time delays no call of another thread."""
    entered, leave = threading.Event(), threading.Event()

    def key():
        if threading.current_thread() is not threading.main_thread():
            entered.set()
            leave.wait(60)
        return neuralbox_server.api_key

    client = make(key)
    contents = []
    thread = threading.Thread(target=lambda: contents.append(client.generate("gpt-5", "slow").content))
    thread.start()
    assert entered.wait(60)
    assert "You said: fast" == client.generate("gpt-5", "fast").content
    assert [] == contents
    leave.set()
    thread.join(60)
    assert ["You said: slow"] == contents


async def async_key():
    return "nb_test"


class Key:
    async def __call__(self):
        return "nb_test"


@pytest.mark.parametrize(
    "api_key", [async_key, Key(), functools.partial(async_key)], ids=["function", "object", "partial"]
)
@pytest.mark.neuralbox_server(api_key="nb_test")
def test_async_functions(make, api_key):
    """An async function is awaited on the loop, one that returns an awaitable as well; each result is awaited once."""
    client = make(api_key)
    assert "You said: Hi" == client.generate("gpt-5", "Hi").content
    with client.generate_many(map(str, range(COUNT)), model="gpt-5", max_concurrency=4) as results:
        assert COUNT == len([result.unwrap() for result in results])


@pytest.mark.parametrize("value, error", [(5, InvalidParameterError), ("wrong", AuthenticationError)])
def test_wrong_keys(make, value, error):
    """What the function returns is checked as before; a wrong one ends a batch with one error."""
    client = make(lambda: value)
    with pytest.raises(error):
        client.generate("gpt-5", "Hi")
    if error is InvalidParameterError:
        with pytest.raises(error), client.generate_many(["a", "b"], model="gpt-5") as results:
            list(results)


def test_errors(make, key):
    """An error of the function is raised to the caller, and later calls work."""
    fails = [True]

    def failing():
        if fails:
            raise LookupError("no such tenant")
        return key()

    client = make(failing)
    with pytest.raises(LookupError, match="no such tenant"):
        client.generate("gpt-5", "Hi")
    with pytest.raises(LookupError), client.generate_many(["a"], model="gpt-5"):
        pass
    fails.clear()
    assert "You said: Hi" == client.generate("gpt-5", "Hi").content


def test_calls_of_other_clients(make, key):
    """The function may call other clients; a call of its own client would need the key that it returns."""
    vault = make(key)

    def key_of_vault():
        assert "You said: key" == vault.generate("gpt-5", "key").content
        return key()

    assert "You said: Hi" == make(key_of_vault).generate("gpt-5", "Hi").content
    recursive = make(lambda: recursive.generate("gpt-5", "key").content)
    with pytest.raises(RuntimeError, match="use another client there"):
        recursive.generate("gpt-5", "Hi")


def test_messages_of_a_cursor(client):
    """Messages that are read from a database are read in the caller's thread, too."""
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE turns (role, content)")
        database.execute("INSERT INTO turns VALUES ('user', 'Hi')")

        def turns():
            for role, content in database.execute("SELECT role, content FROM turns"):
                yield {"role": role, "content": content}

        assert "You said: Hi" == client.generate("gpt-5", turns()).content
        with client.stream("gpt-5", turns()) as stream:
            assert "You said: Hi" == "".join(stream.text_stream)
        with pytest.raises(ParsingError) as caught:
            client.parse("gpt-5", turns(), int, max_repairs=0)
        assert "You said: Hi" == caught.value.text
    database.close()


def test_no_garbage(client):
    """A call leaves no reference cycle, in which its result would stay."""
    client.generate("gpt-5", "warm up")
    gc.collect()
    gc.disable()
    try:
        reference = weakref.ref(client.generate("gpt-5", "Hi"))
        deadline = time.monotonic() + 60
        while reference() is not None and time.monotonic() < deadline:
            time.sleep(0.01)  # the loop's thread drops its references, too
        assert reference() is None
    finally:
        gc.enable()
