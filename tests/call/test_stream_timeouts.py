"""`AsyncStream`: its timeouts."""

from __future__ import annotations

import pytest
from stream_bodies import END, START, delta, sse

from neuralbox_async import APITimeoutError, StreamTimeoutError
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")


class Flood(FakeResponse):
    """A response that goes on with *beat*; its reads find data and do not wait, so no deadline of a read applies."""

    def __init__(self, clock, beat, *chunks):
        super().__init__(*chunks, headers={"content-type": "text/event-stream"})
        self._clock, self._beat = clock, beat

    async def read_chunk(self, deadline=float("inf")):
        self._clock["now"] += 0.01
        assert self._clock["now"] < 1100, "no timeout"
        return await super().read_chunk() or self._beat * 10


class Ticking(FakeResponse):
    """A response whose chunks each take *seconds* of a fake clock."""

    def __init__(self, clock, seconds, *chunks):
        super().__init__(*chunks, headers={"content-type": "text/event-stream"})
        self._clock, self._seconds = clock, seconds

    async def read_chunk(self, deadline=float("inf")):
        chunk = await super().read_chunk()
        arrives = self._clock["now"] + (self._seconds if chunk else 0)
        if arrives > deadline:
            self._clock["now"] = deadline
            raise APITimeoutError("no data arrived in time", phase="stall", request_sent=True)
        self._clock["now"] = arrives
        return chunk


class Late(FakeResponse):
    """A response whose chunks each take the next of *seconds*; a deadline before that is missed, as when stopped."""

    def __init__(self, clock, seconds, *chunks):
        super().__init__(*chunks, headers={"content-type": "text/event-stream"})
        self._clock, self._seconds = clock, iter(seconds)

    async def read_chunk(self, deadline=float("inf")):
        chunk = await super().read_chunk()
        self._clock["now"] += next(self._seconds) if chunk else 0
        return chunk


@pytest.fixture
def clock(monkeypatch):
    """A fake clock of streams."""
    clock = {"now": 1000.0}
    monkeypatch.setattr("neuralbox_async._call.stream_lifetime.clock", lambda: lambda: clock["now"])
    return clock


PING, EMPTY, OTHER = b": ping\n\n", sse(delta("")), sse({"type": "ping"})
NULL, BLANK, NAMED = sse({"type": "content_delta", "delta": None}), b"data:\n\n", b"event: ping\ndata: x\n\n"
HALF, PENDING = sse(delta("\ud83d")), sse({"id": 7, "status": "pending"})


@pytest.mark.parametrize(
    "chunks, seconds, limits, phase",
    [
        ([sse(START)] + [sse(delta("a"))] * 50 + [sse(END)], 9, {"stall_timeout": 10}, None),
        ([sse(START), sse(delta("a")), sse(END)], 11, {"stall_timeout": 10, "first_event_timeout": 60}, "stall"),
        ([sse(START), *[PING] * 50, sse(END)], 3, {"stall_timeout": 10}, "stall"),
        ([sse(START), *[EMPTY] * 50, sse(END)], 3, {"stall_timeout": 10}, "stall"),
        ([sse(START), *[OTHER] * 50, sse(END)], 3, {"stall_timeout": 10}, "stall"),
        ([sse(START), *[sse(START)] * 50, sse(END)], 3, {"stall_timeout": 10}, "stall"),
        (
            [sse(START), *[sse({**START, "id": f"gen_{n}"}) for n in range(50)], sse(END)],
            3,
            {"stall_timeout": 10},
            "stall",
        ),
        ([sse(delta("a")), *[sse(START)] * 50, sse(END)], 3, {"stall_timeout": 10}, "stall"),
        ([sse(START), *[NULL, BLANK, NAMED] * 20, sse(END)], 3, {"stall_timeout": 10}, "stall"),
        ([sse(START), *[PENDING] * 50, sse(END)], 3, {"stall_timeout": 10}, "stall"),
        ([PENDING] * 50, 3, {"stall_timeout": 10}, "stall"),
        ([sse(START), *[sse(START), sse(delta("a"))] * 20, sse(END)], 6, {"stall_timeout": 13}, None),
        ([sse(START), *[HALF] * 20, sse(END)], 6, {"stall_timeout": 13}, None),
        ([NULL, BLANK, NAMED] * 50, 3, {"first_event_timeout": 20}, "first_event"),
        ([PING] * 50, 3, {"first_event_timeout": 20}, "first_event"),
        ([OTHER] * 50, 3, {"first_event_timeout": 20}, "first_event"),
        ([sse(START)] + [sse(delta("a"))] * 50, 3, {"timeout": 20, "stall_timeout": 10}, "total"),
        ([sse(START), *[PING] * 500, sse(END)], 3, {"stall_timeout": None}, None),
        ([*[PING] * 500, sse(START), sse(END)], 3, {"first_event_timeout": None, "stall_timeout": None}, None),
    ],
)
async def test_timeouts(make_client, clock, chunks, seconds, limits, phase):
    """Only content resets the timeouts; the error names the one that expired; without one a stream has no limit."""
    client = make_client(FakeTransport(Ticking(clock, seconds, *chunks)))
    async with client.stream("gpt-5", "Hi", recover=False, **limits) as stream:
        if phase is None:
            assert (await stream.get_final_generation()).completed
        else:
            with pytest.raises(StreamTimeoutError) as caught:
                await stream.get_final_generation()
            assert phase == caught.value.phase


