"""`AsyncStream`: characters whose surrogates arrive in two deltas, and lone surrogates."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stream_bodies import DONE, END, RESET, START, delta, sse, stream_of

from neuralbox_async import ContentDelta, Message, StreamInterruptedError, UnknownEvent
from neuralbox_async._wire import json as wire_json
from neuralbox_async.testing import FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

EMOJI, HIGH, LOW, REPLACED = "\U0001f600", "\ud83d", "\ude00", "\ufffd"


@pytest.fixture(params=["fast", "fast, standard library", "general", "general, standard library"], autouse=True)
def paths(request, monkeypatch):
    """Run the test on each path and with each JSON library."""
    if "standard library" in request.param:
        monkeypatch.setattr(wire_json, "orjson", None)
    monkeypatch.setattr("neuralbox_async._fast_paths.enabled", lambda: "fast" in request.param)


def stream(make_client, *chunks, **options):
    return make_client(FakeTransport(stream_of(*chunks))).stream("gpt-5", "Hi", recover=False, **options)


async def texts_of(make_client, *chunks):
    """Return the text by `text_stream`, by the events, in batches, and of the final generation."""
    async with stream(make_client, *chunks) as opened:
        pieces = [piece async for piece in opened.text_stream]
    async with stream(make_client, *chunks) as iterated:
        events = [event async for event in iterated]
    async with stream(make_client, *chunks) as batched:
        batch = []
        while received := await batched.read_batch():
            batch += received
    async with stream(make_client, *chunks) as final:
        generation = await final.get_final_generation()
    assert events == batch
    return [
        "".join(pieces),
        "".join(event.delta for event in events if isinstance(event, ContentDelta)),
        opened.generation.content,
        iterated.generation.content,
        batched.generation.content,
        generation.content,
    ]


@pytest.mark.parametrize(
    "deltas, text",
    [
        (["a", HIGH, LOW, "b"], f"a{EMOJI}b"),
        (["a" + HIGH, LOW + "b"], f"a{EMOJI}b"),
        ([HIGH, "", LOW], EMOJI),
        ([HIGH, LOW + HIGH, LOW], EMOJI * 2),
        ([HIGH + LOW], EMOJI),
        ([HIGH], REPLACED),
        (["a" + HIGH, "b"], f"a{REPLACED}b"),
        ([HIGH, HIGH, LOW], REPLACED + EMOJI),
        ([LOW, HIGH, "x", LOW], f"{REPLACED}{REPLACED}x{REPLACED}"),
        (["a" + LOW + "b", "c"], f"a{REPLACED}bc"),
        (["a" + HIGH + "b", "c"], f"a{REPLACED}bc"),
        (["é", HIGH, "é"], f"é{REPLACED}é"),
        ([EMOJI, HIGH, LOW, "z"], f"{EMOJI}{EMOJI}z"),
    ],
)
@pytest.mark.parametrize("end", [sse(END), DONE])
async def test_joined(make_client, deltas, text, end):
    """A final high surrogate waits for the next delta; a lone surrogate becomes U+FFFD; the text is always UTF-8."""
    events = [sse(delta(piece)) for piece in deltas]
    for chunks in ([b"".join(events) + end], [*events, end]):
        assert {text} == set(await texts_of(make_client, sse(START), *chunks))
    assert text == text.encode().decode()
    Message("assistant", text)  # usable as history


async def test_other_events_between_the_halves(make_client):
    """Heartbeats, unknown events and repeated starts between the two halves change nothing."""
    between = sse({"type": "ping"}, START) + b"data:\n\n: ping\n\nevent: ping\ndata: x\n\n"
    whole = sse(START, delta(HIGH)) + between + sse(delta(LOW), END)

    assert {EMOJI} == set(await texts_of(make_client, whole))


async def test_raw_keeps_the_halves(make_client):
    """The *raw* of each delta has what arrived."""
    async with stream(make_client, sse(START, delta("a" + HIGH), delta(LOW + "b"), END)) as opened:
        events = await opened.read_batch()

    assert [ContentDelta("a"), ContentDelta(EMOJI + "b")] == events[1:3]
    assert ["a" + HIGH, LOW + "b"] == [event.raw["delta"] for event in events[1:3]]


async def test_text_so_far(make_client):
    """While a half waits, the text so far ends before it; an interruption has that text."""
    async with stream(make_client, sse(START, delta("Hello" + HIGH)), RESET) as opened:
        with pytest.raises(StreamInterruptedError) as caught:
            async for _ in opened:
                assert "Hello".startswith(opened.generation.content)
    assert "Hello" == caught.value.text == opened.generation.content


async def test_recovered_behind_a_half(make_client):
    """A stream that breaks between two halves continues with the whole character."""
    whole = {"id": "gen_1", "status": "completed", "content": f"Hello{EMOJI}!"}
    transport = FakeTransport(stream_of(sse(START, delta("Hello" + HIGH)), RESET), whole)
    async with make_client(transport).stream("gpt-5", "Hi") as opened:
        assert f"Hello{EMOJI}!" == "".join([piece async for piece in opened.text_stream])


async def test_recovered_behind_a_lone_surrogate(make_client):
    """A lone surrogate is the same in a stream and in the generation that recovers it."""
    whole = {"id": "gen_1", "status": "completed", "content": f"a{LOW}b{HIGH}c"}
    transport = FakeTransport(stream_of(sse(START, delta(f"a{LOW}b"), delta(HIGH)), RESET), whole)
    async with make_client(transport).stream("gpt-5", "Hi") as opened:
        assert f"a{REPLACED}b{REPLACED}c" == "".join([piece async for piece in opened.text_stream])


async def test_a_response_with_surrogates(make_client):
    """The text of a plain response, and of JSON instead of a stream, is UTF-8 and usable as history."""
    body = {"id": "gen_1", "status": "completed", "content": f"a{HIGH}{LOW}b{LOW}c{HIGH}"}
    text = f"a{EMOJI}b{REPLACED}c{REPLACED}"
    client = make_client(FakeTransport(body))

    generation = await client.generate("gpt-5", "Hi")
    async with client.stream("gpt-5", "Hi") as opened:
        streamed = await opened.get_final_generation()

    assert text == generation.content == streamed.content == (await client.retrieve("gen_1")).content
    assert f"a{EMOJI}b{LOW}c{HIGH}" == generation.raw["content"]
    Message("assistant", generation.content)


PIECES = st.lists(st.text(st.sampled_from(["a", "é", EMOJI, HIGH, LOW]), max_size=4), max_size=12)


@given(PIECES, st.lists(st.integers(0, 11), max_size=4), st.integers(1, 400))
@example([HIGH, LOW], [], 400)
async def test_any_cut_of_the_text(make_client, pieces, plain, step):
    """Wherever a text is cut into deltas and these into chunks, the result is that of the whole text."""
    odd = {at: {"index": 1} for at in plain}
    body = sse(START, *[{**delta(piece), **odd.get(at, {})} for at, piece in enumerate(pieces)], END)
    chunks = [body[i : i + step] for i in range(0, len(body), step)]
    text = "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    async with stream(make_client, *chunks) as opened:
        events = [event async for event in opened]

    assert text == opened.generation.content
    assert not any(isinstance(event, UnknownEvent) for event in events)
    for event in events[1:-1]:
        event.delta.encode()
