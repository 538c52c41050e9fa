"""Clusters of Dask: one in the process of the tests, and one of three processes that may be killed."""

from __future__ import annotations

import contextlib
import copyreg
import threading

import pytest
from scripts import environment

pickles = dict(copyreg.dispatch_table)
with contextlib.suppress(ImportError):  # the modules of the tests are skipped, and say so
    import distributed
# It lets pickles of any exception have its causes (tblib), which other tests would see.
copyreg.dispatch_table.clear()
copyreg.dispatch_table.update(pickles)

from neuralbox_async._cluster import process_worker  # noqa: E402 - after the test of whether Dask is there
from neuralbox_async.testing import NeuralBoxServer  # noqa: E402

PRICE = 3


@pytest.fixture(scope="module")
def server():
    """Run a local server for all tests of a module: the workers read its address when they start."""
    with NeuralBoxServer(prices={"gpt-5": PRICE}) as server:
        yield server


@pytest.fixture(scope="module")
def dask_client(server):
    """Make a client of a cluster in this process, whose environment has the key."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        for name, value in environment(server).items():
            if name.startswith("NEURALBOX_"):
                patch.setenv(name, value)
        cluster = stack.enter_context(
            distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0")
        )
        yield stack.enter_context(cluster.get_client())


@pytest.fixture(autouse=True)
def no_worker_left(monkeypatch):
    """End the workers of a batch soon, and wait for that: they have threads."""
    monkeypatch.setattr(process_worker, "_IDLE_TIMEOUT", 0.25)
    yield
    for thread in threading.enumerate():
        if thread.name in {"neuralbox-worker", "neuralbox-dask"}:
            thread.join(60)
