"""Ends of a batch whose async source waits for its next item, and does not end at once when it is cancelled."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest
from transports import completed, prompt_of

from neuralbox_async.testing import FakeResponse

pytestmark = pytest.mark.usefixtures("no_task_left")

FOREVER = 10**9


async def all_tasks_end():
    """Wait until no other task runs."""
    with anyio.fail_after(5):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.001)


async def turns():
    """Let other tasks run for some iterations of the event loop."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.timing
@pytest.mark.parametrize("end", ["stop", "401", "aclose"])
@pytest.mark.parametrize("stubborn", [0, 1, 3])
async def test_every_end_while_the_source_waits(make, end, stubborn):
    """`stop`, a 401 and `aclose` end a batch whose source waits, even one that ignores cancellations for a while."""
    client, _ = make(lambda request: refused if prompt_of(request) == "1" and end == "401" else completed(request))
    refused = FakeResponse(b'{"error": "invalid_api_key"}', status_code=401)
    cancelled = 0

    async def prompts():
        nonlocal cancelled
        yield "0"
        yield "1"
        while cancelled <= stubborn:
            try:
                await asyncio.sleep(FOREVER if cancelled == 0 else 0.05)
            except asyncio.CancelledError:
                cancelled += 1
                if cancelled > stubborn:
                    raise
            else:
                cancelled += 1

    started = time.monotonic()
    async with client.generate_many(prompts(), model="m", max_concurrency=1) as results:
        await turns()
        if end == "stop":
            results.stop()
        if end != "aclose":
            with anyio.fail_after(3):
                seen = [result async for result in results]
            assert 2 == len(seen)
    assert time.monotonic() - started < 5
    await all_tasks_end()


@pytest.mark.timing
async def test_closing_while_the_source_never_unwinds(make):
    """A source that never ends holds up `aclose` for some seconds only, and no result."""
    client, _ = make()
    release = asyncio.Event()

    async def prompts():
        yield "0"
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    started = time.monotonic()
    async with client.generate_many(prompts(), model="m") as results:
        await turns()
        results.stop()
        with anyio.fail_after(1):
            assert 1 == len([result async for result in results])
    assert time.monotonic() - started < 10
    release.set()
    await all_tasks_end()
