"""The cells of a Jupyter kernel, which has a running event loop, make blocking calls."""

import contextlib
import itertools
import textwrap

import pytest

from neuralbox_async.testing import NeuralBoxServer

jupyter_client = pytest.importorskip("jupyter_client", reason="drives the kernel")
pytest.importorskip("ipykernel", reason="tests the kernel")

TIMEOUT = 60.0  # seconds


def reply(body):
    """Return the reply to the request *body*: endless for the prompt "endless"."""
    prompt = body["messages"][-1]["content"]
    return itertools.repeat("x ") if prompt == "endless" else f"You said: {prompt}"


class Notebook:
    """A running kernel and the output of its cells."""

    def __init__(self, manager, client, server):
        self._manager, self._client, self.server = manager, client, server

    def begin(self, code):
        """Start a cell; return a function that waits for its output and the name of its exception."""
        cell = self._client.execute(textwrap.dedent(code))
        return lambda: self._outcome(cell)

    def run(self, code):
        """Run a cell and return its output and the name of its exception."""
        return self.begin(code)()

    def interrupt(self):
        """Interrupt the kernel, as the button does."""
        self._manager.interrupt_kernel()

    def _outcome(self, cell):
        printed, raised = "", None
        while True:
            message = self._client.get_iopub_msg(timeout=TIMEOUT)
            if message["parent_header"].get("msg_id") != cell:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    printed += content["text"]
                case "error":
                    raised = content["ename"]
                case "status" if content["execution_state"] == "idle":
                    return printed, raised


@contextlib.contextmanager
def running(env, folder, **options):
    """Run a kernel, with sockets in *folder*, until the end of the block."""
    manager = jupyter_client.KernelManager(transport="ipc", ip=str(folder / "socket"), kernel_name="python3")
    manager.start_kernel(env=env, **options)
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=TIMEOUT)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def server():
    with NeuralBoxServer(reply=reply, event_interval=0.005, stop_on_disconnect=True) as server:
        yield server


@pytest.fixture(scope="module")
def kernel(server, environment_for, tmp_path_factory):
    """A kernel for some tests."""
    with running(environment_for(server), tmp_path_factory.mktemp("kernel")) as kernel:
        yield kernel


@pytest.fixture
def notebook(kernel, server):
    """A notebook whose first cell made a client."""
    notebook = Notebook(*kernel, server)
    first = notebook.run("""
        from neuralbox_sync import *
        client = NeuralBox()
        print(client.generate("gpt-5", "warm up").content)
    """)
    assert ("You said: warm up\n", None) == first
    server.reset()
    yield notebook
    assert ("", None) == notebook.run("client.close()")


def test_call(notebook):
    """A cell can make a call although the kernel's loop runs in its thread."""
    code = """
        import asyncio
        assert asyncio.get_running_loop().is_running()
        print(client.generate("gpt-5", "Hi").content)
    """

    assert ("You said: Hi\n", None) == notebook.run(code)


def test_stream(notebook):
    """A cell prints a stream."""
    code = """
        with client.stream("gpt-5", "one two three") as stream:
            for text in stream.text_stream:
                print(text, end="", flush=True)
    """

    assert ("You said: one two three", None) == notebook.run(code)


def test_error(notebook):
    """An error is raised in its cell, and the next cell works."""
    notebook.server.balance = 0

    assert ("", "InsufficientTokensError") == notebook.run('client.generate("gpt-5", "Hi")')
    notebook.server.balance = 100
    assert ("You said: Hi\n", None) == notebook.run('print(client.generate("gpt-5", "Hi").content)')


INTERRUPTED = {
    "a call": 'client.generate("gpt-5", "slow")',
    "a stream": """
        with client.stream("gpt-5", "endless") as stream:
            for text in stream.text_stream:
                pass
    """,
}


@pytest.mark.parametrize("cell", INTERRUPTED)
def test_interrupt(notebook, cell):
    """Interrupting a cell cancels its call, on the server as well, and the next cell works with the same client."""
    if cell == "a call":
        notebook.server.delay(30)
    outcome = notebook.begin(INTERRUPTED[cell])
    notebook.server.wait_until(lambda: len(notebook.server.requests) == 1, TIMEOUT)

    notebook.interrupt()

    assert ("", "KeyboardInterrupt") == outcome()
    notebook.server.wait_for_disconnect()
    assert () == notebook.server.billed
    assert ("You said: next\n", None) == notebook.run('print(client.generate("gpt-5", "next").content)')


def test_shutdown(server, environment_for, tmp_path):
    """A kernel whose client was never closed shuts down without output."""
    errors = tmp_path / "errors"
    with errors.open("w") as file, running(environment_for(server), tmp_path, stderr=file) as (manager, client):
        notebook = Notebook(manager, client, server)
        notebook.run("from neuralbox_sync import *; client = NeuralBox()")
        assert ("Hi", None) == notebook.run('print(client.generate("gpt-5", "Hi").content[-2:], end="")')
        manager.request_shutdown()
        server.wait_until(lambda: not manager.is_alive(), TIMEOUT)

    assert "" == errors.read_text()
