"""Fixtures of the tests of batches: clients of a local server and of a fake transport, journals, processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from transports import FunctionTransport, completed

from neuralbox_async import AsyncNeuralBox
from neuralbox_async._call import polling


@pytest.fixture
def make(make_client):
    """Make a client, and its transport whose responses a function returns; by default each repeats the prompt."""

    def make(respond=completed, delay=lambda _request: 1, **options):
        transport = FunctionTransport(respond, delay)
        return make_client(transport, **options), transport

    return make


@pytest.fixture
async def client(neuralbox_server):
    """Make a client of the local server."""
    async with AsyncNeuralBox(**neuralbox_server.client_options) as client:
        yield client


@pytest.fixture
def journal(tmp_path):
    """Return the path of a journal that does not exist yet."""
    return tmp_path / "run.jsonl"


@pytest.fixture
def start(starts_processes):
    """Start Python code in a process of its own; it is killed at the end of the test."""
    processes = []

    def start(code, *arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def poll_every(monkeypatch):
    """Set the interval at which batches poll pending generations."""
    return lambda seconds: monkeypatch.setitem(polling.wait.__kwdefaults__, "interval", seconds)
