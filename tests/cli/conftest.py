"""Fixtures that run the command: in this process, in a subprocess, and at a pseudo-terminal."""

from __future__ import annotations

import contextlib
import io
import os
import sys

import pytest
from command import COMMAND, Process, Result, Terminal

from neuralbox_async.testing import NeuralBoxServer


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Remove variables about keys, colours and terminals, so that no test depends on them."""
    for name in list(os.environ):
        if name.startswith("NEURALBOX_") or name in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "CI"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def serve(monkeypatch):
    """Return a function that starts a server with options and sets the environment for it."""
    with contextlib.ExitStack() as stack:

        def start(**options):
            server = stack.enter_context(NeuralBoxServer(**options))
            monkeypatch.setenv("NEURALBOX_API_KEY", server.api_key)
            monkeypatch.setenv("NEURALBOX_BASE_URL", server.base_url)
            return server

        yield start


@pytest.fixture
def server(serve):
    """A server without options; the environment is set for it."""
    return serve()


@pytest.fixture
def run(capsys, monkeypatch):
    """Return a function that runs the command in this process."""
    from messages import check_messages

    from neuralbox_async._cli import run

    def run_here(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin)))
        status = run(arguments)
        result = Result(status, *capsys.readouterr())
        check_messages(result.err)
        return result

    return run_here


@pytest.fixture
def short_poll_interval(monkeypatch):
    """Poll pending generations every 0.02 s instead of every 5 s."""
    monkeypatch.setattr("neuralbox_async._call.polling._pause", lambda *_: 0.02)


@pytest.fixture
def start(starts_processes):
    """Return a function that starts the command in a subprocess."""
    processes = []

    def start(*arguments, command=COMMAND, **options):
        process = Process([*command, *arguments], **options)
        processes.append(process)
        return process

    yield start
    for process in processes:
        with process.popen as popen:
            popen.kill()


@pytest.fixture
def at_terminal(starts_processes):
    """Return a function that starts the command at a pseudo-terminal."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            terminal = Terminal(*arguments)
            stack.callback(terminal.close)
            return terminal

        yield start


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def batch(run, folder):
    """Return a function that writes *rows* to a file and runs `neuralbox batch` with it."""

    def batch(rows, *arguments, name="in.txt", **options):
        data = rows if isinstance(rows, bytes) else rows.encode()
        (folder / name).write_bytes(data)
        return run("batch", name, *arguments, **options)

    return batch
