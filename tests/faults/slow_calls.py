"""Slow calls, and ways to cancel them."""

import asyncio
import contextlib

import anyio
from fault_server import STREAM_HEAD, answer, events, generation, replies

WHOLE = answer(generation())
PENDING = answer({"id": "gen_1", "status": "pending"})
THROTTLED = answer({"error": "rate_limit_exceeded", "message": "slow down", "retry_after": 30}, status="429 Too Many")
HALF = replies(WHOLE[:-10], then="stall")
HALF_A_STREAM = replies(STREAM_HEAD + events("Hello ", "world", end=False), then="stall")
SOON = 1.0  # seconds; what should take none may take this on a busy machine


async def generate(client):
    """Generate."""
    await client.generate("gpt-5", "Hi")


async def read_stream(client):
    """Open a stream and read it to its end."""
    async with client.stream("gpt-5", "Hi", recover=False) as stream:
        await stream.get_final_generation()


async def wait(client):
    """Poll for a generation that stays pending."""
    await client.wait("gen_1", poll_interval=0.01)


# What gives the call up after so many seconds, and says whether it did; nothing of ours may come out of it.
async def by_task(call, seconds):
    """Cancel the task."""
    task = asyncio.create_task(call)
    await asyncio.sleep(seconds)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


async def by_anyio_scope(call, seconds):
    """Use a scope of anyio."""
    with anyio.move_on_after(seconds) as scope:
        await call
    return scope.cancelled_caught
