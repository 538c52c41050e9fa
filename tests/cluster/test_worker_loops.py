"""The event loop of a worker and its thread: how they end."""

from __future__ import annotations

import asyncio
import threading

import pytest
from cluster_processes import settings_of

from neuralbox_async import _fork_delay
from neuralbox_async._cluster.process_worker import end_worker, run_rows
from neuralbox_async._cluster.rows import RowRunner
from neuralbox_async._cluster.settings import RowFormat

pytestmark = pytest.mark.usefixtures("quick_end")


def test_loops_that_break(neuralbox_server, environment_of, monkeypatch):
    """Whatever ends the loop of a worker, no partition waits for results that never come."""

    async def break_loop(self, index, row, results):
        try:
            await asyncio.sleep(0.1 * index)
        finally:
            raise SystemExit(3)  # also when it is cancelled, so that the end of the loop breaks, too

    def run_partition():
        try:
            run_rows(settings, lambda: None, ["a", "b", "c"])
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends the wait
            errors.append(error)

    environment_of(neuralbox_server)
    monkeypatch.setattr(RowRunner, "_run_row", break_loop)
    settings, errors = settings_of("broken", needs_prices=False), []
    threads = [threading.Thread(target=run_partition, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 4 == len(errors)


def test_forks_wait_for_the_thread(make_service, neuralbox_server, environment_of):
    """A worker's thread may have used OpenSSL: a fork while it ends would make a child that cannot exit."""
    environment_of(neuralbox_server)
    service, threads = make_service(), set()
    row_format = RowFormat(prompt=lambda _: threads.add(threading.get_native_id()) or "x")
    run_rows(settings_of("forks", row_format=row_format), lambda: service, ["row"])
    end_worker("forks", 60.0)

    assert 1 == len(threads)
    assert threads <= {thread for thread, _ in _fork_delay._ending}
