"""A request, with its prompt, is freed after its call, although its connection and the context of its task live on."""

from __future__ import annotations

import gc

import pytest

from neuralbox_async import NeuralBoxError
from neuralbox_async._http.transport import HTTPRequest
from neuralbox_sync import NeuralBox


def requests():
    gc.collect()
    return {id(thing) for thing in gc.get_objects() if type(thing) is HTTPRequest}


@pytest.fixture
def freed():
    """Return a function that checks that no request is alive, apart from those from before the test."""
    before = requests()

    def check():
        assert set() == requests() - before

    return check


async def test_calls(client, freed):
    """After a call, which opened the connection, and after others."""
    await client.generate("gpt-5", "Hi")
    freed()
    async with client.stream("gpt-5", "Hi") as stream:
        await stream.get_final_generation()
    del stream
    freed()


async def test_failed_calls(client, server, freed):
    """After calls that failed: their errors do not keep it either."""
    server.drop("after")
    server.fail(400)
    errors = []
    for _ in range(2):
        with pytest.raises(NeuralBoxError) as caught:
            await client.generate("gpt-5", "Hi")
        errors.append(caught.value.with_traceback(None))
        del caught
    freed()
    assert 2 == len(errors)


def test_blocking_calls(server, freed):
    """After calls of the blocking client."""
    with NeuralBox(**server.client_options) as client:
        client.generate("gpt-5", "Hi")
        freed()
        with client.stream("gpt-5", "Hi") as stream:
            list(stream)
        del stream
        client.generate("gpt-5", "Hi")
        freed()
