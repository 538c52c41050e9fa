"""Fixtures for all tests."""

from __future__ import annotations

import asyncio
import signal

import pytest

from neuralbox_async import AsyncNeuralBox, RetryPolicy

KEY = "nb_canary_key_that_must_not_be_seen_7f3a"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A command started with a shell's `&` ignores SIGINT. The scripts of tests would inherit that, and hang.
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
