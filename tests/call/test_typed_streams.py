"""Typed streams: the value while it grows, and the validated value at the end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_bodies import DONE, END, RESET, START, delta, sse, stream_of
from typed_answers import Word

from neuralbox_async import (
    AsyncNeuralBox,
    InvalidParameterError,
    ParsingError,
    StreamInterruptedError,
    StreamStateError,
)
from neuralbox_async._call.typed_stream import Partials
from neuralbox_async._wire.output_types import output_type_of
from neuralbox_async.testing import FakeTransport, NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

TEXT = '{"text": "river", "length": 5}'
PARTIALS = [{"text": "ri"}, {"text": "river"}, {"text": "river", "length": 5}]
CHUNKS = [sse(START, delta('{"text": "ri')), sse(delta('ver", "len')), sse(delta('gth": 5}'), END), DONE]


@pytest.fixture
def stream(make_client):
    """Return a typed stream of chunks."""

    def stream(*chunks, output_type=Word, **options):
        client = make_client(FakeTransport(stream_of(*chunks)))
        return client.stream("gpt-5", "Hi", output_type=output_type, **options)

    return stream


async def test_partials(stream):
    """`partials` yields the value as it grows, without the members that have not arrived."""
    async with stream(*CHUNKS) as typed:
        assert PARTIALS == [partial async for partial in typed.partials()]
        assert Word("river", 5) == await typed.get_final_value()
    assert TEXT == typed.generation.content


async def test_the_value_alone(stream):
    """`get_final_value` reads the stream to its end; the value can be had again."""
    async with stream(*CHUNKS) as typed:
        assert Word("river", 5) == await typed.get_final_value()
    assert Word("river", 5) == await typed.get_final_value()


async def test_after_other_reads(stream):
    """The iterators read the same stream: what others have read is part of the next value."""
    async with stream(*CHUNKS) as typed:
        await anext(typed.text_stream)
        assert PARTIALS[1:] == [partial async for partial in typed.partials()]


async def test_a_cancelled_read():
    """A read that is cancelled loses nothing."""
    tokens = ['{"text": "ri', 'ver", "len', 'gth": 5}']
    with NeuralBoxServer(reply=lambda _: tokens, event_interval=0.05) as server:
        async with (
            AsyncNeuralBox(**server.client_options) as client,
            client.stream("gpt-5", "Hi", output_type=Word) as typed,
        ):
            partials, found = typed.partials(), []
            while PARTIALS[-1] not in found:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        found.append(await anext(partials))
            # On a busy machine, two events may arrive at once.
            assert [partial for partial in PARTIALS if partial in found] == found
            assert Word("river", 5) == await typed.get_final_value()


@pytest.mark.parametrize("text", ["no JSON", '{"text": "river", "length": "5"}', '{"text": "river", "len'])
async def test_an_invalid_text(stream, text):
    """A text that is not of the type is an error that has the text; nothing is sent again."""
    async with stream(sse(START, delta(text), END)) as typed:
        for _ in range(2):
            with pytest.raises(ParsingError) as caught:
                await typed.get_final_value()
        assert (text, (typed.generation,), "yes") == (caught.value.text, caught.value.generations, caught.value.billed)
        assert caught.value.problems


@pytest.mark.parametrize(
    "end, options",
    [
        ({"finish_reason": "length"}, {}),
        ({"usage": {"completion_tokens": 1}}, {"max_tokens": 1}),
        ({"usage": {"completion_tokens": 1}}, {"extra_body": {"max_tokens": 1}}),
    ],
)
async def test_a_number_that_was_cut(stream, end, options):
    """A number at the end of a text that ends at max_tokens may have had more digits."""
    async with stream(sse(START, delta("12"), {**END, **end}), output_type=int, **options) as typed:
        with pytest.raises(ParsingError, match="ends before"):
            await typed.get_final_value()


async def test_an_interrupted_stream(stream):
    """A stream that breaks raises the error of reading, with the text; the values before it were yielded."""
    partials = []
    async with stream(CHUNKS[0], RESET, recover=False) as typed:
        with pytest.raises(StreamInterruptedError) as caught:
            async for partial in typed.partials():
                partials.append(partial)
        with pytest.raises(StreamInterruptedError):
            await typed.get_final_value()
    assert ([PARTIALS[0]], '{"text": "ri') == (partials, caught.value.text)


async def test_without_a_type(make_client):
    """A stream without a type has no values."""
    async with make_client(FakeTransport(stream_of(*CHUNKS))).stream("gpt-5", "Hi") as plain:
        with pytest.raises(StreamStateError, match="output_type"):
            plain.partials()
        with pytest.raises(StreamStateError, match="output_type"):
            await plain.get_final_value()
        assert TEXT == (await plain.get_final_generation()).content


def test_a_type_that_is_not_supported(stream):
    """A type that JSON cannot represent is an error of the call, before anything is sent."""
    with pytest.raises(InvalidParameterError, match="output_type"):
        stream(output_type=asyncio.Lock)


async def test_the_request(neuralbox_server):
    """The schema is sent in the system message, after the user's own."""
    async with (
        AsyncNeuralBox(**neuralbox_server.client_options) as client,
        client.stream("gpt-5", "Hi", system="Be brief.", output_type=Word) as typed,
    ):
        await typed.get_final_generation()
    (request,) = neuralbox_server.requests

    assert request.json["system"].startswith("Be brief.")
    assert '"length"' in request.json["system"]


class Texts:
    """A stream whose reads deliver *pieces* to *texts*, one by one."""

    def __init__(self, pieces):
        self.pieces, self.texts = iter(pieces), []

    async def read_batch(self):
        piece = next(self.pieces, None)
        self.texts += [] if piece is None else [piece]
        return [] if piece is None else [piece]


def is_beginning(part, whole):
    """Return whether *part* is *whole* without members, items and characters at its end."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return list(part) == list(whole)[: len(part)] and all(is_beginning(part[name], whole[name]) for name in part)
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(map(is_beginning, part, whole))
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    return part == whole


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(
    value=st.lists(json_values, max_size=4) | st.dictionaries(st.text(max_size=4), json_values), size=st.integers(1, 9)
)
async def test_any_value(value, size):
    """However a text arrives, each value is the beginning of the whole, and the last one is the whole."""
    text = json.dumps(value)
    stream = Texts(text[at : at + size] for at in range(0, len(text), size))
    partials = Partials(stream, stream.texts, output_type_of(type(value)).parse_partial)
    values = [await anext(partials)]
    while (partial := await anext(partials, ...)) is not ...:
        values.append(partial)

    assert value == values[-1]
    assert all(is_beginning(part, whole) for part, whole in itertools.pairwise(values))
    assert len(values) == len({json.dumps(value) for value in values})


async def test_the_cost_of_a_long_text():
    """A text is not parsed again for each of its pieces: the characters that are parsed grow with its length only."""
    parsed = []

    def parse_partial(text):
        parsed.append(len(text))
        return {"length": len(text)}

    stream = Texts(["word "] * 20_000)
    partials = Partials(stream, stream.texts, parse_partial)
    while await anext(partials, None) is not None:
        pass

    assert sum(parsed) < 100 * 100_000
    assert 100_000 == parsed[-1]
