"""The event loop of a worker and its thread: how they end."""

from __future__ import annotations

import asyncio
import threading
import time
import types

import pytest
from cluster_processes import settings_of

from neuralbox_async import _fork_delay
from neuralbox_async._batch.errors import BatchStateError
from neuralbox_async._cluster.process_worker import ProcessWorker, end_worker, run_rows
from neuralbox_async._cluster.settings import RowFormat

pytestmark = pytest.mark.usefixtures("quick_end")


def test_partitions_of_a_loop_that_has_broken():
    """They end, whether they came before that or after: nothing else will complete them."""
    loop, coroutines, errors = asyncio.new_event_loop(), [], []  # it never runs

    def run(_rows, _on_last_started):
        coroutines.append(asyncio.sleep(60))
        return coroutines[-1]

    def run_partition():
        with pytest.raises(BatchStateError) as caught:
            worker.run(["row"], lambda: None)
        errors.append(caught.value)

    worker = ProcessWorker(settings_of("broken"), lambda: None)
    worker._loop, worker._runner = loop, types.SimpleNamespace(run=run)
    worker._ready.set()
    threads = [threading.Thread(target=run_partition, daemon=True) for _ in range(3)]
    for thread in threads[:2]:
        thread.start()
    deadline = time.monotonic() + 60
    while len(worker._futures) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    worker._is_ending = True
    worker._end_futures()
    threads[2].start()
    for thread in threads:
        thread.join(60)
    loop.close()
    for coroutine in coroutines:
        coroutine.close()

    assert 3 == len(errors) == len(coroutines)
    assert set() == worker._futures


def test_forks_wait_for_the_thread(make_service, neuralbox_server, environment_of):
    """A worker's thread may have used OpenSSL: a fork while it ends would make a child that cannot exit."""
    environment_of(neuralbox_server)
    service, threads = make_service(), set()
    row_format = RowFormat(prompt=lambda _: threads.add(threading.get_native_id()) or "x")
    run_rows(settings_of("forks", row_format=row_format), lambda: service, ["row"])
    end_worker("forks", 60.0)

    assert 1 == len(threads)
    assert threads <= {thread for thread, _ in _fork_delay._ending}
