"""A web application of a page, served as its page describes, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest
from documents import TIMEOUT

from neuralbox_async.testing import NeuralBoxServer


@attrs.frozen
class Response:
    """The status, the headers and the text of a response; *complete* is false if it broke off."""

    status: int
    headers: http.client.HTTPMessage
    text: str
    complete: bool


@attrs.frozen
class Site:
    """A running application, and the local server that it uses."""

    port: int
    server: NeuralBoxServer
    log: Path

    def open(self, method, path, body=None, **headers):
        """Send a request and return its connection, which the caller closes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        connection.request(method, path, body, headers)
        return connection

    def send(self, method, path, body=None, **headers):
        """Send a request and return its response."""
        with contextlib.closing(self.open(method, path, body, **headers)) as connection:
            response = connection.getresponse()
            try:
                text, complete = response.read(), True
            except http.client.IncompleteRead as error:
                text, complete = error.partial, False
            return Response(response.status, response.headers, text.decode(), complete)


@contextlib.contextmanager
def serve(words, folder, server):
    """Run the command *words* in *folder* until the end of the block; it must then stop cleanly."""
    port = free_port()
    name, *options = words
    address = {"uvicorn": ("--port", str(port)), "gunicorn": ("--bind", f"127.0.0.1:{port}")}[name]
    environment = {**os.environ, "PYTHONWARNINGS": "default", "DJANGO_SETTINGS_MODULE": "mysite.settings"}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), environment["PYTHONPATH"]])
    log = folder / "log"
    with log.open("w") as file:
        command = [sys.executable, "-m", name, *options, *address]
        with subprocess.Popen(command, cwd=folder, stdout=file, stderr=file, env=environment) as process:
            try:
                _wait_for(process, port, log)
                yield Site(port, server, log)
                process.send_signal(signal.SIGTERM)
                process.wait(TIMEOUT)
            finally:
                process.kill()
    assert process.returncode in {0, -signal.SIGTERM}, log.read_text()


def free_port():
    """Return a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def wait_until_listening(port):
    """Wait until something listens on *port*."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    pytest.fail("the application does not listen")


def _wait_for(process, port, log):
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    pytest.fail(f"the application does not listen: {log.read_text()}")
