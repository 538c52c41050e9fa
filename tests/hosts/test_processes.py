"""Clients, streams and batches across processes, beyond what `tests/sync/test_fork.py` says of single calls."""

import pytest

# Since 3.12 forking a process with threads warns; that it is done all the same is the point here.
QUIETLY = ("-W", "ignore::DeprecationWarning", "-W", "always::ResourceWarning")

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
    """Run a script, which must end well and say nothing; return the lines that it prints."""

    def run(code):
        ended = start(PREAMBLE + code, *QUIETLY).end()
        assert (0, "") == (ended.status, ended.errors), ended.lines
        return ended.lines

    return run


def test_executor(run, neuralbox_server):
    """Processes of an executor call with the client that they inherit, and errors come back with their facts."""
    neuralbox_server.balance = 10
    lines = run("""
say("parent")
with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
    print(list(pool.map(say, "abcd")))
    error = pool.submit(say, "e").exception()
    print(type(error).__name__, error.status_code, error.billed, error.attempts)
""")

    assert ["['a', 'b', 'c', 'd']", "InsufficientTokensError 402 no 1"] == lines


def test_a_client_is_not_sent(run):
    """A client, or a method of it, given to another process is refused with what to do instead, and nothing hangs."""
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
def test_made_in_the_child(run, method):
    """A client made by a pool's initializer serves the process that made it."""
    lines = run(f"""
def make():
    global own
    own = NeuralBox()

def ask(text):
    return own.generate("gpt-5", text).content

if __name__ == "__main__":
    with multiprocessing.get_context("{method}").Pool(1, make) as pool:
        print(pool.map(ask, ["Hi"]))
""")

    assert ["['You said: Hi']"] == lines


def test_fork_in_a_thread(run):
    """A thread may fork while the main thread is in a call; the child's call and the parent's both succeed."""
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
    """A child cannot use its parent's stream, and is told why; the parent reads on, and loses nothing."""
    lines = run("""
def child():
    for use in (lambda: list(stream), lambda: list(stream.text_stream), stream.get_final_generation, stream.__enter__):
        try:
            use()
        except StreamStateError as error:
            print("before the fork" in str(error), flush=True)

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
    """A child that leaves its parent's batch does so at once, and the parent's journal stays locked and whole."""
    lines = run(f"""
journal = {str(tmp_path / "journal")!r}

def child():
    began = time.monotonic()
    for use in (lambda: list(batch), batch.stop):
        try:
            use()
        except StreamStateError as error:
            print("before the fork" in str(error), flush=True)
    batch.close()
    print(time.monotonic() - began < 4, flush=True)

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


def test_made_before_the_fork(run, neuralbox_server):
    """What was made before a fork is not sent by both: only the parent can enter it."""
    lines = run("""
stream = client.stream("gpt-5", "Hi")

def child():
    try:
        with stream:
            print("entered", flush=True)
    except StreamStateError as error:
        print("before the fork" in str(error), flush=True)

print(fork(child), flush=True)
with stream:
    print("".join(stream.text_stream))
""")

    assert ["True", "0", "You said: Hi"] == lines
    assert 1 == len(neuralbox_server.requests)


def test_fork_during_the_first_call(run):
    """Whenever a fork comes while another thread makes the first call of all, the child can make calls of its own."""
    lines = run("""
def first_call_and_fork(delay):
    thread = threading.Thread(target=say, args=("first",))
    thread.start()
    time.sleep(delay)
    status = fork(lambda: say("child"))
    thread.join()
    sys.exit(status != 0)

# In processes of their own, which have nothing imported yet.
print({fork(lambda: first_call_and_fork(number / 100)) for number in range(1, 25, 3)})
""")

    assert ["{0}"] == lines


def test_interrupt_of_the_first_call(run):
    """Whenever Ctrl-C ends the first call of all, which loads half of the SDK, the next one works."""
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


def test_nothing_is_imported_later(run, neuralbox_server):
    """Calls import nothing that a starting loop has not imported: what is being imported in a fork hangs the child."""
    neuralbox_server.fail(404, method="GET")
    lines = run("""
from neuralbox_async import _lazy_imports

client = NeuralBox(base_url=os.environ["NEURALBOX_BASE_URL"].replace("127.0.0.1", "localhost"))
assert "aiohttp" not in sys.modules
for module in _loading.MODULES:
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
