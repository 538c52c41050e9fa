"""Typed answers that echo the key: the errors about them do not, but their text is the user's, as it was generated."""

from __future__ import annotations

import json
import pickle

import pytest
from typed_answers import Word

from neuralbox_async import AsyncNeuralBox, ParsingError

pytestmark = pytest.mark.usefixtures("no_task_left")


async def parse(client):
    with pytest.raises(ParsingError) as caught:
        await client.parse("gpt-5", "Hi", Word)
    return caught.value


async def stream(client):
    async with client.stream("gpt-5", "Hi", output_type=Word) as typed:
        with pytest.raises(ParsingError) as caught:
            await typed.get_final_value()
    return caught.value


async def batch(client):
    async with client.generate_many(["Hi"], model="gpt-5", output_type=Word) as results:
        (result,) = [result async for result in results]
    return result.error


@pytest.mark.parametrize("way", [parse, stream, batch])
@pytest.mark.parametrize("escaped", [False, True])
async def test_an_echoed_key(neuralbox_server, way, escaped):
    """A key in an invalid text is in no problem of it, and in no message, also where the text has escapes for it."""
    key = neuralbox_server.api_key
    written = "".join(f"\\u{ord(char):04x}" for char in key) if escaped else key
    text = f'{{"text": "a", "length": "{written}", "{written}": 1, "x": "{"y" * 50}{written}"}}'
    neuralbox_server.reply_with(*[text] * 2)
    async with AsyncNeuralBox(**neuralbox_server.client_options) as client:
        error = await way(client)

    for each in (error, pickle.loads(pickle.dumps(error))):
        reported = str(each) + "".join(map(str, each.problems))
        assert key not in reported
        assert ('$["***"]' in reported, "got a string '***'" in reported) == (True, True)
        assert (text, key) == (each.text, json.loads(each.text)["length"])
