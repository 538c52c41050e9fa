"""Typed streams and batches in blocking code."""

from __future__ import annotations

import threading

import pytest
from typed_answers import Word, text_for

from neuralbox_async.testing import NeuralBoxServer
from neuralbox_sync import NeuralBox, ParsingError, StreamInterruptedError, StreamStateError


@pytest.fixture
def typed_client():
    """Return a client of a server with invalid and valid answers."""
    with NeuralBoxServer(reply=text_for) as server, NeuralBox(**server.client_options) as client:
        yield client


def test_a_stream(typed_client):
    """`partials` yields the growing value, and `get_final_value` the whole one, in any thread."""
    with typed_client.stream("gpt-5", "red", output_type=Word) as stream:
        partials = list(stream.partials())
        values = []
        thread = threading.Thread(target=lambda: values.append(stream.get_final_value()))
        thread.start()
        thread.join()

    assert ({"text": "red", "length": 3}, [Word("red", 3)]) == (partials[-1], values)
    assert all(partial.items() <= partials[-1].items() or "text" in partial for partial in partials)


def test_a_growing_stream():
    """Each value has what has arrived so far."""
    with (
        NeuralBoxServer(reply=lambda _: ['{"text": "r', 'ed", ', '"length": 3}'], event_interval=0.05) as server,
        NeuralBox(**server.client_options) as client,
        client.stream("gpt-5", "red", output_type=Word) as stream,
    ):
        partials = list(stream.partials())

    assert ({"text": "r"}, {"text": "red", "length": 3}) == (partials[0], partials[-1])


def test_an_invalid_stream(typed_client):
    """An invalid text is an error that has it; a stream without a type has no value."""
    with typed_client.stream("gpt-5", "red-1", output_type=Word) as stream, pytest.raises(ParsingError) as caught:
        stream.get_final_value()
    assert '{"text": "red", "length": "long"}' == caught.value.text
    with typed_client.stream("gpt-5", "red") as stream:
        for read in (stream.partials, stream.get_final_value):
            with pytest.raises(StreamStateError, match="output_type"):
                read()


def test_an_interrupted_stream():
    """The iterator raises the errors of reading."""
    with NeuralBoxServer(reply=text_for) as server, NeuralBox(**server.client_options) as client:
        server.cut(after_events=3, how="close")
        with (
            client.stream("gpt-5", "red", output_type=Word, recover=False) as stream,
            pytest.raises(StreamInterruptedError),
        ):
            list(stream.partials())


def test_a_batch(typed_client, tmp_path):
    """Results have values; a rerun has them again, without paying."""
    for is_rerun in (False, True):
        batch = typed_client.generate_many(
            ["red", "blue-1", "green-5"],
            model="gpt-5",
            output_type=Word,
            ordered=True,
            journal=tmp_path / "run.jsonl",
            include_done=True,
        )
        with batch as results:
            red, blue, green = results
        assert (Word("red", 3), Word("blue", 4), None) == (red.value, blue.value, green.value)
        assert (ParsingError, 2) == (type(green.error), len(green.error.generations))
        assert [is_rerun] * 3 == [red.from_journal, blue.from_journal, green.from_journal]
        assert (batch.report.tokens_used == 0) is is_rerun
