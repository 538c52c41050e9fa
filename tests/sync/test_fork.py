"""A blocking client works in both processes after a fork, and the child never harms the parent's connections."""

import pytest

# Since Python 3.12 a fork of a process with threads warns. These tests do exactly that.
OPTIONS = ("-W", "ignore::DeprecationWarning")

PREAMBLE = """
import contextlib, gc, multiprocessing, os, pathlib, sys, threading, time
from neuralbox_sync import InsufficientTokensError, NeuralBox

client = NeuralBox()

def say(text):
    return client.generate("gpt-5", text).content.removeprefix("You said: ")

def fork(child):
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit(0)
    return os.waitpid(pid, 0)[1]

def epoll_registrations():
    # The descriptors in each epoll of this process, which the child shares.
    registrations = {}
    for number in os.listdir("/proc/self/fdinfo"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing
            lines = pathlib.Path("/proc/self/fdinfo", number).read_text().splitlines()
            registrations[number] = sorted(line for line in lines if line.startswith("tfd:"))
    return {number: lines for number, lines in registrations.items() if lines}
"""


def run(start, code):
    """Run *code* in a script, which must succeed without a warning; return the lines that it prints."""
    result = start(PREAMBLE + code, *OPTIONS).end()
    assert (0, "") == (result.status, result.errors)
    return result.lines


CHILDREN = {
    "nothing": "pass",
    "a call": 'assert say("child") == "child"',
    "close": "client.close()",
    "a call and close": 'assert say("child") == "child"; client.close()',
    "garbage collection": "global client; del client; gc.collect()",
    "a change of the inherited loop": "inherited.remove_reader(inherited._ssock)",
    "a fork and a call": 'assert fork(lambda: say("grandchild")) == 0',
    "a thread": "thread = threading.Thread(target=say, args=('child',)); thread.start(); thread.join()",
    "a hard exit": "os._exit(0)",
}


@pytest.mark.parametrize("child", CHILDREN)
def test_the_parent_is_unharmed(start, neuralbox_server, child):
    """The parent's connection and its epoll still work after the child used, closed or dropped the client."""
    lines = run(
        start,
        f"""
def child():
    {CHILDREN[child]}

assert say("parent") == "parent"
inherited = client._loop._loop
registrations = epoll_registrations()
status = fork(child)
assert registrations == epoll_registrations()
print(status, say("again"))
assert client.retrieve(client.generate("gpt-5", "third")).completed
        """,
    )

    connections_of_the_child = 1 if "call" in child or "thread" in child else 0
    assert ["0 again"] == lines
    assert 1 + connections_of_the_child == neuralbox_server.connections_accepted


def test_unused_client(start):
    """A client made in the parent and first used in a child works there, and in the parent afterwards."""
    assert ["0 parent"] == run(start, 'print(fork(lambda: say("child")), say("parent"))')


def test_fork_during_a_call(start, neuralbox_server):
    """A fork during calls of other threads blocks neither the child nor those calls."""
    neuralbox_server.delay(0.5)
    script = start(
        PREAMBLE
        + """
results = []
thread = threading.Thread(target=lambda: results.append(say("thread")))
thread.start()
input()
status = fork(lambda: say("child"))
thread.join()
print(status, *results)
""",
        *OPTIONS,
    )
    neuralbox_server.wait_until(lambda: neuralbox_server.in_flight == 1)
    script.resume()
    result = script.end()

    assert (0, "") == (result.status, result.errors)
    assert ["0 thread"] == result.lines


@pytest.mark.neuralbox_server(event_interval=0.01)
def test_fork_during_a_stream(start):
    """A stream continues in the parent after the child dropped its copy."""
    lines = run(
        start,
        """
def child():
    global stream
    del stream
    gc.collect()
    assert say("child") == "child"

with client.stream("gpt-5", "one two three") as stream:
    next(stream)
    print(fork(child), "".join(stream.text_stream))
""",
    )

    assert ["0 You said: one two three"] == lines


def test_forks_under_load(start):
    """Forks while eight threads make their first calls block no process."""
    lines = run(
        start,
        """
clients = [NeuralBox() for _ in range(8)]
threads = [threading.Thread(target=other.generate, args=("gpt-5", "Hi")) for other in clients]
say("import")
for thread in threads:
    thread.start()
print({fork(lambda: say("child")) for _ in range(10)})
for thread in threads:
    thread.join()
""",
    )

    assert ["{0}"] == lines


@pytest.mark.process
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pools(start, neuralbox_server, method):
    """The processes of a pool make calls, and the errors of the SDK reach the parent."""
    neuralbox_server.balance = 7
    lines = run(
        start,
        f"""
if __name__ == "__main__":
    say("parent")
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        print(pool.map(say, ["a", "b"]))
        try:
            pool.map(say, ["c", "d", "e", "f"])
        except InsufficientTokensError as error:
            print(error.billed)
""",
    )

    assert ["['a', 'b']", "no"] == lines
