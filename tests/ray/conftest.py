"""A Ray cluster: head and two nodes, each with processes of its own, which may be killed."""

from __future__ import annotations

import contextlib
import os

import pytest
from ray_nodes import NODE, PRICE
from scripts import environment

from neuralbox_async.testing import NeuralBoxServer

with contextlib.suppress(ImportError):  # the modules of the tests are skipped, and say so
    from ray.cluster_utils import Cluster


@pytest.fixture(autouse=True)
def no_state_left():
    """Ray changes the state of the process for good: these tests have a run of their own (`make test-ray`)."""
    return


@pytest.fixture(scope="module")
def server():
    """Run a local server, with latency, for all tests of a module: the nodes read its address when they start."""
    with NeuralBoxServer(latency=0.05, prices={"gpt-5": PRICE}) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(server):
    """Start a cluster whose environment has the key."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        settings = {**environment(server), "RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
        for name, value in settings.items():
            if os.environ.get(name) != value:
                patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        stack.callback(cluster.shutdown)
        for _ in range(2):
            cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        yield cluster
