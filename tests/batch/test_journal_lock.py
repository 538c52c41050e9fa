"""The lock of a journal: other processes, other batches, and event loops that end."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import sys
from types import SimpleNamespace

import pytest
from journals import entries, opened, opened_and_closed
from transports import FunctionTransport, completed, results_of

from neuralbox_async import AsyncNeuralBox, JournalLockedError

pytestmark = pytest.mark.usefixtures("no_task_left")

HOLDER = """
    import sys, time
    from neuralbox_async._batch.journal import Journal

    journal = Journal(sys.argv[1])
    list(journal.open())
    print("open", flush=True)
    sys.stdin.read()
"""


async def test_two_processes_on_one_journal(make, journal, start):
    """A second process on the same journal is refused with a clear error, until the first ends."""
    holder = start(HOLDER, journal)
    assert "open\n" == holder.stdout.readline()
    client, transport = make()
    with pytest.raises(JournalLockedError, match=r"in use .*run\.jsonl") as caught:
        await results_of(client.generate_many(["a"], model="gpt-5", journal=journal))
    assert [] == transport.requests
    assert str(journal) == caught.value.path
    holder.kill()
    holder.wait()
    assert 1 == len(await results_of(client.generate_many(["a"], model="gpt-5", journal=journal)))


class FakeMsvcrt:
    """Windows' locks, which are on a byte at the place where the file is."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self):
        self.held = {}

    def locking(self, fd, mode, count):
        byte = (os.fstat(fd).st_ino, os.lseek(fd, 0, os.SEEK_CUR), count)
        if mode == self.LK_UNLCK:
            assert fd == self.held.pop(byte)
        elif self.held.setdefault(byte, fd) != fd:
            raise PermissionError(errno.EACCES, "Permission denied")


def test_the_lock_on_windows(journal, monkeypatch):
    """With the lock of Windows, opening twice is refused, and lines are appended at the end."""
    windows = FakeMsvcrt()
    monkeypatch.setattr("neuralbox_async._batch.journal_file.sys", SimpleNamespace(platform="win32"))
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    first = opened(journal)
    ((_, at, count),) = windows.held
    first.write_start("a", "1", "gpt-5", None)
    with pytest.raises(JournalLockedError):
        opened(journal)
    first.write_start("b", "2", "gpt-5", None)
    first.close()
    assert {} == windows.held
    assert ("a", "b") == opened_and_closed(journal).unresolved_keys
    # Beyond the end: on Windows what is locked cannot be read by others.
    assert at > journal.stat().st_size
    assert 1 == count


async def test_two_batches_on_one_journal(make, journal):
    """A second batch on the same journal is refused; leaving a batch releases its journal."""
    client, _ = make()
    async with client.generate_many(["a"], model="gpt-5", journal=journal):
        with pytest.raises(JournalLockedError):
            await results_of(client.generate_many(["a"], model="gpt-5", journal=journal))
    assert [] == await results_of(client.generate_many([], model="gpt-5", journal=journal))


def test_the_end_of_the_loop_releases_the_journal(journal):
    """When the event loop ends during a batch, its journal is released."""
    held = []

    async def leave_open():
        client = AsyncNeuralBox("key", transport=FunctionTransport(completed, lambda _request: 10**9))
        batch = client.generate_many(map(str, range(9)), model="gpt-5", journal=journal, max_concurrency=2)
        await batch.__aenter__()
        held.append(batch)
        while not entries(journal, "start"):
            await asyncio.sleep(0)

    asyncio.run(leave_open())
    opened_and_closed(journal)

    assert 1 == len(held)


def test_a_batch_that_outlives_its_loop(journal):
    """A batch that loses its last reference after its loop was closed releases its journal."""
    loop = asyncio.new_event_loop()
    client = AsyncNeuralBox("key", transport=FunctionTransport(completed, lambda _request: 10**9))
    batch = client.generate_many((), model="gpt-5", journal=journal)
    loop.run_until_complete(batch.__aenter__())
    tasks = asyncio.all_tasks(loop)
    loop.close()
    with pytest.raises(JournalLockedError):
        opened(journal)
    del batch
    gc.collect()
    opened_and_closed(journal)
    for task in tasks:
        task._log_destroy_pending = False  # this loop was closed too early, as it was meant to be
