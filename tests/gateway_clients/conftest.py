"""A gateway for clients of other makers: they are in environments of their own (`make test-gateway`)."""

from __future__ import annotations

import pytest
from gateway_thread import in_thread

from neuralbox_async.testing import NeuralBoxServer


@pytest.fixture
def server():
    """A local server."""
    with NeuralBoxServer() as server:
        yield server


@pytest.fixture
def site(server):
    """A gateway in front of a local server."""
    with in_thread(server, shutdown_timeout=1.0) as site:
        yield site
