"""`AsyncStream`: its timeouts."""

from __future__ import annotations

import pytest
from stream_bodies import END, START, delta, sse

from neuralbox_async import APITimeoutError, StreamTimeoutError
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")


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


@pytest.fixture
def clock(monkeypatch):
    """A fake clock of streams."""
    clock = {"now": 1000.0}
    monkeypatch.setattr("neuralbox_async._call.stream.clock", lambda: lambda: clock["now"])
    return clock


PING, EMPTY, OTHER = b": ping\n\n", sse(delta("")), sse({"type": "ping"})


@pytest.mark.parametrize(
    "chunks, seconds, limits, phase",
    [
        ([sse(START)] + [sse(delta("a"))] * 50 + [sse(END)], 9, {"stall_timeout": 10}, None),
        ([sse(START), sse(delta("a")), sse(END)], 11, {"stall_timeout": 10, "first_event_timeout": 60}, "stall"),
        ([sse(START), *[PING] * 50, sse(END)], 3, {"stall_timeout": 10}, "stall"),
        ([sse(START), *[EMPTY] * 50, sse(END)], 3, {"stall_timeout": 10}, "stall"),
        ([sse(START), *[OTHER] * 50, sse(END)], 3, {"stall_timeout": 10}, "stall"),
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
