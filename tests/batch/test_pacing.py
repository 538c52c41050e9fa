"""When the next request may start: what is learned of limits, and how a batch keeps them on a real server."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import json
import math
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime

import pytest
from answers import done

from neuralbox_async import APIConnectionError, AsyncNeuralBox, ClientClosedError, RateLimitError
from neuralbox_async._pacing import Pace, RateLimits, Window
from neuralbox_async.testing import FakeResponse, NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

REFUSED = APIConnectionError("refused")


def too_many(**facts):
    """Return a 429."""
    error = RateLimitError("429", status=429, retry_after=facts.pop("retry_after", None))
    vars(error).update(facts)
    return error


def told(limit, remaining, reset=None, *, kind="hour", **others):
    """Return the headers of an answer."""
    headers = {f"x-ratelimit-limit-{kind}": str(limit), f"x-ratelimit-remaining-{kind}": str(remaining), **others}
    return headers if reset is None else {**headers, f"x-ratelimit-reset-{kind}": str(reset)}


# -------------------------------------------------------------------------------------------------------- what is known


def test_headroom_is_what_remains_less_what_is_in_flight():
    """No more are in flight than remain, less a reserve for calls that do not wait."""
    window = Window(3600.0)
    window.learn(1000, 50, 1700, 100.0)

    assert [0.0, 0.0, math.inf] == [window.opens_at(10.0, in_flight) for in_flight in (0, 39, 40)]
    window.learn(1000, 10, 1700, 100.0)
    assert 100.0 == window.opens_at(10.0, 0)


@pytest.mark.parametrize("limit, reserve", [(5, 0), (19, 0), (20, 1), (100, 2), (1000, 10), (100_000, 10)])
def test_the_reserve_is_small(limit, reserve):
    """The reserve is a fiftieth of the limit, ten at most, and nothing of a small one."""
    window = Window(3600.0)
    window.learn(limit, reserve + 1, 1700, 100.0)

    assert [0.0, math.inf] == [window.opens_at(10.0, in_flight) for in_flight in (0, 1)]


def test_answers_come_in_any_order():
    """Within a window the least counts; a new window is known by its end, and the old one's answers are then late."""
    window = Window(3600.0)
    for remaining, announced in [(50, 1700), (48, 1700), (49, 1700)]:
        window.learn(100, remaining, announced, 100.0)
    assert (48, 100.0) == (window.remaining, window.resets_at)
    window.learn(100, 99, 5300, 3700.0)
    window.learn(100, 40, 1700, 100.0)
    assert (99, 3700.0) == (window.remaining, window.resets_at)


def test_a_window_without_an_end():
    """Where no end is told, only a refusal tells it: one request goes ahead of the others to get it."""
    window = Window(86400.0)
    window.learn(100, 0, 0, None)
    assert [0.0, math.inf] == [window.opens_at(10.0, in_flight) for in_flight in (0, 1)]
    window.exhaust(100, 5000.0)
    assert 5000.0 == window.opens_at(10.0, 0)
    assert 0.0 == window.opens_at(5000.0, 0)
    window.learn(100, 97, 0, None)
    assert 97 == window.remaining


def test_a_new_day_is_seen_by_what_remains():
    """Without an end, much more remaining than before means a new window."""
    window = Window(86400.0)
    window.learn(100, 3, 0, None)
    window.learn(100, 5, 0, None)
    assert 3 == window.remaining
    window.learn(100, 99, 0, None)
    assert 99 == window.remaining


def test_limits_are_read_from_headers():
    """Limit, remaining and reset of the hour are taken from the documented headers."""
    limits = RateLimits()
    assert not limits.known
    limits.observe(told(100, 87, int(time.time()) + 60), counted=True)

    assert (100, 87) == (limits.hour.limit, limits.hour.remaining)
    assert 58 < limits.hour.resets_at - time.monotonic() <= 60
    assert limits.known


def test_the_servers_clock_counts():
    """A reset is a time of the server's clock, which may be wrong: the `Date` header tells what it shows."""
    limits = RateLimits()
    date = email.utils.format_datetime(datetime.fromtimestamp(5000, UTC), usegmt=True)
    limits.observe(told(100, 87, 5060, date=date), counted=True)

    assert 58 < limits.hour.resets_at - time.monotonic() <= 60


