"""Local servers, and a client of one."""

from __future__ import annotations

import pytest

from neuralbox_async import AsyncNeuralBox, RetryPolicy, preload
from neuralbox_async.testing import NeuralBoxServer

preload()  # the first call would load aiohttp, which takes longer than the shortest timeouts of these tests

WITHOUT_DELAY = RetryPolicy(jitter=lambda low, _high: low)


@pytest.fixture
def server():
    with NeuralBoxServer() as running:
        yield running


@pytest.fixture
async def client(server):
    async with AsyncNeuralBox(**server.client_options, retry_policy=WITHOUT_DELAY) as opened:
        yield opened


@pytest.fixture
def endless():
    with NeuralBoxServer(event_interval=0.01, reply="word " * 100_000) as running:
        yield running
