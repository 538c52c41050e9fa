"""Clients, streams and batches across processes; `tests/sync/test_fork.py` tests single calls."""

from pathlib import Path

import pytest

# Since Python 3.12 a fork of a process with threads warns. These tests do exactly that.
OPTIONS = ("-W", "ignore::DeprecationWarning", "-W", "always::ResourceWarning")

PREAMBLE = """
import concurrent.futures, gc, importlib, multiprocessing, os, sys, threading, time
from neuralbox_sync import *

client = NeuralBox()

def say(text):
    return client.generate("gpt-5", text).content.removeprefix("You said: ")

def fork(child):
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit(0)
    return os.waitpid(pid, 0)[1]
"""


@pytest.fixture
def run(start):
    """Return a function that runs a script, which must succeed without a warning, and returns its lines."""

    def run(code, first=""):
        result = start(first + PREAMBLE + code, *OPTIONS).end()
        assert (0, "") == (result.status, result.errors), result.lines
        return result.lines

    return run


def test_executor(run, neuralbox_server):
    """Processes of an executor make calls with the inherited client, and errors reach the parent with their facts."""
    neuralbox_server.balance = 10
    lines = run("""
say("parent")
with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
    print(list(pool.map(say, "abcd")))
    error = pool.submit(say, "e").exception()
    print(type(error).__name__, error.status_code, error.billed, error.attempts)
""")

    assert ["['a', 'b', 'c', 'd']", "InsufficientTokensError 402 no 1"] == lines


def test_client_as_an_argument(run):
    """A client, or a method of it, as an argument for another process raises, with advice, and nothing hangs."""
    lines = run("""
with multiprocessing.get_context("fork").Pool(1) as pool:
    try:
        pool.map(client.generate, ["gpt-5"])
    except TypeError as error:
        print("in each process" in str(error))
with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
    error = pool.submit(len, client).exception()
    print(type(error).__name__, "in each process" in str(error))
""")

    assert ["True", "TypeError True"] == lines


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_client_of_an_initializer(run, method):
    """A client made by the initializer of a pool works in its process."""
    lines = run(f"""
def make():
    global own
    own = NeuralBox()

def generate(text):
    return own.generate("gpt-5", text).content

if __name__ == "__main__":
    with multiprocessing.get_context("{method}").Pool(1, make) as pool:
        print(pool.map(generate, ["Hi"]))
""")

    assert ["['You said: Hi']"] == lines


def test_fork_in_a_thread(run):
    """The calls of parent and child succeed after a thread forks during a call of the main thread."""
    lines = run("""
say("warm up")
def child():
    os._exit(0 if say("child") == "child" else 1)  # `sys.exit` would only end the thread

other = threading.Thread(target=lambda: print([fork(child) for _ in range(5)]))
other.start()
while other.is_alive():
    assert say("parent") == "parent"
""")

    assert ["[0, 0, 0, 0, 0]"] == lines


@pytest.mark.neuralbox_server(event_interval=0.02)
def test_inherited_stream(run, neuralbox_server):
    """A child that uses its parent's stream gets an error; the parent continues and loses nothing."""
    lines = run("""
def child():
    for use in (lambda: list(stream), lambda: list(stream.text_stream), stream.get_final_generation, stream.__enter__):
        try:
            use()
        except StreamStateError as error:
            print("after the fork" in str(error), flush=True)

def leave():
    global stream
    stream.close()
    del stream
    gc.collect()
    print(say("child"), flush=True)

with client.stream("gpt-5", "one two three four five") as stream:
    next(stream)
    print(fork(leave), flush=True)
    print(fork(child), "".join(stream.text_stream))
print(stream.generation.completed)
""")

    assert ["child", "0", "True", "True", "True", "True", "0 You said: one two three four five", "True"] == lines
    assert 2 == len(neuralbox_server.billed)