def test_a_window_that_goes_on():
    """When the server says that the old window goes on, it is believed, and asked again soon."""
    limits = RateLimits()
    reset = int(time.time()) + 1
    limits.observe(told(100, 2, reset), counted=True)
    assert 0.0 == limits.opens_at(time.monotonic() + 5, 0)
    assert 100 == limits.hour.remaining
    limits.observe(told(100, 1, reset), counted=True)
    assert 0 < limits.opens_at(time.monotonic(), 0) - time.monotonic() < 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-remaining-hour": "-1"},
        {"x-ratelimit-remaining-hour": "many"},
        {"x-ratelimit-remaining-hour": "9" * 40},
        told(0, 0, 1_700_000_000),
        told(0, 0, kind="day"),
    ],
)
def test_headers_that_say_nothing(headers):
    """What makes no sense, and a limit of 0 (which the vendor calls unlimited), holds up nothing."""
    limits = RateLimits()
    limits.observe(headers, counted=True)

    assert 0.0 == limits.opens_at(time.monotonic(), 0)


def test_limits_are_learned_from_refusals():
    """A server without the headers tells limits in its 429; from then on its answers are counted."""
    limits = RateLimits()
    limits.refused(too_many(retry_after=800, limit_hour=3))
    now = time.monotonic()
    assert 800 <= limits.opens_at(now, 0) - now + 1 <= 802
    assert 0.0 == limits.opens_at(now + 900, 0)
    for _ in range(3):
        limits.observe({}, counted=True)
    limits.observe({}, counted=False)
    assert 0 == limits.hour.remaining
    assert 3500 < limits.opens_at(now + 900, 0) - now < 3700


def test_a_refused_day():
    """A wait of more than an hour is the day's."""
    limits = RateLimits()
    limits.refused(too_many(retry_after=30_000, limit_hour=100, limit_day=1000))

    assert (None, 0) == (limits.hour.remaining, limits.day.remaining)


def test_refusals_that_tell_no_time():
    """Without a time to wait the pauses grow, once for those that were refused together."""
    limits = RateLimits()
    pauses = []
    for _ in range(4):
        limits.refused(too_many())
        limits.refused(too_many(retry_after=0.0))
        pauses.append(limits.closed_until - time.monotonic())
        limits.closed_until = 0.0
    assert [1, 2, 4, 8] == [round(pause * 0.97) for pause in pauses]
    limits.answered()
    limits.refused(too_many())
    assert limits.closed_until - time.monotonic() < 1.2


# ------------------------------------------------------------------------------------------------------------ the pace


def started(pace, now, most=1000):
    """Start as many requests as may start at once, and return how many."""
    for count in range(most):
        if pace.delay(now) > 0:
            return count
        pace.start(now)
    return most


def test_more_and_more_in_flight():
    """It begins with a few, and doubles while all are answered, up to the cap."""
    pace = Pace(RateLimits(), cap=100, rate=None)
    rounds = []
    for now in range(1, 5):
        rounds.append(started(pace, float(now)))
        for _ in range(rounds[-1]):
            pace.admitted()

    assert [16, 32, 64, 100] == rounds


def test_known_limits_need_no_search():
    """When the headers say what remains, the cap is used at once."""
    limits = RateLimits()
    limits.observe(told(10_000, 9_000, int(time.time()) + 60), counted=True)
    pace = Pace(limits, cap=200, rate=None)
    now = time.monotonic()
    started(pace, now)
    pace.admitted()

    assert 200 == pace.in_flight + started(pace, now)


def test_fewer_in_flight_after_a_refusal():
    """A refusal halves what may be in flight, once for all that were refused together; then it grows slowly."""
    limits = RateLimits()
    pace = Pace(limits, cap=64, rate=None)
    for now in (1.0, 2.0, 3.0):
        for _ in range(started(pace, now)):
            pace.admitted()
    assert 64 == started(pace, 4.0)
    for _ in range(60):
        pace.pushed_back(5.0, started=4.0)
    for _ in range(4):
        pace.admitted()
    assert 32 == started(pace, 6.0)
    for _ in range(32):
        pace.admitted()
    assert 32 <= started(pace, 7.0) <= 34


