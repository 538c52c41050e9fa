"""Slow calls, and ways to cancel them."""

import asyncio
import contextlib

import anyio
from fault_server import STREAM_HEAD, events, generation, respond_once, response

COMPLETE = response(generation())
PENDING = response({"id": "gen_1", "status": "pending"})
THROTTLED = response({"error": "rate_limit_exceeded", "message": "slow down", "retry_after": 30}, status="429 Too Many")
HALF = respond_once(COMPLETE[:-10], then="stall")
HALF_A_STREAM = respond_once(STREAM_HEAD + events("Hello ", "world", end=False), then="stall")
SOON = 20.0  # seconds that something immediate may take on a busy machine


async def generate(client):
    """Call `generate`."""
    await client.generate("gpt-5", "Hi")


async def read_stream(client):
    """Read a stream to its end."""
    async with client.stream("gpt-5", "Hi", recover=False) as stream:
        await stream.get_final_generation()


async def wait(client):
    """Poll for a generation that stays pending."""
    await client.wait("gen_1", poll_interval=0.01)


# Functions that cancel a call after so many seconds and return whether they did. The call must not raise an error.
async def by_task(call, seconds):
    """Cancel with `Task.cancel`."""
    task = asyncio.create_task(call)
    await asyncio.sleep(seconds)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


async def by_anyio_scope(call, seconds):
    """Cancel with a scope of anyio."""
    with anyio.move_on_after(seconds) as scope:
        await call
    return scope.cancelled_caught