async def test_a_slow_reader_is_not_a_stall(make_client, clock):
    """The time between two reads does not count."""
    chunks = [sse(START), *[sse(delta("a"))] * 5, sse(END)]
    client = make_client(FakeTransport(Ticking(clock, 1, *chunks)))
    async with client.stream("gpt-5", "Hi", recover=False, stall_timeout=10) as stream:
        async for _ in stream:
            clock["now"] += 1000
    assert stream.generation.completed


async def test_total_timeout_of_a_busy_stream(make_client, clock):
    """The timeout ends a stream even when there is always data to read."""
    client = make_client(FakeTransport(Ticking(clock, 0, sse(START), *[sse(delta("a"))] * 50)))
    async with client.stream("gpt-5", "Hi", recover=False, timeout=20) as stream:
        with pytest.raises(StreamTimeoutError) as caught:
            async for _ in stream:
                clock["now"] += 3
    assert "total" == caught.value.phase


@pytest.mark.parametrize(
    "start, beat, limits, phase",
    [
        (sse(START), PING, {"stall_timeout": 1}, "stall"),
        (sse(START), sse(START), {"stall_timeout": 1}, "stall"),
        (sse(START), b": x", {"stall_timeout": 1}, "stall"),
        (sse(START), b"event: x\n\n", {"stall_timeout": 1}, "stall"),
        (b"", OTHER, {"first_event_timeout": 1}, "first_event"),
        (b"", PING, {"first_event_timeout": 1}, "first_event"),
        (sse(START), PING, {"stall_timeout": None, "timeout": 1}, "total"),
    ],
)
async def test_a_flood_of_heartbeats(make_client, clock, start, beat, limits, phase):
    """A timeout holds also when there is always a heartbeat to read, so that no read ever waits."""
    response = Flood(clock, beat, start + beat)
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi", recover=False, **limits) as stream:
        with pytest.raises(StreamTimeoutError) as caught:
            await stream.get_final_generation()
    assert phase == caught.value.phase


async def test_content_behind_late_heartbeats(make_client, clock):
    """Content that has arrived when the timeout expired, as of a stopped process, is read."""
    response = Late(clock, [0, 1000, 0], sse(START), PING, sse(delta("Hi"), END))
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi", recover=False, stall_timeout=10) as stream:
        assert "Hi" == (await stream.get_final_generation()).content


async def test_a_heartbeat_of_a_stopped_process(make_client, clock):
    """A process that was stopped beyond the stall timeout, with a heartbeat behind it, waits for content once more."""
    chunks = [sse(START), PING, PING, sse(delta("a")), PING, sse(delta("b"), END)]
    response = Late(clock, [1, 1000, 8, 8, 1000, 1], *chunks)
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi", recover=False, stall_timeout=20) as stream:
        assert "ab" == (await stream.get_final_generation()).content


async def test_heartbeats_of_a_blocked_loop(make_client, clock):
    """A loop that is blocked beyond the stall timeout at each heartbeat does not wait indefinitely."""
    response = Late(clock, [1000] * 11, sse(START), *[PING] * 9, sse(delta("a"), END))
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi", recover=False, stall_timeout=10) as stream:
        with pytest.raises(StreamTimeoutError) as caught:
            await stream.get_final_generation()
    assert "stall" == caught.value.phase


async def test_a_flood_after_the_end(make_client, clock):
    """A server that sends heartbeats behind the terminal event does not hold up the reader."""
    response = Flood(clock, PING, sse(START, delta("Hi"), END))
    async with make_client(FakeTransport(response)).stream("gpt-5", "Hi", stall_timeout=None) as stream:
        assert "Hi" == (await stream.get_final_generation()).content
    assert response.closed
