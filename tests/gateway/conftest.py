"""A gateway in front of a local server."""

from __future__ import annotations

import logging

import pytest
from gateways import running

from neuralbox_async.testing import NeuralBoxServer


@pytest.fixture
def server():
    """A local server."""
    with NeuralBoxServer() as server:
        yield server


@pytest.fixture
async def site(server):
    """A running gateway without special settings."""
    async with running(server) as site:
        yield site


@pytest.fixture
def log(caplog):
    """The lines of the gateway's log, of level INFO and above."""
    with caplog.at_level(logging.INFO, logger="neuralbox.gateway"):
        yield lambda: [record.getMessage() for record in caplog.records if record.name == "neuralbox.gateway"]
