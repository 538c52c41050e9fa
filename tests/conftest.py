"""Fixtures for all tests."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path

import pytest

from neuralbox_async import AsyncNeuralBox, RetryPolicy
from neuralbox_async.testing import NeuralBoxServer

KEY = "nb_canary_key_that_must_not_be_seen_7f3a"
SERVER_TIMEOUT = 60.0  # seconds

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A command started with a shell's `&` ignores SIGINT. The scripts of tests would inherit that, and hang.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def process_state():
    """Return the state of the process that a test may change and must restore."""
    loggers = [logging.getLogger(name) for name in (None, "neuralbox", "neuralbox.testing", "asyncio")]
    numbers = {signal.SIGINT, signal.SIGTERM, *(getattr(signal, name, signal.SIGINT) for name in ("SIGALRM", "SIGHUP"))}
    return {
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "folder": Path.cwd(),
        "loggers": [(log.name, log.level, log.disabled, log.propagate, tuple(log.handlers)) for log in loggers],
        "logging": logging.root.manager.disable,
        "signals": {number: signal.getsignal(number) for number in numbers},
        "garbage collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "event loop policy": getattr(asyncio.events, "_event_loop_policy", None),
        "interpreter": (sys.getswitchinterval(), sys.getrecursionlimit(), sys.excepthook, sys.unraisablehook),
    }


@pytest.fixture(autouse=True)
def no_state_left():
    """Check that the test restores the state of the process, on which later tests in this process depend."""
    before = process_state()
    yield
    after = process_state()
    assert {} == {name: (value, after[name]) for name, value in before.items() if value != after[name]}


@pytest.fixture(autouse=True)
def patient_server(no_state_left, monkeypatch):
    """Wait for the local server as long as a busy machine may need."""
    for name in ("wait_until", "wait_until_async", "wait_for_disconnect", "wait_for_disconnect_async"):
        monkeypatch.setattr(getattr(NeuralBoxServer, name), "__defaults__", (SERVER_TIMEOUT,))


@pytest.fixture
async def no_task_left():
    """Check that the test leaves no task running."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    after = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert {task for task in after if not task.done()} == set()


@pytest.fixture
def make_client():
    """Return a function that makes a client on a fake transport; it does not sleep between attempts."""

    def make(transport, **options):
        options = {"retry_policy": RetryPolicy(jitter=lambda low, _high: low), **options}
        return AsyncNeuralBox(KEY, transport=transport, **options)

    return make
