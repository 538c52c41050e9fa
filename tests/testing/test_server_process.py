"""A local server and its process: `run`, signals, exit, forks and lazy imports."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import neuralbox_async.testing
from neuralbox_async.testing import NeuralBoxServer


def balance(server):
    """GET /balance in the plainest way, and return the status."""
    connection = http.client.HTTPConnection(server._host, server.port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/api/v2/balance", headers={"Authorization": f"Bearer {server.api_key}"})
        return connection.getresponse().status


def run(code, *, wait=True):
    """Run *code* in a process of its own, with warnings as errors."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if wait:
        with process:
            return (*process.communicate(timeout=60), process.returncode)
    return process


def test_run_serves_until_closed(thread_names):
    """In another thread than the main one, run serves until the server is closed."""
    ready = threading.Event()
    server = NeuralBoxServer()
    thread = threading.Thread(target=server.run, kwargs={"ready": lambda _: ready.set()})
    thread.start()
    assert ready.wait(5)
    assert 200 == balance(server)
    server.close()
    thread.join(5)
    assert not thread.is_alive()
    assert [] == thread_names()


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_serves_until_a_signal(number):
    """In the main thread, run returns cleanly on SIGINT and SIGTERM, and puts the old handler back."""
    code = """
        import signal, threading
        from neuralbox_async.testing import NeuralBoxServer
        NeuralBoxServer().run(ready=lambda server: print(server.base_url, flush=True))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert threading.active_count() == 1
        print("over")
    """
    with run(code, wait=False) as process:
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(number)
        assert ("over\n", "") == process.communicate(timeout=60)
    assert 0 == process.returncode


def test_run_needs_nobody_to_be_told():
    """Without a ready function, run just serves."""
    server = NeuralBoxServer()
    thread = threading.Thread(target=server.run)
    thread.start()
    server_is_up = lambda: server.is_running  # noqa: E731
    server.wait_until(server_is_up)
    server.close()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.process
def test_an_open_server_does_not_hold_up_the_exit():
    """A process ends at once and silently although its server was never closed and a stream is open."""
    code = """
        import http.client
        from neuralbox_async.testing import NeuralBoxServer
        server = NeuralBoxServer(event_interval=60).start()
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("POST", "/api/v2/generate/stream", '{"model": "m", "prompt": "x"}',
                           {"Authorization": "Bearer " + server.api_key})
        print(connection.getresponse().status, flush=True)
        # The client's own socket, left open, would be warned of.
        connection.close()
    """
    started = time.monotonic()
    assert ("200\n", "", 0) == run(code)
    assert time.monotonic() - started < 50  # seconds; the next event would be sent after 60


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_the_server_alone():
    """A child of a fork sees no running server, closes nothing, and the parent's goes on."""
    code = """
        import os, urllib.request, warnings
        from neuralbox_async.testing import NeuralBoxServer
        warnings.simplefilter("ignore", DeprecationWarning)
        server = NeuralBoxServer().start()
        if (child := os.fork()) == 0:
            assert not server.is_running
            server.close()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        request = urllib.request.Request(server.base_url + "/balance")
        request.add_header("Authorization", "Bearer " + server.api_key)
        print(urllib.request.urlopen(request).status)
        server.close()
    """
    assert ("200\n", "", 0) == run(code)


@pytest.mark.process
@pytest.mark.skipif(sys.version_info >= (3, 16), reason="there are no policies any more")
def test_the_policy_of_the_process_changes_nothing():
    """The server's loop is asyncio's own, whatever policy the process has."""
    code = """
        import asyncio, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # policies are deprecated since CPython 3.14
        from neuralbox_async.testing import NeuralBoxServer

        class Policy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self):
                raise SystemExit("asked for a loop")

        asyncio.set_event_loop_policy(Policy())
        with NeuralBoxServer() as server:
            print(server.is_running)
    """
    assert ("True\n", "", 0) == run(code)


def test_names_are_loaded_when_used():
    """The package's names are found, listed and complete; others are an AttributeError."""
    assert sorted(neuralbox_async.testing.__all__) == neuralbox_async.testing.__all__
    for name in neuralbox_async.testing.__all__:
        assert name in dir(neuralbox_async.testing)
        assert name == getattr(neuralbox_async.testing, name).__name__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = neuralbox_async.testing.Nothing
