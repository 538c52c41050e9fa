"""The blocking `parse`: that of the asynchronous client."""

from __future__ import annotations

import inspect
from unittest import mock

import attrs
import pytest

from neuralbox_async import AsyncNeuralBox
from neuralbox_sync import NeuralBox, ParsingError


@attrs.frozen
class City:
    name: str
    population: int


def test_a_repair(client, neuralbox_server):
    """It returns the value, after a repair, with all generations."""
    neuralbox_server.reply_with("Oslo", '{"name": "Oslo", "population": 717710}')

    result = client.parse("gpt-5", "The capital of Norway?", City)

    assert (City("Oslo", 717710), 2) == (result.value, len(result.attempts))
    assert len(neuralbox_server.billed) == 2


def test_an_error(client, neuralbox_server):
    """It raises the same error."""
    neuralbox_server.reply_with("Oslo")

    with pytest.raises(ParsingError) as caught:
        client.parse("gpt-5", "The capital of Norway?", City, max_repairs=0)

    assert ("Oslo", "$") == (caught.value.text, caught.value.problems[0].path)


def test_the_signature():
    """It has the parameters and the docstring of the asynchronous method, and passes each parameter on."""
    original, twin = inspect.signature(AsyncNeuralBox.parse), inspect.signature(NeuralBox.parse)
    assert original == twin
    assert inspect.getdoc(AsyncNeuralBox.parse) == inspect.getdoc(NeuralBox.parse)
    client = NeuralBox("nb_test")
    client._subject = mock.create_autospec(AsyncNeuralBox, instance=True)
    arguments = {name: mock.Mock(name=name) for name in list(twin.parameters)[1:]}

    with client:
        client.parse(**arguments)

    (called,) = client._subject.parse.call_args_list
    assert {"self": None, **arguments} == original.bind(None, *called.args, **called.kwargs).arguments


@pytest.mark.signals
def test_ctrl_c_during_a_repair(start, neuralbox_server):
    """Ctrl-C during a repair cancels it; its error has the text that was paid for as its cause."""
    neuralbox_server.reply_with("Oslo")
    neuralbox_server.delay(0)
    neuralbox_server.delay(60)
    script = start(
        """
        from neuralbox_sync import NeuralBox

        with NeuralBox() as client:
            try:
                client.parse("gpt-5", "The capital of Norway?", list[int])
            except KeyboardInterrupt as error:
                paid = error.__cause__
                print(type(paid).__name__, paid.text, paid.attempts, paid.billed, paid.tokens_used)
        """
    )
    neuralbox_server.wait_until(lambda: len(neuralbox_server.requests) == 2, timeout=60)

    script.interrupt()

    assert ["ParsingError Oslo 1 yes None"] == script.end().lines
