"""The option *timeout*: a value of the user holds for calls and streams; the call's value precedes the client's."""

from __future__ import annotations

import math

import anyio
import pytest
from stream_bodies import START, sse, stream_of

from neuralbox_async import APITimeoutError, StreamTimeoutError
from neuralbox_async._call import executor
from neuralbox_async._clock import DeadlineScope, now
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

REPLY = {"id": "gen_1", "status": "completed", "content": "Hello"}


@pytest.fixture
def deadlines(monkeypatch):
    """Record the seconds of each deadline that a call starts, infinity for none."""
    seconds = []

    class Recording(DeadlineScope):
        __slots__ = ()

        def __enter__(self):
            seconds.append(self.when - now())
            return super().__enter__()

    monkeypatch.setattr(executor, "DeadlineScope", Recording)
    return seconds


class Recorder(FakeResponse):
    """A stream that records the seconds until the deadline of each read."""

    def __init__(self):
        super().__init__(sse(START), b"data: [DONE]\n\n", headers={"content-type": "text/event-stream"})
        self.deadlines = []

    async def read_chunk(self, deadline=math.inf):
        self.deadlines.append(deadline - now())
        return await super().read_chunk()


# The timeouts of the client, with_options and the call; those that hold for a call and for a stream.
PRECEDENCE = [
    ({}, {}, {}, 600, math.inf),
    ({"timeout": 50}, {}, {}, 50, 50),
    ({"timeout": None}, {}, {}, math.inf, math.inf),
    ({"timeout": 600}, {}, {}, 600, 600),
    ({}, {"timeout": 40}, {}, 40, 40),
    ({}, {"max_retries": 1}, {}, 600, math.inf),
    ({"timeout": 50}, {"timeout": 40}, {}, 40, 40),
    ({"timeout": 50}, {"max_retries": 1}, {}, 50, 50),
    ({"timeout": 50}, {"timeout": None}, {}, math.inf, math.inf),
    ({}, {}, {"timeout": 30}, 30, 30),
    ({"timeout": 50}, {"timeout": 40}, {"timeout": 30}, 30, 30),
    ({"timeout": 50}, {"timeout": 40}, {"timeout": None}, math.inf, math.inf),
]


@pytest.mark.parametrize("of_client, of_with_options, of_call, call_seconds, stream_seconds", PRECEDENCE)
async def test_precedence(make_client, deadlines, of_client, of_with_options, of_call, call_seconds, stream_seconds):
    """The call precedes `with_options`, the client and the default: 600 s for a call, no limit for a stream."""
    response = Recorder()
    client = make_client(FakeTransport(REPLY, response), **of_client, first_event_timeout=None, stall_timeout=None)
    client = client.with_options(**of_with_options)
    await client.generate("gpt-5", "Hi", **of_call)
    async with client.stream("gpt-5", "Hi", **of_call) as stream:
        await stream.get_final_generation()

    assert [pytest.approx(call_seconds, abs=1), pytest.approx(stream_seconds, abs=1)] == deadlines
    assert [pytest.approx(stream_seconds, abs=1)] * 2 == response.deadlines[:2]


async def test_timeout_of_retrieve(make_client, deadlines):
    """The client's timeout holds for `retrieve`, unless the call has its own."""
    client = make_client(FakeTransport(REPLY), timeout=50)
    await client.retrieve("gen_1")
    await client.retrieve("gen_1", timeout=30)

    assert [pytest.approx(50, abs=1), pytest.approx(30, abs=1)] == deadlines


@pytest.mark.parametrize("chunks", [[...], [sse(START), ...]], ids=["before the first event", "later"])
async def test_the_clients_timeout_ends_a_stream(make_client, chunks):
    """A stream ends at the timeout of its client."""

    class Waiting(FakeResponse):
        async def read_chunk(self, deadline=math.inf):
            with anyio.move_on_at(deadline):
                return await super().read_chunk()
            raise APITimeoutError("no data arrived in time", phase="stall", request_sent=True)

    response = Waiting(*chunks, headers={"content-type": "text/event-stream"})
    client = make_client(FakeTransport(response), timeout=0.05)
    with anyio.fail_after(5):
        async with client.stream("gpt-5", "Hi", recover=False) as stream:
            with pytest.raises(StreamTimeoutError) as caught:
                await stream.get_final_generation()

    assert "total" == caught.value.phase


async def test_the_clients_timeout_ends_a_call(make_client):
    """A call ends at the timeout of its client."""
    client = make_client(FakeTransport(stream_of(b"{", ...))).with_options(timeout=0.05)
    with anyio.fail_after(5), pytest.raises(APITimeoutError) as caught:
        await client.generate("gpt-5", "Hi")

    assert "total" == caught.value.phase
