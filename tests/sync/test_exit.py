"""Interpreter exit: fast and silent in every state of a client."""

import textwrap

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timing]

TIMEOUT = 2.5  # seconds

PREAMBLE = """
import atexit, threading, time
from neuralbox_sync import ClientClosedError, NeuralBox

def ready():
    print("ready", flush=True)

client = NeuralBox()
"""

STATES = {
    "unused": """
        ready()
    """,
    "idle": """
        client.generate("gpt-5", "Hi")
        ready()
    """,
    "closed": """
        client.generate("gpt-5", "Hi")
        client.close()
        ready()
    """,
    "on SystemExit": """
        client.generate("gpt-5", "Hi")
        ready()
        raise SystemExit(0)
    """,
    "a call on a daemon thread": """
        threading.Thread(target=client.retrieve, args=("delayed",), daemon=True).start()
        client.generate("gpt-5", "Hi")
        time.sleep(0.1)
        ready()
    """,
    "calls of several clients on daemon threads": """
        clients = [NeuralBox() for _ in range(8)]
        for client in clients:
            threading.Thread(target=client.retrieve, args=("delayed",), daemon=True).start()
        for client in clients:
            client.generate("gpt-5", "Hi")
        ready()
    """,
    "a stream in the middle": """
        stream = client.stream("gpt-5", "one two three four five six").__enter__()
        next(stream)
        ready()
    """,
    "a stream being read on a daemon thread": """
        started = threading.Event()

        def read():
            try:
                with client.stream("gpt-5", "one two three four five six") as stream:
                    for _ in stream:
                        started.set()
            finally:
                started.set()

        threading.Thread(target=read, daemon=True).start()
        started.wait()
        ready()
    """,
    "calls one after the other on daemon threads": """
        def call():
            while True:
                client.generate("gpt-5", "Hi")

        client.generate("gpt-5", "Hi")
        for _ in range(4):
            threading.Thread(target=call, daemon=True).start()
        time.sleep(0.1)
        ready()
    """,
    "a call on a thread that outlives the main one": """
        client.generate("gpt-5", "first")

        def call():
            threading.main_thread().join()
            assert client.generate("gpt-5", "late").content == "You said: late"
            ready()

        threading.Thread(target=call).start()
    """,
    "a call at exit": """
        client.generate("gpt-5", "first")

        @atexit.register
        def call():
            assert client.generate("gpt-5", "last").content == "You said: last"
            ready()
    """,
    "a call in a finalizer": """
        class Late:
            def __del__(self, error=ClientClosedError, ready=ready):
                try:
                    self.client.generate("gpt-5", "too late")
                except error:
                    ready()

        late = Late()
        late.client = client
        client.generate("gpt-5", "Hi")
    """,
}


@pytest.mark.neuralbox_server(event_interval=0.2)
@pytest.mark.parametrize(
    "state, options",
    [(state, ()) for state in STATES] + [("idle", ("-W", "always")), ("a stream in the middle", ("-W", "always"))],
)
def test_exit(start, neuralbox_server, state, options):
    """The interpreter exits in time, in one of three attempts on a busy machine, and prints nothing."""

    def attempt():
        neuralbox_server.reset()
        neuralbox_server.delay(30, times=8, method="GET")
        script = start(PREAMBLE + textwrap.dedent(STATES[state]), *options)
        script.wait_for("ready")
        result = script.end()
        assert (0, [], "") == (result.status, result.lines, result.errors)
        return result.seconds

    assert any(attempt() < TIMEOUT for _ in range(3))
