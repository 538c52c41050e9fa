"""A client of a fault server, and what every fault test may take for granted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from pathlib import Path

import pytest

# Test folders are no packages; this one has modules of its own besides its tests.
sys.path.insert(0, str(Path(__file__).parent))

from discretion import CANARY, PROMPT
from fault_server import FaultServer

from neuralbox_async import AsyncNeuralBox, RetryPolicy

KEY = "nb_test_key"
AT_ONCE = RetryPolicy(jitter=lambda _low, _high: 0.0)


@pytest.fixture
def serve():
    """Start fault servers; all are ended with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *scripts, **options: stack.enter_context(FaultServer(*scripts, **options))


@pytest.fixture
async def connect():
    """Make clients of a server that repeat without waiting; all are closed with the test."""
    async with contextlib.AsyncExitStack() as stack:

        def new_client(server, **options):
            told = {"base_url": server.url, "timeout": 5, "retry_policy": AT_ONCE, **options}
            client = AsyncNeuralBox(KEY, **told)
            stack.push_async_callback(client.aclose)
            return client

        yield new_client


@pytest.fixture(autouse=True)
async def no_task_is_left():
    """Whatever breaks, no task of the client's outlives the test."""
    yield
    await asyncio.sleep(0)
    assert {asyncio.current_task()} == asyncio.all_tasks()


@pytest.fixture
def discreet_records(caplog, capfd, monkeypatch):
    """No logger, at any level, is told the key, a prompt, or a text; nor is the terminal."""
    monkeypatch.setenv("NEURALBOX_LOG", "debug")
    ours = logging.getLogger("neuralbox")
    monkeypatch.setattr(ours, "handlers", list(ours.handlers))  # what NEURALBOX_LOG adds goes with the test
    monkeypatch.setattr(ours, "level", logging.NOTSET)
    asyncio_logger = logging.getLogger("asyncio")
    monkeypatch.setattr(asyncio_logger, "level", logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    yield
    written = capfd.readouterr()
    for text in (*(f"{record.getMessage()} {vars(record)!r}" for record in caplog.records), written.out, written.err):
        assert CANARY not in text
        assert PROMPT not in text
        assert "Hello world" not in text
