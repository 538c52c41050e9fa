"""How batches on Dask end: with errors, with requests in flight, or with a driver that has died."""

from __future__ import annotations

import time

import pytest
from coordinators import Worker, forget

pytest.importorskip("distributed")

from neuralbox_async import JournalError
from neuralbox_async._cluster.messages import Decision
from neuralbox_async.dask import _coordinator, generate

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture
def batch_of(dask_client, server, tmp_path):
    """Make a batch, always of the same journal."""
    server.reset()
    return lambda rows, **options: generate(dask_client, rows, journal=tmp_path / "run.jsonl", model="gpt-5", **options)


def service_of(client, actor):
    """Return the coordinator behind *actor*, which runs in this process."""
    worker = next(worker for worker in client.cluster.workers.values() if worker.address == actor.address)
    return worker.state.actors[actor._future.key]._service


def is_on(client, actor):
    """Return whether the cluster of *client* has a coordinator for *actor*, or its plugin."""
    plugins = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
    return (actor._dataset in client.list_datasets(), actor._plugin in plugins)


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("kind", [ZeroDivisionError, JournalError])
def test_errors_while_a_collection_is_made(batch_of, kind):
    """The reason why a batch fails is raised, not Dask's error of the futures that it has cancelled."""
    import dask.bag

    def on_progress(report):
        if report.workers:
            raise kind("it fails")

    rows = dask.bag.from_sequence([f"p{i}" for i in range(3000)], npartitions=300)
    with pytest.raises(kind, match="it fails"), batch_of(rows, on_progress=on_progress) as batch:
        batch.to_bag()


def test_errors_of_the_cluster_at_the_end(batch_of, dask_client, monkeypatch):
    """An error of the first step of leaving leaves no coordinator, and the journal is free."""

    def cancel(*_):
        raise OSError("no scheduler")

    batch = batch_of((f"p{i}" for i in range(1000)), partition_size=5).__enter__()
    next(batch)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no scheduler"):
        patch.setattr(batch._client, "cancel", cancel)
        batch.__exit__(None, None, None)

    assert (False, False) == is_on(dask_client, batch._coordinator)
    with batch_of(["a"]) as again:
        assert 1 == len(list(again))


def test_errors_of_the_first_report(batch_of, dask_client, monkeypatch):
    """A batch that cannot be entered leaves no coordinator, and the journal is free."""

    def report(_):
        raise TimeoutError

    batch = batch_of(["a"])
    with monkeypatch.context() as patch, pytest.raises(TimeoutError):
        patch.setattr(_coordinator.CoordinatorActor, "_report", report)
        batch.__enter__()

    assert (False, False) == is_on(dask_client, batch._coordinator)
    with batch_of(["a"]) as again:
        assert 1 == len(list(again))


def test_drivers_that_have_died(batch_of, dask_client):
    """A coordinator whose driver does not report any more leaves the cluster, and the journal is free."""
    batch = batch_of(["a"])
    actor = batch._coordinator
    actor._start(restarted=False)  # and no thread reports
    service = service_of(dask_client, actor)
    assert (True, True) == is_on(dask_client, actor)
    with service._lock:
        service._driver_expires = 0.0

    wait_until(lambda: is_on(dask_client, actor) == (False, False))
    assert service._closed
    with batch_of(["a"]) as again:
        assert 1 == len(list(again))


def test_drivers_that_leave_requests_in_flight(batch_of, dask_client, monkeypatch):
    """The coordinator stays until their outcomes are recorded, and no longer."""
    monkeypatch.setattr(_coordinator, "_DRAIN_TIMEOUT", 0.0)
    with batch_of(["a"]) as batch:
        actor = batch._coordinator
        service = service_of(dask_client, actor)
        worker = Worker(service)
        assert [Decision.SEND] == worker.claim("b")
    assert (True, True) == is_on(dask_client, actor)

    worker.settle("b")
    wait_until(lambda: is_on(dask_client, actor) == (False, False))
    assert service._closed
    forget(service, *service._peers)