def test_one_goes_ahead_after_a_pause():
    """After a limit's end one request is sent, and the others when it was admitted."""
    limits = RateLimits()
    pace = Pace(limits, cap=10, rate=None)
    limits.closed_until = 100.0
    assert (90.0, 100.0) == (pace.delay(10.0), pace.opens_at)
    assert 1 == started(pace, 101.0)
    assert pace.opens_at is None
    pace.pushed_back(102.0, started=101.0)
    assert 1 == started(pace, 102.0)
    pace.admitted()
    assert 1 < started(pace, 103.0)


def test_an_outage_is_not_hurried_through():
    """When several in a row get no answer, the pauses grow; a single one is nothing."""
    pace = Pace(RateLimits(), cap=64, rate=None)
    started(pace, 1.0, most=1)
    pace.failed(1.0, started=1.0)
    assert 16 == started(pace, 1.0)
    for _ in range(16):
        pace.failed(2.0, started=1.0)
    pauses = []
    now = 3.0
    for _ in range(7):
        assert 1 == started(pace, now)
        pace.failed(now, started=now)
        pauses.append(pace.delay(now))
        now += pauses[-1]
    assert [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0] == pauses
    started(pace, now)
    pace.admitted()
    assert 0.0 == pace.delay(now)


def test_a_given_rate():
    """A rate spaces the starts; a moment's delay is made up for, a long one is not."""
    pace = Pace(RateLimits(), cap=1000, rate=100)
    starts = []
    now = 1.0
    while now < 2.0:
        starts += [now] * started(pace, now)
        now += 0.003
    assert 98 <= len(starts) <= 112
    assert started(pace, 50.0) <= 11


def test_two_batches_share_a_limit():
    """Two batches of one client see what both have in flight."""
    limits = RateLimits()
    limits.observe(told(1000, 30, int(time.time()) + 60), counted=True)
    one, other = Pace(limits, cap=64, rate=None), Pace(limits, cap=64, rate=None)
    now = time.monotonic()

    assert 20 == started(one, now) + started(other, now)


def test_a_batch_that_is_over_takes_nothing_from_others():
    """What a batch had in flight when it ended, and never heard of, counts no more."""
    limits = RateLimits()
    limits.observe(told(1000, 30, int(time.time()) + 60), counted=True)
    one, other = Pace(limits, cap=64, rate=None), Pace(limits, cap=64, rate=None)
    now = time.monotonic()
    started(one, now)
    one.end()

    assert 16 == started(other, now)


def test_batches_of_other_threads_come_and_go():
    """A client may run batches in several loops, each in its thread; one may begin or end while another looks."""
    limits = RateLimits()
    limits.observe(told(1000, 900, int(time.time()) + 60), counted=True)
    paces = [Pace(limits, cap=4, rate=None) for _ in range(50)]
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            Pace(limits, cap=4, rate=None)
            Pace(limits, cap=4, rate=None).end()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(3000):
            assert 0.0 == paces[0].delay(time.monotonic())
    finally:
        sys.setswitchinterval(interval)
        over.set()
        thread.join()


# ------------------------------------------------------------------------------------------------------- on the server


async def drain(batch):
    """Run *batch* to its end."""
    async with batch as results:
        async for result in results:
            assert result.error is None, result


