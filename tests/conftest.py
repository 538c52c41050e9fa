"""What all tests share."""

from __future__ import annotations

import asyncio
import signal

import pytest

from neuralbox_async import AsyncNeuralBox, RetryPolicy

KEY = "nb_canary_key_that_must_not_be_seen_7f3a"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's `&` lets what it starts ignore SIGINT. The scripts of tests would inherit that, and wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
async def no_task_left():
    """The test leaves no task behind."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    after = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert {task for task in after if not task.done()} == set()


@pytest.fixture
def make_client():
    """Make a client on a fake transport that waits for nothing between attempts."""

    def make(transport, **options):
        options = {"retry_policy": RetryPolicy(jitter=lambda low, _high: low), **options}
        return AsyncNeuralBox(KEY, transport=transport, **options)

    return make
