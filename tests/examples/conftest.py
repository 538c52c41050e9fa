"""The applications in the folders of `examples`, each running as its docstring says."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from neuralbox_async.testing import NeuralBoxServer

TIMEOUT = 60.0  # seconds


def reply(body):
    """Return the reply to the request *body*: endless for the prompt "endless"."""
    prompt = body["messages"][-1]["content"]
    return itertools.repeat("and on ") if prompt == "endless" else f"You said: {prompt}"


@pytest.fixture
def server():
    """A local server that can reply without end."""
    with NeuralBoxServer(reply=reply, event_interval=0.01) as server:
        yield server


@pytest.fixture
def environment(server):
    """The environment of a program that uses the server."""
    return {**os.environ, "NEURALBOX_API_KEY": server.api_key, "NEURALBOX_BASE_URL": server.base_url}


@pytest.fixture
def start(environment, tmp_path, starts_processes):
    """Return a function that runs ``python -m`` with a command, in which "PORT" is a port; it returns that port."""
    with contextlib.ExitStack() as stack:

        def run(*command):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            log = tmp_path / "log"
            words = [sys.executable, "-m", *(str(word).replace("PORT", str(port)) for word in command)]
            file = stack.enter_context(log.open("w"))
            process = stack.enter_context(
                subprocess.Popen(words, env=environment, stdout=file, stderr=file, start_new_session=True)
            )
            stack.callback(stop, process, log)
            deadline = time.monotonic() + TIMEOUT
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    return port
                time.sleep(0.02)
            pytest.fail(f"it does not listen: {log.read_text()}")

        def stop(process, log):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(TIMEOUT)
            finally:
                process.kill()
            assert process.returncode in {0, -signal.SIGTERM}, log.read_text()
            assert "Traceback" not in log.read_text()

        yield run