@pytest.mark.parametrize("latency, concurrency", [(0.0, 64), (0.03, 16)])
async def test_a_limit_is_used_and_kept(latency, concurrency):
    """Of each window at least nine tenths are used, next to nothing is refused, and the batch resumes by itself."""
    limit = 200
    with NeuralBoxServer(limit_hour=limit, hour_seconds=1.0, latency=latency) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            told, begun = [], datetime.now(UTC)
            prompts = (str(number) for number in range(3 * limit * 97 // 100))
            batch = client.generate_many(
                prompts, model="gpt-5-nano", max_concurrency=concurrency, on_progress=told.append
            )
            await drain(batch)
        requests = [request for request in server.requests if request.path.endswith("/generate")]
        answered = [request.response_status for request in requests]

    assert answered.count(429) == batch.report.rate_limited <= len(requests) // 100
    assert 3 * limit * 97 // 100 == answered.count(200) == len(server.billed)
    # 582 requests need but two waits only if at least 97 % of each window of 200 are used.
    waiting = [progress.waiting_until is not None for progress in told]
    assert 1 <= sum(now and not before for before, now in itertools.pairwise(waiting)) <= 2
    waits = [progress.waiting_until for progress in told if progress.waiting_until is not None]
    assert all(0 < (wait - begun).total_seconds() < 10 for wait in waits)


async def test_a_server_without_headers(make):
    """Where only refusals tell of limits, the batch waits as long as they say, and goes on."""
    refusals = iter([None] * 30 + [{"error": "rate_limit_exceeded", "retry_after": 0.02}] * 3)

    def answer(asked):
        body = next(refusals, None)
        return done(asked) if body is None else FakeResponse(json.dumps(body).encode(), status=429)

    client, transport = make(answer)
    batch = client.generate_many(map(str, range(80)), model="gpt-5", max_concurrency=1)
    await drain(batch)

    assert (3, 83) == (batch.report.rate_limited, len(transport.asked))


async def test_a_day_without_a_told_end():
    """The day's end is told by a refusal alone: one is enough."""
    with NeuralBoxServer(limit_day=30, day_seconds=0.5) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            batch = client.generate_many(map(str, range(50)), model="gpt-5-nano", max_concurrency=20)
            await drain(batch)

    assert 1 == batch.report.rate_limited


async def test_a_refused_request_is_sent_again(client, neuralbox_server):
    """A 429 is no failure and no attempt of the retry policy: the request is sent again after the wait."""
    neuralbox_server.fail(429, retry_after=0.05, times=4)
    batch = client.generate_many(map(str, range(20)), model="gpt-5", max_concurrency=1, max_retries=0)
    async with batch as results:
        found = [result async for result in results]

    assert {None} == {result.error for result in found}
    assert (4, 20) == (batch.report.rate_limited, batch.report.completed)
    assert [5] + [1] * 19 == [result.attempts for result in found]


async def test_a_refusal_for_good(client, neuralbox_server):
    """A 429 that says not to come again is a failure."""
    neuralbox_server.fail(429, headers={"x-should-retry": "false"}, retry_after=0.01)
    batch = client.generate_many(["a", "b"], model="gpt-5", max_concurrency=1)
    async with batch as results:
        found = [result async for result in results]

    assert RateLimitError is type(found[0].error)
    assert found[1].error is None


async def test_interactive_calls_are_not_starved():
    """While a batch waits for the next window, a single call of the same client still gets through."""
    with NeuralBoxServer(limit_hour=50, hour_seconds=30) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            waiting = asyncio.Event()
            batch = client.generate_many(
                map(str, range(500)),
                model="gpt-5-nano",
                on_progress=lambda progress: progress.waiting_until and waiting.set(),
            )
            async with batch as results:
                await asyncio.wait_for(waiting.wait(), 10)
                while results.progress.in_flight:
                    await anext(results)
                reply = await client.generate("gpt-5-nano", "Hi", max_retries=0)

    assert "You said: Hi" == reply.content
    assert 0 == batch.report.rate_limited


async def test_a_call_of_the_client_teaches_the_batch():
    """A batch begins with what other calls of the client have learned."""
    with NeuralBoxServer(limit_hour=20, hour_seconds=30) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            await client.generate("gpt-5-nano", "Hi")
            async with client.generate_many(map(str, range(100)), model="gpt-5-nano") as results:
                for _ in range(18):
                    await anext(results)
                while results.progress.waiting_until is None:
                    await asyncio.sleep(0.001)

    assert (18, 0) == (results.report.completed, results.report.rate_limited)


@pytest.mark.parametrize("read", [0, 1, 50])
async def test_nothing_is_learned_for_a_batch_that_is_over(client, neuralbox_server, read):
    """Read to its end or left before, a batch costs later calls and batches nothing, though it is still held."""
    async with client.generate_many(map(str, range(50)), model="gpt-5-nano") as results:
        for _ in range(read):
            await anext(results)

    assert [] == client._caller.shared.limits.paces


async def test_a_wait_ends_when_told_to_stop():
    """A batch that waits for a limit stops at once: what was refused counts as not started."""
    with NeuralBoxServer(limit_hour=2, hour_seconds=60) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            await client.generate("gpt-5-nano", "Hi")
            await client.generate("gpt-5-nano", "Hi")
            server.fail(429, retry_after=60)
            client._caller.shared.limits.hour.remaining = 1
            async with client.generate_many([str(n) for n in range(9)], model="gpt-5-nano") as results:
                while not results.report.rate_limited:
                    await asyncio.sleep(0.001)
                results.stop()
                assert [] == [result async for result in results]

    assert (9, 0) == (results.report.not_started, results.report.unknown)


async def test_a_wait_ends_when_the_client_is_closed():
    """A batch that waits for a limit notices that its client was closed."""
    with NeuralBoxServer(limit_hour=3, hour_seconds=60) as server:
        async with AsyncNeuralBox(**server.client_options) as client:
            await client.generate("gpt-5-nano", "Hi")
            async with client.generate_many(map(str, range(9)), model="gpt-5-nano") as results:
                for _ in range(2):
                    await anext(results)
                while results.progress.waiting_until is None:
                    await asyncio.sleep(0.001)
                await client.aclose()
                assert [] == [result async for result in results]

    assert ClientClosedError is type(results.report.stopped_by)


async def test_a_rate_is_kept(make):
    """A given rate is kept from the first request on."""
    client, _ = make()
    batch = client.generate_many(map(str, range(60)), model="gpt-5", pace=200)
    await drain(batch)

    assert 0.15 < batch.report.seconds < 5


async def test_an_outage_is_not_hurried_through_by_a_batch(make):
    """While the server cannot be reached, a batch fails few requests, not all that it has."""
    client, _ = make(lambda _asked: REFUSED, max_retries=0)
    async with client.generate_many(map(str, range(100_000)), model="gpt-5") as results:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                async for _ in results:
                    pass

    assert results.report.failed.get("APIConnectionError", 0) < 40


LEFT_BEHIND = """
    import asyncio, sys
    from neuralbox_async import AsyncNeuralBox
    from neuralbox_async.testing import NeuralBoxServer

    async def begin(batch):
        await batch.__aenter__()
        for _ in range(30):
            await anext(batch)

    async def go_on(client):
        async with client.generate_many(["x"], model="gpt-5-nano") as results:
            print((await asyncio.wait_for(anext(results), 10)).error)

    with NeuralBoxServer(limit_day=40) as server:
        server.delay(30, times=10)  # before it counts them: ten are left, and ten in flight
        client = AsyncNeuralBox(**server.client_options)
        batch = client.generate_many(map(str, range(40)), model="gpt-5-nano")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin(batch))
        loop.close()
        if "dropped" in sys.argv:
            del batch
        asyncio.run(go_on(client))
"""


@pytest.mark.parametrize("it_is", ["held", "dropped"])
def test_a_batch_whose_loop_was_closed_holds_nothing_up(it_is):
    """What it had in flight is never heard of, and counts for no later batch, though its end is not known."""
    # In a process of its own: asyncio complains of the tasks of such a loop.
    script = [sys.executable, "-c", textwrap.dedent(LEFT_BEHIND), it_is]
    assert "None\n" == subprocess.run(script, capture_output=True, text=True, timeout=50, check=False).stdout


def test_what_was_told_before_a_batch_does_not_outlive_what_is_told_in_it():
    """What the latest answer before a batch told is learned before all that the batch is told."""
    limits = RateLimits()
    limits.observe({"x-ratelimit-remaining-day": "0", "x-ratelimit-limit-day": "100"}, counted=True)
    limits.refused(too_many(retry_after=60.0))
    Pace(limits, cap=4, rate=None)
    limits.observe({"x-ratelimit-remaining-day": "95", "x-ratelimit-limit-day": "100"}, counted=True)

    assert 95 == limits.day.remaining
