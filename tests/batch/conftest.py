"""What the tests of batches share: a local server's client, and a transport that answers as a function tells."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from neuralbox_async import AsyncNeuralBox

# Test folders are no packages; this one has modules of its own besides its tests. At the end: another folder's
# `conftest` is imported by that name.
sys.path.append(str(Path(__file__).parent))

from answers import Answers, done


@pytest.fixture
def make(make_client):
    """Make a client whose requests are answered by a function; by default with what was said."""

    def make(answer=done, pause=lambda _asked: 1, **options):
        transport = Answers(answer, pause)
        return make_client(transport, **options), transport

    return make


@pytest.fixture
async def client(neuralbox_server):
    """Make a client of the local server."""
    async with AsyncNeuralBox(**neuralbox_server.client_options) as client:
        yield client


@pytest.fixture
def journal(tmp_path):
    """Name a journal that is not there yet."""
    return tmp_path / "run.jsonl"


@pytest.fixture
def start():
    """Start Python code in a process of its own; it is killed in the end."""
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