@pytest.mark.neuralbox_server(latency=0.1)
def test_inherited_batch(run, neuralbox_server, tmp_path):
    """A child closes its parent's batch at once, and the parent's journal stays locked and complete."""
    lines = run(f"""
journal = {str(tmp_path / "journal")!r}

def child():
    started = time.monotonic()
    for use in (lambda: list(batch), batch.stop):
        try:
            use()
        except StreamStateError as error:
            print("after the fork" in str(error), flush=True)
    batch.close()
    print(time.monotonic() - started < 4, flush=True)

requests = [{{"model": "gpt-5", "messages": str(number)}} for number in range(6)]
with client.generate_many(requests, max_concurrency=2, journal=journal) as batch:
    next(batch)
    print(fork(child), flush=True)
    try:
        with client.generate_many(requests, journal=journal):
            print("not locked", flush=True)
    except JournalLockedError:
        print("locked", flush=True)
    print(len(list(batch)))
""")

    assert ["True", "True", "True", "0", "locked", "5"] == lines
    assert 6 == len(neuralbox_server.billed)


def test_stream_made_before_the_fork(run, neuralbox_server):
    """Only the parent can enter a stream that was made before the fork, so that it is not sent twice."""
    lines = run("""
stream = client.stream("gpt-5", "Hi")

def child():
    try:
        with stream:
            print("entered", flush=True)
    except StreamStateError as error:
        print("after the fork" in str(error), flush=True)

print(fork(child), flush=True)
with stream:
    print("".join(stream.text_stream))
""")

    assert ["True", "0", "You said: Hi"] == lines
    assert 1 == len(neuralbox_server.requests)


def test_fork_during_the_first_call(run):
    """The child can make calls after a fork at any time during the first call of another thread."""
    lines = run("""
def first_call_and_fork(delay):
    thread = threading.Thread(target=say, args=("first",))
    thread.start()
    time.sleep(delay)
    status = fork(lambda: say("child"))
    thread.join()
    sys.exit(status != 0)

# In processes that have imported nothing yet.
print({fork(lambda: first_call_and_fork(number / 100)) for number in range(1, 25, 3)})
""")

    assert ["{0}"] == lines


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="nothing lists the threads that are about to end")
def test_fork_at_the_end_of_a_thread(run):
    """Each thread of ours has its Python code ahead at a fork or is gone: it may not be in OpenSSL while it ends."""
    lines = run(
        """
from neuralbox_sync import preload

def closed():
    own.add(threading.get_native_id())
    time.sleep(number / 5000)
    another.close()

for number, another in enumerate([NeuralBox() for _ in range(20)]):
    another.generate("gpt-5", "Hi")
    thread = threading.Thread(target=closed)
    thread.start()
    while thread.is_alive():
        fork(lambda: os._exit(0))
for _ in range(20):
    preload()
    fork(lambda: os._exit(0))
print(len(at_forks) > 20, set().union(*at_forks) - own)
""",
        first="""
import os, threading, time

own, at_forks = set(), []  # the threads of this script; those without Python code, or that end, at each fork

def threads():
    return set(map(int, os.listdir("/proc/self/task")))

def record_threads():
    known, before = {thread.native_id for thread in threading.enumerate()}, threads()
    time.sleep(0.005)  # as long as others' functions may take
    at_forks.append((before - known) | (before - threads()))

os.register_at_fork(before=record_threads)  # called after those that are registered later
""",
    )

    assert ["True set()"] == lines


def test_interrupt_of_the_first_call(run):
    """The next call works after Ctrl-C at any time during the first call, which loads half of the SDK."""
    lines = run("""
import signal

def interrupted_call_and_another(delay):
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        say("first")
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        pass
    sys.exit(say("again") != "again")

print({fork(lambda: interrupted_call_and_another(number / 50)) for number in range(1, 12, 2)})
""")

    assert ["{0}"] == lines


def test_no_import_after_the_start(run, neuralbox_server):
    """Calls import no module after the loop has started: an import that runs during a fork hangs the child."""
    neuralbox_server.fail(404, method="GET")
    lines = run("""
from neuralbox_async import _lazy_imports

client = NeuralBox(base_url=os.environ["NEURALBOX_BASE_URL"].replace("127.0.0.1", "localhost"))
assert "aiohttp" not in sys.modules
for module in _lazy_imports.MODULES:
    importlib.import_module(module)
before = set(sys.modules)

say("Hi")
with client.stream("gpt-5", "Hi") as stream:
    list(stream)
with client.generate_many([{"model": "gpt-5", "messages": "Hi"}]) as batch:
    list(batch)
try:
    client.retrieve("unknown")
except NotFoundError:
    pass
client.close()
print(sorted(set(sys.modules) - before))
""")

    assert ["[]"] == lines
