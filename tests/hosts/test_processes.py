"""Clients, streams and batches across processes, beyond what `tests/sync/test_fork.py` says of single calls."""

import pytest

# Since 3.12 forking a process with threads warns; that it is done all the same is the point here.
QUIETLY = ("-W", "ignore::DeprecationWarning", "-W", "always::ResourceWarning")

PREAMBLE = """
import concurrent.futures, multiprocessing, os, sys, time
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
    print(type(error).__name__, error.status, error.billed, error.attempts)
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
import threading

say("warm up")
def child():
    os._exit(0 if say("child") == "child" else 1)  # `sys.exit` would only end the thread

other = threading.Thread(target=lambda: print([fork(child) for _ in range(5)]))
other.start()
while other.is_alive():
    assert say("parent") == "parent"
""")

    assert ["[0, 0, 0, 0, 0]"] == lines


def test_nothing_is_imported_later(run, neuralbox_server):
    """Calls import nothing that the client has not imported: what is being imported in a fork hangs in the child."""
    neuralbox_server.fail(404, method="GET")
    lines = run("""
client = NeuralBox(base_url=os.environ["NEURALBOX_BASE_URL"].replace("127.0.0.1", "localhost"))
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
