"""Ends of a batch: closing, stopping and dropping it, whatever it waits for, and event loops that end before it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import time

import anyio
import pytest
from journals import opened_and_closed
from priced_requests import without_price
from transports import completed, prompt_of, results_of

from neuralbox_async import AsyncNeuralBox
from neuralbox_async.testing import FakeResponse

pytestmark = pytest.mark.usefixtures("no_task_left")

FOREVER = 10**9


async def all_tasks_end():
    """Wait until no other task runs."""
    with anyio.fail_after(5):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.001)


async def turns(count=300):
    """Let other tasks run for *count* iterations of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


def stuck_source(count=2):
    """Return an async generator that yields *count* prompts and then waits, and a list that gets its end."""
    ends = []

    async def prompts():
        try:
            for number in range(count):
                yield str(number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # an iterator may await something while it unwinds
            ends.append("unwound")

    return prompts(), ends


def refuse(request):
    """Respond with a 429 that asks for a minute."""
    return FakeResponse(b'{"error": "rate_limit_exceeded", "retry_after": 60}', status_code=429)


def accept(request):
    """Respond that the generation is pending, indefinitely."""
    return {"id": f"gen_{prompt_of(request)}" if request["method"] == "POST" else "gen", "status": "pending"}


# What a batch of two requests in flight waits for: how the transport responds, how long it takes, and options.
WAITS = {
    "responses": (completed, FOREVER, {}),
    "rate limits": (refuse, 1, {}),
    "a price that the first request shows": (without_price, FOREVER, {"budget": 100}),
    "pending generations": (accept, 1, {}),
    "a reader": (completed, 1, {}),
    "its next request": (completed, 1, {"requests": None}),
    "a fixed rate": (completed, 1, {"max_rate": 0.01}),
}


@pytest.fixture(params=WAITS)
async def waiting(request, make, journal):
    """Make batches that wait for one of `WAITS`."""
    respond, delay, options = WAITS[request.param]
    client, transport = make(respond, lambda sent: 1 if "price" in sent["path"] else delay)

    def enter():
        requests = [{"key": str(number), "prompt": str(number)} for number in range(50)]
        if "requests" in options:
            requests = stuck_source()[0]
        arguments = {"requests": requests, "model": "m", "max_concurrency": 2, "journal": journal, **options}
        return client.generate_many(**{**arguments, "requests": requests})

    return enter, transport


@pytest.mark.timing
@pytest.mark.parametrize("iterations", [0, 1, 2, 5, 300])
async def test_closing(waiting, journal, iterations):
    """Whatever a batch waits for, closing it ends it at once, counts every request, and releases the journal."""
    enter, transport = waiting
    started = time.monotonic()
    async with enter() as results:
        await turns(iterations)
    assert time.monotonic() - started < 1.5
    assert 0 == transport.in_flight
    unread = await results.read_batch()
    assert [] == await results.read_batch()
    report = results.report
    assert report.completed == len(unread)
    assert set(report.unknown_keys) <= set(report.cancelled_keys)
    if report.not_started is not None:
        assert 50 == report.completed + len(report.cancelled_keys) + report.not_started
    assert set(report.unknown_keys) == {one.key for one in opened_and_closed(journal).unresolved}


async def test_stop(waiting):
    """Whatever a batch waits for, `stop` takes no more requests, and the results end when requests in flight have."""
    enter, transport = waiting
    async with enter() as results:
        await turns()
        sent = len(transport.requests)
        results.stop()
        await turns(50)
        posts = [request for request in transport.requests[sent:] if request["method"] == "POST"]
        assert [] == posts
        if not results.progress.in_flight:
            with anyio.fail_after(5):
                while await results.read_batch():
                    pass


@pytest.mark.parametrize("read", [0, 2])
async def test_stop_while_the_source_waits(make, read):
    """`stop` ends a batch whose async source waits for its next item, and the source unwinds."""
    client, _ = make()
    prompts, ends = stuck_source()
    async with client.generate_many(prompts, model="m") as results:
        await turns(50)
        seen = [await anext(results) for _ in range(read)]
        results.stop()
        with anyio.fail_after(10):
            seen += [result async for result in results]
        assert {0, 1} == {result.index for result in seen}
    assert ["unwound"] == ends
    assert results.report.not_started is None


async def test_no_money_while_the_source_waits(make):
    """When the API refuses for lack of money, a batch does not wait for the next item of its source."""
    body = b'{"error": "insufficient_tokens"}'
    client, _ = make(lambda _request: FakeResponse(body, status_code=402), lambda _request: 20)
    prompts, ends = stuck_source(1)
    async with client.generate_many(prompts, model="m") as results:
        with anyio.fail_after(10):
            assert ["insufficient_tokens"] == [result.error.code async for result in results]
    assert ["unwound"] == ends


@pytest.mark.timing
async def test_a_source_that_does_not_unwind(make, journal):
    """A source that ignores its cancellation delays closing by two seconds at most, and no result."""
    client, _ = make()
    released = asyncio.Event()

    async def prompts():
        yield "a"
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    async with client.generate_many(prompts(), model="m", journal=journal) as results:
        await turns(50)
        results.stop()
        with anyio.fail_after(1):
            assert 1 == len([result async for result in results])
        started = time.monotonic()
    assert time.monotonic() - started < 3
    opened_and_closed(journal)
    released.set()
    await turns(5)


async def test_a_source_that_cancels_its_reader(make):
    """A source whose own scope cancels the task that reads it raises an error to the reader."""
    client, _ = make()

    async def prompts():
        async with asyncio.timeout(0.01):
            yield "a"
            yield "b"

    with pytest.raises(RuntimeError, match="cancelled the task"):
        async with client.generate_many(prompts(), model="m", max_concurrency=1, max_rate=5) as results:
            async for _ in results:
                pass


async def test_closing_twice(make):
    """Closing again, or from another task meanwhile, is harmless."""
    client, _ = make(delay=lambda _request: FOREVER)
    batch = client.generate_many(map(str, range(9)), model="m")
    async with batch:
        await turns(20)
        await asyncio.gather(batch.aclose(), batch.aclose())
    await batch.aclose()


async def test_a_cancelled_close(make, journal):
    """A task that is cancelled while it closes a batch has closed it."""
    client, transport = make(delay=lambda _request: FOREVER)
    batch = client.generate_many(map(str, range(9)), model="m", journal=journal)
    await batch.__aenter__()
    await turns(20)
    closing = asyncio.ensure_future(batch.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await all_tasks_end()
    assert 0 == transport.in_flight
    opened_and_closed(journal)


async def test_dropping(waiting, journal):
    """Whatever a batch waits for, dropping the last reference ends it and releases the journal."""
    enter, transport = waiting
    batch = enter()
    await batch.__aenter__()
    await turns()
    del batch
    gc.collect()
    await all_tasks_end()
    assert 0 == transport.in_flight
    opened_and_closed(journal)


async def test_a_dropped_batch_that_was_read(make, journal):
    """A batch that was read to its end releases its journal without being closed."""
    client, _ = make()
    batch = client.generate_many(map(str, range(9)), model="m", journal=journal)
    await batch.__aenter__()
    assert 9 == len([result async for result in batch])
    await all_tasks_end()
    opened_and_closed(journal)


# -------------------------------------------------------------------------------------------------- ends of the program


ENDS = """
    import asyncio, gc, sys
    from neuralbox_async import AsyncNeuralBox
    from neuralbox_async._batch.journal import Journal

    journal, end, place = sys.argv[1:]

    class Transport:
        async def send(self, request):
            request.stage = "sent"
            await asyncio.sleep(3600)

        async def aclose(self):
            pass

    def stop_here(name):
        if name == place:
            raise SystemExit(7)

    def prompts():
        for number in range(100):
            if number == 3:
                stop_here("iterator")
            yield str(number)

    async def async_prompts():
        for prompt in prompts():
            await asyncio.sleep(0)
            yield prompt
        await asyncio.sleep(3600)

    def key():
        stop_here("key")
        return "key"

    async def main():
        global batch
        client = AsyncNeuralBox(key, transport=Transport())
        batch = client.generate_many(
            async_prompts() if end == "async" else prompts(),
            model="m",
            max_concurrency=5,
            journal=journal,
            on_progress=lambda _progress: stop_here("progress"),
        )
        await batch.__aenter__()
        for _ in range(100):
            await asyncio.sleep(0)
        if place:
            await anext(batch)

    def check_journal():
        journal_again = Journal(journal)
        list(journal_again.open())
        print(len(journal_again.unresolved_keys), flush=True)
        journal_again.close()

    if end == "closed":
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        del batch
        gc.collect()
        check_journal()
    else:
        try:
            asyncio.run(main())
        finally:
            check_journal()
"""


def run_script(*arguments):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(ENDS), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.process
@pytest.mark.parametrize("end", ["sync", "async", "closed"])
def test_a_loop_that_ends(journal, end):
    """When the event loop ends or is closed during a batch, the journal is released and has the requests in flight."""
    process = run_script(journal, end, "")

    assert (0, "5\n") == (process.returncode, process.stdout), process.stderr
    assert end == "closed" or "" == process.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    "end, place", [("sync", "iterator"), ("async", "iterator"), ("sync", "key"), ("sync", "progress")]
)
def test_user_code_that_exits(journal, end, place):
    """`SystemExit` in the user's own code ends the program with its status, and the journal is whole."""
    process = run_script(journal, end, place)

    assert 7 == process.returncode, process.stderr
    assert process.stdout
    assert "" == process.stderr


# ------------------------------------------------------------------------------------------------------------- results


async def test_results_of_requests_that_fail_while_closing(make):
    """A batch that is closed while its client is closed ends as well."""
    client, _ = make(delay=lambda _request: FOREVER)
    async with client.generate_many(map(str, range(9)), model="m", max_concurrency=3) as results:
        await turns(20)
        await client.aclose()
    assert 3 == len(results.report.cancelled_keys)


async def test_an_empty_batch_of_a_closed_client():
    """A batch without requests ends, whatever the state of the client."""
    client = AsyncNeuralBox("key")
    await client.aclose()

    assert [] == await results_of(client.generate_many([], model="m"))
